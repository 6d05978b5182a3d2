"""Drawn people: everything about a face that does not move, from a number.

The same seed gives the same person on any machine. Lengths are in units of half the picture's side,
``scale`` is half the height of the head; what lies inside the head is in units of that. Does not know
how a face is drawn or moves.
"""

from __future__ import annotations

import colorsys

import torch

Person = dict[str, torch.Tensor]  # each [people] or, colours, [people, 3]

_DRAWS = 96
_SKIN = (
    (255, 224, 200),
    (246, 208, 178),
    (234, 190, 152),
    (208, 156, 112),
    (166, 114, 76),
    (120, 78, 52),
    (84, 54, 38),
)
_HAIR = (
    *((28, 24, 26), (46, 34, 28), (78, 52, 34), (120, 82, 46), (196, 154, 92), (224, 196, 140)),
    *((150, 62, 34), (150, 150, 156), (214, 214, 218), (58, 66, 110), (120, 44, 92)),
)
_IRIS = ((74, 48, 30), (60, 40, 28), (104, 76, 44), (70, 110, 160), (92, 140, 176), (78, 124, 84), (110, 118, 126))
SHORT, PARTED, LONG, BOB, BALD, CURLY, BUN = range(7)
_HAIR_STYLES = (SHORT, SHORT, PARTED, PARTED, LONG, LONG, BOB, BOB, BALD, CURLY, BUN)
_BACKGROUNDS = 5


class _Draws:
    """Uniform numbers of one person, taken one after the other."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(1_000_003 * (seed + 1))
        self._values = iter(torch.rand(_DRAWS, generator=generator, dtype=torch.float64).tolist())

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._values)

    def choice(self, options: tuple) -> object:
        return options[min(int(next(self._values) * len(options)), len(options) - 1)]

    def chance(self, probability: float) -> float:
        return float(next(self._values) < probability)

    def colour(self, saturation: tuple[float, float], value: tuple[float, float]) -> tuple[float, ...]:
        return colorsys.hsv_to_rgb(self.between(0, 1), self.between(*saturation), self.between(*value))

    def jittered(self, colour: tuple[float, ...], amount: float) -> tuple[float, ...]:
        light = 1 + self.between(-amount, amount)
        return tuple(min(max(c * light + self.between(-amount, amount) / 4, 0.0), 1.0) for c in colour)


def people(seeds: list[int], device: torch.device | str = "cpu") -> Person:
    """The people of these seeds, float32 on the device."""
    drawn = [_person(_Draws(seed)) for seed in seeds]
    return {name: torch.tensor([one[name] for one in drawn], dtype=torch.float32, device=device) for name in drawn[0]}


def _unit(colour: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(c / 255 for c in colour)


def _person(d: _Draws) -> dict[str, object]:
    tone = d.between(0, len(_SKIN) - 1.001)
    low, high, part = _SKIN[int(tone)], _SKIN[int(tone) + 1], tone % 1
    skin = d.jittered(tuple((a + (b - a) * part) / 255 for a, b in zip(low, high, strict=True)), 0.06)
    hair = d.jittered(_unit(d.choice(_HAIR)), 0.12)
    style = d.choice(_HAIR_STYLES)
    bearded = style in (SHORT, PARTED, BALD, CURLY)
    red = d.between(0.25, 0.75)
    lip_tint = (0.72, 0.26, 0.28)
    lips = tuple(s * 0.86 * (1 - red) + t * (0.55 + 0.5 * s) * red for s, t in zip(skin, lip_tint, strict=True))
    return {
        "skin": skin,
        "hair": hair,
        "brow": tuple(c * 0.72 for c in hair) if style != BALD else (0.24, 0.19, 0.17),
        "lips": lips,
        "iris": d.jittered(_unit(d.choice(_IRIS)), 0.1),
        "clothes": d.colour((0.25, 0.9), (0.25, 0.9)),
        "collar": d.colour((0.0, 0.7), (0.4, 1.0)),
        "paper": d.colour((0.1, 0.6), (0.35, 0.95)),
        "paper_end": d.colour((0.1, 0.6), (0.3, 0.9)),
        "frame": d.jittered(d.choice(((0.08, 0.08, 0.1), (0.35, 0.2, 0.12), (0.55, 0.1, 0.14), (0.7, 0.6, 0.3))), 0.1),
        "beard_colour": d.jittered(tuple(c * 0.9 for c in hair), 0.08),
        "style": float(style),
        "background": float(d.choice(tuple(range(_BACKGROUNDS)))),
        "background_x": d.between(-0.7, 0.7),
        "background_y": d.between(-0.6, 0.2),
        "background_turn": d.between(0, 6.28),
        "x": d.between(-0.12, 0.12),
        "y": d.between(-0.08, 0.04),
        "scale": d.between(0.59, 0.68),
        "head_width": d.between(0.74, 0.87),
        "chin": d.between(0.08, 0.3),
        "ear": d.between(0.13, 0.19),
        "earring": d.chance(0.18),
        "eye_x": d.between(0.3, 0.36),
        "eye_y": d.between(-0.16, -0.06),
        "eye_width": d.between(0.145, 0.185),
        "eye_height": d.between(0.1, 0.135),
        "lashes": d.between(0.016, 0.034),
        "brow_y": d.between(0.2, 0.27),
        "brow_thick": d.between(0.022, 0.045),
        "brow_length": d.between(0.15, 0.19),
        "brow_arch": d.between(0.2, 1.2),
        "nose": d.between(0.055, 0.095),
        "nose_y": d.between(0.2, 0.27),
        "blush": d.between(0, 0.35),
        "mouth_y": d.between(0.5, 0.56),
        "mouth_width": d.between(0.3, 0.36),
        "lip": d.between(0.035, 0.065),
        "hairline": d.between(-0.66, -0.46),
        "fringe": d.between(-0.3, 0.5),
        "parting": d.between(-0.5, 0.5),
        "glasses": d.chance(0.3),
        "round_glasses": d.chance(0.5),
        "beard": d.chance(0.22) * bearded,
        "moustache": d.chance(0.22) * bearded,
        "stripes": d.chance(0.3),
        "neckline": float(d.choice((0, 1, 2))),
        "light": d.between(-1, 1),
    }
