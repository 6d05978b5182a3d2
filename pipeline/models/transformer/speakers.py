"""Several voices in one picture: which tokens are whose, and what a token hears.

``Bound``: the model itself binds voices to faces. How much a token attends to each speaker's region of the reference
(the reference map) tells whose it is, and turns its query to a position near that speaker's keys, by a rotary embedding
in one dimension (MultiTalk, Kong et al. 2025, arXiv 2505.22647; wan/modules/attention.py of upstream). Only
checkpoints for several speakers were trained so.

``Placed``: each voice is heard in its region alone, and what is between hears silence. Any checkpoint can do that; the
regions do not move with the faces.

Knows nothing of pictures: regions come as numbers for the tokens of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...quantisation.activations import token_slices
from .attention import Attention
from .rope import THETA

SPREAD = 4.0  # positions that one speaker's tokens are spread over
BETWEEN = 20.0  # from one speaker's first position to the next one's
REST = 12.0  # the position of what belongs to nobody


@dataclass(frozen=True)
class Bound:
    """Voices that the model binds to faces.

    Attributes:
        audio: embedded speech [frames, speakers * audio tokens, audio_dim], speaker after speaker.
        masks: which tokens of a frame are in each speaker's region of the reference, and in none, [speakers + 1, tokens
            of a frame], 1 or 0; none of them empty.
    """

    audio: torch.Tensor
    masks: torch.Tensor


@dataclass(frozen=True)
class Placed:
    """Voices that are heard in regions.

    Attributes:
        audio: embedded speech [voices, frames, audio tokens, audio_dim].
        shares: how much a token of a frame hears of each, [voices, tokens of a frame]; of all together 1.
    """

    audio: torch.Tensor
    shares: torch.Tensor


Speech = torch.Tensor | Bound | Placed  # one voice for all tokens is [frames, audio tokens, audio_dim]


def bound(voices: list[torch.Tensor], masks: torch.Tensor) -> Bound:
    """Of each speaker's embedded speech [frames, audio tokens, audio_dim]; see ``Bound``."""
    return Bound(torch.cat(voices, dim=1), masks)


def reference_map(q: torch.Tensor, keys: torch.Tensor, masks: torch.Tensor, attend: Attention) -> torch.Tensor:
    """How much each token attends to a token of each region, on the average over heads: [classes, tokens], float32.

    The regions' masks stand in the values' place, so that no attention weights are kept.

    Args:
        q: rotated queries [tokens, heads, head_dim].
        keys: of the reference, the first latent frame, [tokens of a frame, heads, head_dim].
        masks: see ``Bound``; at most head_dim of them.
    """
    values = torch.zeros_like(keys)
    values[..., : len(masks)] = masks.t()[:, None].to(keys.dtype)
    found = q.new_empty(len(masks), len(q), dtype=torch.float32)
    for part in token_slices(len(q)):
        weights = attend(q[part][None], keys[None], values[None])[0, ..., : len(masks)]
        found[:, part] = weights.float().mean(1).t()
    return found.div_(masks.float().sum(1, keepdim=True))


def range_of(found: torch.Tensor) -> torch.Tensor:
    """The least and the most of each class of a map [classes, tokens]: [2, classes]."""
    return torch.stack(found.aminmax(dim=1))


def positions(found: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
    """Where a token's query belongs, [tokens]: within the positions of that speaker to whose region it attends most.

    Args:
        found: see ``reference_map``.
        span: see ``range_of``, over all tokens.
    """
    least, most = (limit[:-1, None] for limit in span)
    first = BETWEEN * torch.arange(len(found) - 1, device=found.device)[:, None]
    places = (found[:-1] - least) / (most - least + 1e-8) * SPREAD + first
    places = torch.cat([places, torch.full_like(found[-1:], REST)])
    return places.gather(0, found.argmax(0, keepdim=True))[0]


def key_positions(speakers: int, tokens: int, device: torch.device) -> torch.Tensor:
    """Where the keys of so many speakers belong, speaker after speaker, each in the middle: [speakers * tokens]."""
    return (BETWEEN * torch.arange(speakers, device=device) + SPREAD / 2).repeat_interleave(tokens)


def turns(places: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Unit complex numbers to rotate by, [n, 1, head_dim / 2], of positions [n]; for ``rope.rotate``."""
    exponents = torch.arange(0, head_dim, 2, device=places.device).float() / head_dim
    angles = places[:, None, None] * (1.0 / THETA**exponents)
    return torch.polar(torch.ones_like(angles), angles)
