"""Training clips: which person speaks what in which mood, drawn on the device.

One sample is a person, a timeline of 12 s, and windows of it. Deterministic by seed. Does not know what
learns from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..pipeline.evaluation.opening import mouth_curves
from .drawing import Pose, draw, head_point
from .motion import portrait_pose, timeline
from .people import Person, people
from .prompts import ASIDE, CALM, SAD, SMILING, SURPRISED

SIDE = 192
FRAMES = 81
MOTION_FRAMES = 9  # of the window before, that a window knows
_MOOD_ODDS = (CALM, CALM, CALM, SMILING, SMILING, SAD, SAD, SURPRISED, SURPRISED, ASIDE, ASIDE)


@dataclass(frozen=True)
class Scenes:
    """People speaking.

    Attributes:
        heard: what is heard, float32 [people, samples]: the speech, perhaps with noise or music.
        pose: their timelines, fields [people, frames].
        moods: one a person.
    """

    person: Person
    pose: Pose
    heard: torch.Tensor
    moods: list[int]


def make_scenes(
    seeds: list[int],
    speech: torch.Tensor,
    moods: list[int] | None = None,
    clean: bool = False,
    who: list[int] | None = None,
) -> Scenes:
    """People of these seeds, each with some clip of ``speech`` [clips, samples] on the device.

    Args:
        who: seeds of the people, where they are not those of what happens to them.
        moods: given rather than by chance.
        clean: no noise, no pauses put in.
    """
    chance = [np.random.default_rng([77, seed]) for seed in seeds]
    chosen = torch.stack([speech[int(one.integers(len(speech)))] for one in chance])
    spoken = chosen if clean else torch.stack([_cut(one, x) for one, x in zip(chance, chosen, strict=True)])
    opening, width = mouth_curves(spoken)
    heard = spoken if clean else torch.stack([_spoil(one, x) for one, x in zip(chance, spoken, strict=True)])
    if moods is None:
        moods = [_MOOD_ODDS[int(one.integers(len(_MOOD_ODDS)))] for one in chance]
    return Scenes(people(who or seeds, speech.device), timeline(seeds, opening, width, moods), heard, moods)


def part_of(pose: Pose, start: int, stop: int) -> Pose:
    return {name: value[:, start:stop] for name, value in pose.items()}


def one_person(person: Person, index: int) -> Person:
    return {name: value[index : index + 1] for name, value in person.items()}


def draw_clip(scenes: Scenes, index: int, start: int, frames: int = FRAMES, side: int = SIDE) -> torch.Tensor:
    """Frames [frames, 3, side, side] in [-1, 1] of one person."""
    pose = {name: value[index : index + 1, start : start + frames] for name, value in scenes.pose.items()}
    return draw(one_person(scenes.person, index), pose, side)[0]


def to_levels(frames: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1] as bytes."""
    return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_levels(levels: torch.Tensor) -> torch.Tensor:
    """The opposite, float32."""
    return levels.float() / 127.5 - 1


class Drawer:
    """``draw_clip``, compiled for a fixed number of frames, which is worth its half a minute for some thousand clips.

    Args:
        compile_drawing: through torch.compile, else plainly.
    """

    CHUNK = 27  # frames; a clip of 81 is three times as many

    def __init__(self, compile_drawing: bool) -> None:
        self._draw = torch.compile(draw, dynamic=False) if compile_drawing else None

    def __call__(self, scenes: Scenes, index: int, start: int, frames: int = FRAMES, side: int = SIDE) -> torch.Tensor:
        if self._draw is not None:
            try:
                return self._compiled(scenes, index, start, frames, side)
            except Exception as error:  # of a compiler: there are many kinds
                print(f"drawing goes on without torch.compile: {error!r}"[:1000], flush=True)
                self._draw = None
        return draw_clip(scenes, index, start, frames, side)

    def _compiled(self, scenes: Scenes, index: int, start: int, frames: int, side: int) -> torch.Tensor:
        person = one_person(scenes.person, index)
        pieces = []
        for begin in range(start, start + frames, self.CHUNK):
            # the last chunk begins earlier, so that every chunk has the same shape
            first = min(begin, scenes.pose["x"].shape[1] - self.CHUNK)
            pose = {name: value[index : index + 1, first : first + self.CHUNK] for name, value in scenes.pose.items()}
            pieces.append(self._draw(person, pose, side)[0, begin - first :])
        return torch.cat(pieces)[:frames]


