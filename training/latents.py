"""The transformer's training set: clips of drawn people as latents, with all that a window is made from.

Three windows for each person: one that begins with the portrait; the one after it, which knows the
first one's last frames as a decoder gives them; and one of another timeline in another mood, which
begins with the portrait in half of the people, so that only the prompt tells the mood. All lies on the
device. Knows no transformer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import Wav2Vec2Model

from ..pipeline.models.image_encoder import ImageEncoder
from ..pipeline.models.text.encoder import TextEncoder
from ..pipeline.settings.definition import NEGATIVE_PROMPT
from .clips import FRAMES, MOTION_FRAMES, SIDE, Drawer, draw_portraits, make_scenes, places, to_levels
from .frozen import padded
from .prompts import MOODS, training_prompts
from .speech_encoder import encode as encode_speech
from .training import replayed
from .vae_network import Whole

CLIPS = 3  # of a person: the first window, the window after it, and one of another timeline in another mood
MOTION_LATENTS = 1 + (MOTION_FRAMES - 1) // 4
ENOUGH = 12  # latents that a decoder needs for the last frames; before them it is of little use to decode
_REFERENCE_LATENTS = 9  # the rest of a still's latents equal the last of these
_OTHER_TIMELINE = 5_000_000


@dataclass(frozen=True)
class Set:
    """Everything by row; a clip's row number times ``CLIPS`` tells its person.

    Attributes:
        latents: float16 [clips, 16, T, h, w].
        motion: what a window knows of the frames before it, [clips, 16, 3, h, w].
        first: whether the clip begins with the portrait, [clips]; else with the frames of the window before.
        where: mouth and eyes in the picture at each latent, [clips, T, 2, 2] in [-1, 1].
        reference: of the portraits, float16 [people, 16, 9, h, w].
        image: CLIP features [people, 257, dim].
        speech: features of the clips' frames and two on either side [clips, frames + 4, layers, channels].
        mood: [clips].
        frames: the clips as drawn, bytes [clips, frames, 3, H, W], where they were asked for.
    """

    latents: torch.Tensor
    motion: torch.Tensor
    first: torch.Tensor
    where: torch.Tensor
    reference: torch.Tensor
    image: torch.Tensor
    speech: torch.Tensor
    mood: torch.Tensor
    frames: torch.Tensor | None = None

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
    drawer: Drawer | None = None,
    graph: bool = False,
    side: int = SIDE,
    frames: int = FRAMES,
    keep_frames: bool = False,
) -> Set:
    """Draw and encode at most ``people`` people from seed ``first`` on, as long as ``in_time``.

    Args:
        keep_frames: keep what was drawn too, 27 MB a person at the usual size.
    """
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in Set.__dataclass_fields__}
    started, stride, drawer = time.monotonic(), frames - MOTION_FRAMES, drawer or Drawer(False)
    at = torch.cat([torch.zeros(1), torch.arange(frames // 4) * 4 + 2.5]).round().long().to(speech.device)
    encode, encode_motion = (replayed(whole.encode, graph) for _ in range(2))
    encode_still = replayed(lambda portrait: still_latents(whole, portrait), graph)
    last_frames = replayed(lambda latents: whole.frames(latents)[:, :, -MOTION_FRAMES:], graph)
    said = started
    for begin in range(0, people, 16):
        if begin and not in_time():
            break
        who = [first + begin + k for k in range(min(16, people - begin))]
        scenes = make_scenes(who, speech)
        other = make_scenes([_OTHER_TIMELINE + seed for seed in who], speech, who=who)
        heard = {id(one): encode_speech(hearing, one.heard).half() for one in (scenes, other)}
        spots = {id(one): places(one) for one in (scenes, other)}
        portraits = draw_portraits(scenes.person, side)
        for k, seed in enumerate(who):
            generator = torch.Generator().manual_seed(seed)
            later = int(torch.randint(1, 300 - frames - 4, (1,), generator=generator)) * (seed % 2)
            two = drawer(scenes, k, 0, frames + stride, side).transpose(0, 1)[None]
            third = drawer(other, k, later, frames, side).transpose(0, 1)[None]
            drawn = two[:, :, :frames], two[:, :, stride:], third
            clips = [encode(video) for video in drawn]
            if keep_frames:
                parts["frames"] += [to_levels(one.transpose(1, 2)) for one in drawn]
            motion = [one[:, :, :MOTION_LATENTS] for one in clips]
            motion[1] = encode_motion(last_frames(clips[0][:, :, -ENOUGH:]))
            parts["latents"] += [one.half() for one in clips]
            parts["motion"] += [one.half() for one in motion]
            parts["first"].append(torch.tensor([True, False, later == 0]))
            for scene, start in ((scenes, 0), (scenes, stride), (other, later)):
                parts["speech"].append(speech_around(heard[id(scene)][k], start, frames)[None])
                parts["where"].append(spots[id(scene)][k, at + start][None])
                parts["mood"].append(torch.tensor([scene.moods[k]]))
            parts["reference"].append(encode_still(portraits[k]).half())
            parts["image"].append(sight.encode(portraits[k])[None].half())
        if time.monotonic() - said > 15:
            said = time.monotonic()
            rate = len(parts["image"]) / (said - started)
            print(f"latents: {len(parts['image'])} people, {rate:.1f} a second", flush=True)
    result = Set(**{name: torch.cat(values).to(speech.device) for name, values in parts.items() if values})
    seconds = time.monotonic() - started
    print(f"latents: {len(result.image)} people, {len(result)} clips in {seconds:.0f} s", flush=True)
    print(f"latents: deviation {float(result.latents.float().std()):.3f}", flush=True)
    return result


def speech_around(features: torch.Tensor, start: int, frames: int) -> torch.Tensor:
    """Features [n, layers, channels] of a clip's frames and of two on either side: [frames + 4, layers, channels]."""
    at = torch.arange(start - 2, start + frames + 2, device=features.device)
    return features[at.clamp(0, len(features) - 1)]


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
