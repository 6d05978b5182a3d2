"""A block of the transformer: attention to itself, to text and image, and to the speech, then the feed-forward.

Parameter names are the checkpoints' own. Tokens are changed in place and inputs given up with their last use, since
they are hundreds of megabytes. Knows nothing about where weights live or what the tokens stand for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ...facts.model_sizes import TransformerConfig
from ...quantisation.activations import Activation, token_slices
from ...quantisation.matmul import WEIGHT_ONLY, Matmuls
from ...quantisation.products import GeluProduct
from .attention import Attention
from .few_keys import FewKeys, folding_pays
from .linear import Linear, shared_quantised_dtype
from .pointwise import Pointwise
from .rope import rotate
from .speakers import Bound, Placed, Speech, key_positions, positions, range_of, reference_map, turns

TEXT_TOKENS = 512  # a prompt and its padding
# Layers of cross-attention that are needed once for each text and image, not at every step.
TEXT_LAYERS = ("k", "v", "norm_k")
IMAGE_LAYERS = ("k_img", "v_img", "norm_k_img")


@dataclass(frozen=True)
class Operations:
    """Interchangeable implementations of what a block computes.

    Attributes:
        few_keys: for cross-attention; None does without.
        gelu_product: a linear layer and GELU in one; None does without.
        speech_gate: [1, dim], what the attention to the speech is multiplied by; None adds it as it is.
    """

    attend: Attention
    pointwise: Pointwise
    matmuls: Matmuls = WEIGHT_ONLY
    few_keys: FewKeys | None = None
    gelu_product: GeluProduct | None = None
    speech_gate: torch.Tensor | None = None

    def hearing(self, strength: float, x: torch.Tensor) -> Operations:
        """The same, with so much of what is heard added to tokens like ``x`` [tokens, dim]."""
        if strength == 1:
            return self
        return replace(self, speech_gate=torch.full((1, x.shape[1]), strength, device=x.device))


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[..., dim] -> [..., heads, head_dim]"""
    return x.unflatten(-1, (heads, -1))


class RMSNorm(nn.Module):
    """Root-mean-square norm over all heads' channels together."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class NormedAttention(nn.Module):
    """The layers that Wan's self-attention and cross-attention have in common."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = Linear(config.dim, config.dim)
        self.k = Linear(config.dim, config.dim)
        self.v = Linear(config.dim, config.dim)
        self.o = Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)


