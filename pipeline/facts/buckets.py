"""The size of the video: which height and width a ``--size`` means for a given portrait.

Knows upstream's two tables of sizes and the model's grid of 16 pixels; knows no image and no memory.
"""

from __future__ import annotations

import re

from ..errors import InputError

GRID = 16  # the VAE halves a side three times, the transformer's patches once more
SMALLEST = 64
LARGEST = 4096

# The height/width that stands for a bucket (rounded) -> its height and width, in upstream's order,
# which settles ties. From wan/utils/multitalk_utils.py: ASPECT_RATIO_627 and ASPECT_RATIO_960.
BUCKETS: dict[str, dict[float, tuple[int, int]]] = {
    "infinitetalk-480": {
        0.26: (320, 1216),
        0.38: (384, 1024),
        0.50: (448, 896),
        0.67: (512, 768),
        0.82: (576, 704),
        1.00: (640, 640),
        1.22: (704, 576),
        1.50: (768, 512),
        1.86: (832, 448),
        2.00: (896, 448),
        2.50: (960, 384),
        2.83: (1088, 384),
        3.60: (1152, 320),
        3.80: (1216, 320),
        4.00: (1280, 320),
    },
    "infinitetalk-720": {
        0.22: (448, 2048),
        0.29: (512, 1792),
        0.36: (576, 1600),
        0.45: (640, 1408),
        0.55: (704, 1280),
        0.63: (768, 1216),
        0.76: (832, 1088),
        0.88: (896, 1024),
        1.00: (960, 960),
        1.14: (1024, 896),
        1.31: (1088, 832),
        1.50: (1152, 768),
        1.58: (1216, 768),
        1.82: (1280, 704),
        1.91: (1344, 704),
        2.20: (1408, 640),
        2.30: (1472, 640),
        2.67: (1536, 576),
        2.89: (1664, 576),
        3.62: (1856, 512),
        3.75: (1920, 512),
    },
}


def target_size(size: str, height: int, width: int) -> tuple[int, int]:
    """The video's (height, width) in pixels, both multiples of 16.

    Args:
        size: ``infinitetalk-480`` or ``infinitetalk-720`` (the bucket nearest to the portrait's
            height/width, as upstream chooses it), or ``WIDTHxHEIGHT``, each side 64 to 4096 and
            rounded down to a multiple of 16.
        height, width: the portrait's, in pixels.

    Raises:
        InputError: ``size`` is none of these.
    """
    if size in BUCKETS:
        buckets = BUCKETS[size]
        return buckets[min(buckets, key=lambda ratio: abs(ratio - height / width))]
    match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", size.strip())
    if match is None:
        raise InputError(f"--size {size!r} is not known: give {', '.join(BUCKETS)}, or WIDTHxHEIGHT such as 832x480.")
    asked_width, asked_height = int(match[1]), int(match[2])
    if not all(SMALLEST <= side <= LARGEST for side in (asked_width, asked_height)):
        raise InputError(f"--size {size}: each side must be {SMALLEST} to {LARGEST} pixels.")
    return asked_height // GRID * GRID, asked_width // GRID * GRID