def draw_portraits(person: Person, side: int = SIDE) -> torch.Tensor:
    """The pictures that videos begin with, [people, 3, side, side]."""
    count = len(person["x"])
    return draw(person, portrait_pose(count, person["x"].device), side)[:, 0]


# Half the width and height around mouth and eyes that count more in losses, of half the picture's side.
REACH = ((0.3, 0.22), (0.36, 0.12))


def places(scenes: Scenes) -> torch.Tensor:
    """The middle of mouth and eyes in the picture, x and y in [-1, 1]: [people, frames, 2 places, 2]."""
    person, pose = scenes.person, scenes.pose
    down = person["mouth_y"][:, None] + 0.12 * pose["opening"]
    mouth = torch.stack(head_point(person, pose, 0.1 * pose["yaw"], down), dim=-1)
    level = person["eye_y"][:, None].expand_as(down)
    return torch.stack([mouth, torch.stack(head_point(person, pose, 0.1 * pose["yaw"], level), dim=-1)], dim=2)


def near(where: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """1 around mouth and eyes, else 0: [n, frames, rows, columns] of ``places`` [n, frames, 2, 2].

    Args:
        rows, columns: the middles of rows and columns in [-1, 1].
        scale: how much larger things are than in the whole picture.
    """
    result = torch.zeros(*where.shape[:2], len(rows), len(columns), device=where.device)
    for place, (wide, high) in enumerate(REACH):
        across = (columns - where[:, :, place, 0, None]).abs() < wide * scale
        down = (rows - where[:, :, place, 1, None]).abs() < high * scale
        result = torch.maximum(result, (down[..., :, None] & across[..., None, :]).float())
    return result


def _cut(chance: np.random.Generator, speech: torch.Tensor) -> torch.Tensor:
    """Sometimes another beginning, seldom a long silence."""
    speech = torch.roll(speech, int(chance.integers(len(speech))))
    if chance.random() < 0.12:
        speech = speech.clone()
        start, length = chance.integers(len(speech) // 2), chance.integers(16_000, 80_000)
        speech[start : start + length] = 0
    return speech


def _spoil(chance: np.random.Generator, speech: torch.Tensor) -> torch.Tensor:
    """Another tone colour, and in part of the clips noise or music; in a few nothing else is heard."""
    seed = int(chance.integers(1 << 31))
    generator = torch.Generator().manual_seed(seed)
    if chance.random() < 0.5:
        speech = _coloured(speech, chance.uniform(-0.5, 0.5))
    kind = chance.random()
    if kind < 0.55:
        return speech
    loudness = speech.square().mean().sqrt().clamp(min=0.01) * 10 ** (-chance.uniform(8, 40) / 20)
    if kind < 0.8:
        noise = _coloured(torch.randn(len(speech), generator=generator).to(speech.device), chance.uniform(-0.9, 0.5))
    else:
        noise = _music(chance, len(speech), speech.device)
    return speech + noise * (loudness / noise.square().mean().sqrt())


def _coloured(sound: torch.Tensor, tilt: float) -> torch.Tensor:
    """Darker (negative) or brighter by a first-order filter."""
    before = torch.nn.functional.pad(sound, (1, 0))[:-1]
    return sound - tilt * before


def _music(chance: np.random.Generator, samples: int, device: torch.device) -> torch.Tensor:
    """Chords that change twice a second."""
    length = 8_000
    roots = 110 * 2 ** (chance.integers(0, 24, -(-samples // length)) / 12)
    root = torch.from_numpy(roots).float().to(device).repeat_interleave(length)[:samples]
    number = torch.arange(samples, device=device)
    fade = (-3 * (number % length) / 16_000).exp()
    times = number / 16_000
    return fade * sum((2 * math.pi * 2 ** (step / 12) * root * times).sin() for step in (0, 4, 7))