class SelfAttention(NormedAttention):
    def forward(
        self, x: Activation, rope: torch.Tensor, ops: Operations, masks: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [tokens, dim], released on the way -> [tokens, dim]; with ``masks`` also where each token belongs, [tokens]

        Args:
            masks: of the speakers' regions, see ``speakers.Bound``.
        """
        q = ops.pointwise.norm_rotate(self.q(x), self.norm_q.weight, rope, self.num_heads, self.norm_q.eps)
        k = ops.pointwise.norm_rotate(self.k(x), self.norm_k.weight, rope, self.num_heads, self.norm_k.eps)
        v = split_heads(self.v(x), self.num_heads)
        x.release()
        places = None
        if masks is not None:
            found = reference_map(q, k[: masks.shape[1]], masks, ops.attend)
            places = positions(found, range_of(found))
        out = ops.attend.among(q, k, v, self.o.quantised_dtype(len(q)))
        del q, k, v
        return self.o(out), places


class CrossAttention(NormedAttention):
    """Attention to text and to the reference image, each with keys of its own, summed."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.k_img = Linear(config.dim, config.dim)
        self.v_img = Linear(config.dim, config.dim)
        self.norm_k_img = RMSNorm(config.dim, config.eps)

    def keys_and_values(self, tokens: torch.Tensor, layers: tuple[str, str, str]) -> torch.Tensor:
        """Of embedded tokens [tokens, dim], by ``TEXT_LAYERS`` or ``IMAGE_LAYERS``: [2, tokens, heads, head_dim]."""
        k, v, norm = map(self.get_submodule, layers)
        return split_heads(torch.stack([norm(k(tokens)), v(tokens)]), self.num_heads)

    def forward(self, x: Activation, text: torch.Tensor, image: torch.Tensor, ops: Operations) -> torch.Tensor:
        """x [tokens, dim], released on the way; keys and values as above -> [tokens, dim]

        The text's last key stands for all that are missing to ``TEXT_TOKENS``: a prompt is padded with equal ones.
        """
        q = split_heads(self.norm_q(self.q(x)), self.num_heads)
        x.release()
        missing = TEXT_TOKENS - text.shape[1]
        both = None if ops.few_keys is None else ops.few_keys.sum_of_two
        out = None if both is None else both(q, text, 1 + missing, image)
        if out is None:
            padded = torch.cat([text, text[:, -1:].expand(-1, missing, -1, -1)], dim=1)
            out = ops.attend(q[None], image[:1], image[1:]).add_(ops.attend(q[None], padded[:1], padded[1:]))[0]
        del q
        return self.o(out.flatten(-2))


class AudioCrossAttention(nn.Module):
    """Attention of each latent frame's tokens to the speech of that frame alone."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_linear = Linear(config.dim, config.dim)
        self.kv_linear = Linear(config.audio_dim, 2 * config.dim)
        self.proj = Linear(config.dim, config.dim)

    def folds(self, count: int, speech: Speech, ops: Operations) -> bool:
        """Whether queries of so many tokens are left out; then ``x`` must be in floats.

        Those of ``Bound`` speech cannot be: each is turned by a position of its own.
        """
        if isinstance(speech, Bound):
            return False
        frames, tokens, _ = (speech.audio[0] if isinstance(speech, Placed) else speech).shape
        alone, dim = self.q_linear.alone and self.proj.alone, len(self.q_linear.bias)
        return alone and ops.few_keys is not None and folding_pays(dim, self.num_heads * tokens, count // frames)

    def quantised_dtype(self, count: int, speech: Speech, ops: Operations) -> torch.dtype | None:
        """The 8 bits in which this takes so many tokens, or None where it needs floats."""
        return None if self.folds(count, speech, ops) else self.q_linear.quantised_dtype(count)

    def forward(
        self, x: Activation, speech: Speech, ops: Operations, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x [tokens, dim], released on the way -> [tokens, dim]

        Args:
            places: where each token belongs, for ``Bound`` speech: [tokens].
        """
        if isinstance(speech, Placed):
            return self._placed(x, speech, ops)
        audio = speech.audio if isinstance(speech, Bound) else speech
        k, v = self._keys_and_values(audio)
        if ops.few_keys is not None and self.folds(len(x.values), speech, ops):
            pixels = x.values.unflatten(0, (len(audio), -1))
            x.release()
            return self._folded(pixels, k, v, ops.few_keys).flatten(0, 1)
        q = split_heads(self.q_linear(x), self.num_heads)
        x.release()
        if isinstance(speech, Bound) and places is not None:
            q = ops.pointwise.rotate(q, turns(places, q.shape[-1]))
            speakers = len(speech.masks) - 1
            where = key_positions(speakers, audio.shape[1] // speakers, k.device)
            k = rotate(k.flatten(0, 1), turns(where.repeat(len(k)), k.shape[-1])).view_as(k)
        q = q.unflatten(0, (len(audio), -1))
        out = ops.attend(q, k, v).flatten(0, 1).flatten(-2)
        del q
        return self.proj(out)

    def _keys_and_values(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each [frames, audio tokens, heads, head_dim]."""
        k, v = self.kv_linear(audio).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        return k, v

    def _folded(self, pixels: torch.Tensor, k: torch.Tensor, v: torch.Tensor, few_keys: FewKeys) -> torch.Tensor:
        before, after = ((layer.matrix(pixels.dtype), layer.bias) for layer in (self.q_linear, self.proj))
        return few_keys.folded(pixels, k, v, before, after)

    def _placed(self, x: Activation, speech: Placed, ops: Operations) -> torch.Tensor:
        """What each voice alone would add, by the tokens' shares, which are 1 in all, so that biases count once."""
        frames, heads = speech.audio.shape[1], self.num_heads
        shares = speech.shares.to(speech.audio.dtype)[:, None, :, None]
        folded = ops.few_keys is not None and self.folds(len(x.values), speech, ops)
        seen = (x.values if folded else self.q_linear(x)).unflatten(0, (frames, -1))
        x.release()
        out = torch.zeros_like(seen)
        for audio, share in zip(speech.audio, shares, strict=True):
            k, v = self._keys_and_values(audio)
            if folded and ops.few_keys is not None:
                out.addcmul_(self._folded(seen, k, v, ops.few_keys), share)
            else:
                out.addcmul_(ops.attend(split_heads(seen, heads), k, v).flatten(-2), share)
        out = out.flatten(0, 1)
        return out if folded else self.proj(out)


def hidden(layer: Linear, x: Activation, quantised: torch.dtype | None, ops: Operations) -> Activation:
    """GELU of a layer of x [tokens, dim], as ``quantised`` if these are 8 bits: [tokens, ffn_dim]."""
    in_floats = quantised is None and layer.quantised_dtype(len(x.values)) is None
    if ops.gelu_product is None or not in_floats or not layer.alone:
        return ops.pointwise.gelu(layer(x), quantised)
    return Activation(ops.gelu_product(x.values, layer.matrix(x.values.dtype), layer.bias))


class Attended(NamedTuple):
    """What self-attention leaves: what cross-attention begins with, and where each token belongs, if that was asked."""

    values: Activation
    places: torch.Tensor | None


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim, self.eps = config.dim, config.eps
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(dim, self.eps)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.ModuleDict({"0": Linear(dim, config.ffn_dim), "2": Linear(config.ffn_dim, dim)})
        self.modulation = nn.Parameter(torch.empty(1, 6, dim))
        self.audio_cross_attn = AudioCrossAttention(config)
        self.norm_x = nn.LayerNorm(dim, self.eps)

    def attend(
        self, x: torch.Tensor, time: torch.Tensor, rope: torch.Tensor, ops: Operations, masks: torch.Tensor | None
    ) -> Attended:
        """Self-attention, the block's first third: changes x in place.

        Args:
            masks: of the speakers' regions, where speech is ``Bound``.
        """
        shift, scale, gate = (self.modulation + time)[:, :3].unbind(1)
        attn, count, norm3 = self.self_attn, len(x), self.norm3
        h = ops.pointwise.norm(x, 1 + scale, shift, self.eps, shared_quantised_dtype(count, attn.q, attn.k, attn.v))
        quantised = self.cross_attn.q.quantised_dtype(count)
        found, places = attn(h, rope, ops, masks)
        return Attended(ops.pointwise.add_norm(x, found, gate, norm3.weight, norm3.bias, self.eps, quantised), places)

    def forward(
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        rope: torch.Tensor,
        text: torch.Tensor,
        image: torch.Tensor,
        speech: Speech,
        ops: Operations,
        attended: Attended | None = None,
    ) -> None:
        """Change x [tokens, dim] in place.

        Never holds more than five tensors of x's size, x among them; five and a half where the
        layers quantise what they take.

        Args:
            time: modulation [1, 6, dim], float32.
            text, image: keys and values, [2, tokens, heads, head_dim].
            speech: of one voice embedded, [frames, audio tokens, audio_dim], or of several.
            attended: what ``attend`` has returned for this x, if that is done.
        """
        shift, scale, gate = (self.modulation + time)[:, 3:].unbind(1)
        cross, hear, (up, down) = self.cross_attn, self.audio_cross_attn, self.ffn.values()
        eps, norm_x, add_norm, count = self.eps, self.norm_x, ops.pointwise.add_norm, len(x)
        if attended is None:
            attended = self.attend(x, time, rope, ops, speech.masks if isinstance(speech, Bound) else None)
        h, places = attended
        quantised = hear.quantised_dtype(count, speech, ops)
        h = add_norm(x, cross(h, text, image, ops), None, norm_x.weight, norm_x.bias, eps, quantised)
        quantised = up.quantised_dtype(count)  # what is heard gets no name, which would hold it in memory
        h = add_norm(x, hear(h, speech, ops, places), ops.speech_gate, 1 + scale, shift, eps, quantised)
        for part in token_slices(count):  # each has more rows than those few that layers take in floats
            ops.pointwise.add(x[part], down(hidden(up, h[part], down.quantised_dtype(count), ops)), gate)
