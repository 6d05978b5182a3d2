"""What ``--resize`` says: how the reference is brought to the video's size, step by step, as a graph does it.

A step is METHOD,FIT[,POSITION][,WIDTHxHEIGHT]; one without a size leads to the video's. Of pads, a #RRGGBB may say the
colour and a /N what the picture's sides are cut to a multiple of, both before the size. Without the flag the picture is
scaled bilinearly, in 8 bits, until it covers the size, and its middle is cut out, as upstream does. What resizes is in
``media/resize.py``. Imports no PyTorch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")  # ComfyUI's; lanczos in 8 bits
PADS = ("pad", "pad_edge", "pad_edge_pixel")  # bars of a colour, of the edge's mean, of the edge itself
FITS = ("stretch", "crop", "middle", *PADS)
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
            "pad" and the like: as large as fits, with bars, as KJNodes' ImageResizeKJv2 does.
        position: which part a crop keeps, or where between bars the picture is.
        size: (height, width) in pixels, bars included; None for the video's.
        colour: of the bars of "pad", 0 to 255.
        multiple: what the sides of a picture between bars are cut down to a multiple of.
    """

    method: str
    fit: str
    position: str = "center"
    size: tuple[int, int] | None = None
    colour: tuple[int, int, int] = (0, 0, 0)
    multiple: int = 1

    def __str__(self) -> str:
        words = [self.method, self.fit]
        words += [self.position] if self.position != "center" else []
        words += ["#" + bytes(self.colour).hex()] if any(self.colour) else []
        words += [f"/{self.multiple}"] if self.multiple > 1 else []
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
    colour, multiple = (0, 0, 0), 1
    if len(words) > 2 and words[1] in PADS and (number := re.fullmatch(r"/(\d{1,4})", words[-1])):
        multiple, words = int(number[1]), words[:-1]
    if (
        len(words) > 2
        and words[1] in PADS
        and (code := re.fullmatch(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", words[-1]))
    ):
        colour, words = (int(code[1], 16), int(code[2], 16), int(code[3], 16)), words[:-1]
    position = words.pop() if len(words) > 2 else "center"
    if size is not None and not all(1 <= side <= _LARGEST for side in size):
        raise InputError(f"--resize: {text!r} found; sides of 1 to {_LARGEST} pixels expected.")
    if len(words) != 2 or words[0] not in METHODS or words[1] not in FITS or position not in POSITIONS:
        raise InputError(f"--resize: {text!r} found, {_EXPECTED}.")
    return ResizeStep(words[0], words[1], position, size, colour, max(multiple, 1))
