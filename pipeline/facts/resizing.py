"""What ``--resize`` says: how the reference is brought to the video's size, step by step, as a graph does it.

A step is METHOD,FIT[,POSITION][,WIDTHxHEIGHT]; one without a size leads to the video's. Without the flag the picture is
scaled bilinearly, in 8 bits, until it covers the size, and its middle is cut out, as upstream does. What resizes is in
``media/resize.py``. Imports no PyTorch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")  # ComfyUI's; lanczos in 8 bits
FITS = ("stretch", "crop", "middle")
POSITIONS = ("center", "top", "bottom", "left", "right")
MOST_STEPS = 8
_LARGEST = 16_384  # a side, in pixels
_EXPECTED = (
    f"METHOD,FIT[,POSITION][,WIDTHxHEIGHT] expected, such as lanczos,crop or lanczos,crop,top,480x832; methods: "
    f"{', '.join(METHODS)}; fits: {', '.join(FITS)}; positions: {', '.join(POSITIONS)}"
)


@dataclass(frozen=True)
class ResizeStep:
    """One resizing.

    Attributes:
        fit: "stretch"; "crop", to the new shape before, as KJNodes' ImageResizeKJv2 does; "middle", the same as core's
            ImageScale with crop "center" does, which rounds otherwise.
        position: which part a crop keeps.
        size: (height, width) in pixels; None for the video's.
    """

    method: str
    fit: str
    position: str = "center"
    size: tuple[int, int] | None = None

    def __str__(self) -> str:
        words = [self.method, self.fit]
        words += [self.position] if self.position != "center" else []
        words += [] if self.size is None else [f"{self.size[1]}x{self.size[0]}"]
        return ",".join(words)


def resize_steps(texts: tuple[str, ...]) -> tuple[ResizeStep, ...]:
    """The steps that a setting's texts mean.

    Raises:
        InputError: one is no step, or there are too many.
    """
    if len(texts) > MOST_STEPS:
        raise InputError(f"--resize: {len(texts)} steps found, at most {MOST_STEPS} expected.")
    return tuple(_step(text) for text in texts)


def _step(text: str) -> ResizeStep:
    words = text.lower().split(",")
    size = None
    if len(words) > 2 and (sides := re.fullmatch(r"(\d{1,5})x(\d{1,5})", words[-1])):
        width, height = int(sides[1]), int(sides[2])
        size = (height, width)
        words = words[:-1]
    position = words.pop() if len(words) > 2 else "center"
    if size is not None and not all(1 <= side <= _LARGEST for side in size):
        raise InputError(f"--resize: {text!r} found; sides of 1 to {_LARGEST} pixels expected.")
    if len(words) != 2 or words[0] not in METHODS or words[1] not in FITS or position not in POSITIONS:
        raise InputError(f"--resize: {text!r} found, {_EXPECTED}.")
    return ResizeStep(words[0], words[1], position, size)
