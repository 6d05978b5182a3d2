"""The transformer's training set: clips of drawn people as latents, with all that a window is made from.

Three windows of a timeline for each person: one that begins with the portrait, two anywhere, whose first
nine frames stand for the frames before. All lies on the device. Knows no transformer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import Wav2Vec2Model

from ...pipeline.models.image_encoder import ImageEncoder
from ...pipeline.models.text_encoder import TextEncoder
from ...pipeline.settings import NEGATIVE_PROMPT
from .clips import FRAMES, SIDE, draw_clip, draw_portraits, make_scenes, mouth_places
from .frozen import padded
from .prompts import MOODS, training_prompts
from .speech_encoder import encode as encode_speech
from .vae_network import Whole

CLIPS = 3  # of a person
MOTION_LATENTS = 3
_REFERENCE_LATENTS = 9  # the rest of a still's latents equal the last of these
_LAST_START = 215


@dataclass(frozen=True)
class Set:
    """Everything by row; a clip's row number times ``CLIPS`` tells its person.

    Attributes:
        latents: float16 [clips, 16, T, h, w].
        again: the motion latents decoded and encoded once more, [clips, 16, 3, h, w].
        start: first frame of each clip in its timeline.
        mouth: its place in the picture at each latent, [clips, T, 2] in [-1, 1].
        reference: of the portraits, float16 [people, 16, 9, h, w].
        image: CLIP features [people, 257, dim].
        speech: features of the timelines [people, frames, layers, channels].
        mood: [people].
    """

    latents: torch.Tensor
    again: torch.Tensor
    start: torch.Tensor
    mouth: torch.Tensor
    reference: torch.Tensor
    image: torch.Tensor
    speech: torch.Tensor
    mood: torch.Tensor

    def __len__(self) -> int:
        return len(self.latents)


@torch.no_grad()
def build(
    first: int,
    people: int,
    speech: torch.Tensor,
    whole: Whole,
    hearing: Wav2Vec2Model,
    sight: ImageEncoder,
    in_time: Callable[[], bool] = lambda: True,
    side: int = SIDE,
    frames: int = FRAMES,
) -> Set:
    """Draw and encode at most ``people`` people from seed ``first`` on, as long as ``in_time``."""
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in Set.__dataclass_fields__}
    started, last_start = time.monotonic(), 300 - frames - 4
    for begin in range(0, people, 16):
        if not in_time():
            break
        scenes = make_scenes([first + begin + k for k in range(min(16, people - begin))], speech)
        places = mouth_places(scenes)
        parts["speech"].append(encode_speech(hearing, scenes.heard).half())
        parts["mood"].append(torch.tensor(scenes.moods, device=speech.device))
        portraits = draw_portraits(scenes.person, side)
        for k in range(len(scenes.moods)):
            generator = torch.Generator().manual_seed(first + begin + k)
            starts = [0, *torch.randint(1, last_start, (CLIPS - 1,), generator=generator).tolist()]
            for start in starts:
                video = draw_clip(scenes, k, start, frames, side).transpose(0, 1)[None]
                latents = whole.encode(video)
                parts["latents"].append(latents.half())
                parts["again"].append(_again(whole, latents[:, :, :MOTION_LATENTS]).half())
                at = torch.cat([torch.zeros(1), torch.arange(frames // 4) * 4 + 2.5]).round().long() + start
                parts["mouth"].append(places[k, at.to(places.device)][None])
            parts["start"].append(torch.tensor(starts, device=speech.device))
            parts["reference"].append(still_latents(whole, portraits[k]).half())
            parts["image"].append(sight.encode(portraits[k])[None].half())
    result = Set(**{name: torch.cat(values) for name, values in parts.items()})
    print(f"latents: {len(result.mood)} people, {len(result)} clips in {time.monotonic() - started:.0f} s", flush=True)
    print(f"latents: deviation {float(result.latents.float().std()):.3f}", flush=True)
    return result


def _again(whole: Whole, latents: torch.Tensor) -> torch.Tensor:
    """What the motion frames' latents are after they were decoded and encoded, as between windows."""
    from .vae_network import wan_statistics

    mean, std = wan_statistics(latents.device)
    return whole.encode(whole.decode(latents * std + mean).clamp(-1, 1))


def still_latents(whole: Whole, portrait: torch.Tensor) -> torch.Tensor:
    """The first nine latents [1, 16, 9, h, w] of a picture [3, H, W] with grey after it."""
    video = portrait.new_zeros(1, 3, 4 * _REFERENCE_LATENTS - 3, *portrait.shape[1:])
    video[0, :, 0] = portrait
    return whole.encode(video)


def reference_channels(still: torch.Tensor, length: int) -> torch.Tensor:
    """Mask and reference latents [n, 20, length, h, w] as a window has them, of the first latents of stills."""
    missing = length - still.shape[2]
    latents = (
        still[:, :, :length]
        if missing <= 0
        else torch.cat([still, still[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
    )
    mask = torch.zeros_like(latents[:, :4])
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def speech_windows(speech: torch.Tensor, start: torch.Tensor, frames: int) -> torch.Tensor:
    """What frames of clips hear, [clips, frames, 5, layers, channels], of ``speech`` [clips, n, layers, channels]."""
    at = start[:, None, None] + torch.arange(frames, device=speech.device)[:, None]
    at = (at + torch.arange(-2, 3, device=speech.device)).clamp(0, speech.shape[1] - 1)
    return speech[torch.arange(len(speech), device=speech.device)[:, None, None], at]


@dataclass(frozen=True)
class Texts:
    """Embeddings of prompts: ``asked`` [moods, variants, 512, dim], ``dropped`` [2, 512, dim] (negative, empty)."""

    asked: torch.Tensor
    dropped: torch.Tensor


@torch.no_grad()
def encode_texts(reading: TextEncoder, variants: int = 240) -> Texts:
    asked = [
        torch.stack([padded(one) for one in reading.encode(training_prompts(mood, variants))])
        for mood in range(len(MOODS))
    ]
    dropped = torch.stack([padded(one) for one in reading.encode([NEGATIVE_PROMPT, ""])])
    return Texts(torch.stack(asked).half(), dropped.half())
