"""Where speakers are, from regions of the reference to the tokens of a frame.

Masks go the reference's way: scaled until they cover the video's size, cut to its middle, and looked at where the
tokens begin, as upstream does (wan/multitalk.py). Knows no voices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError, in_short
from ..facts.resizing import ResizeStep
from ..job.speakers import Box, Half, MaskFile, Region
from .resize import resized

TOKEN = 16  # pixels
_MARGIN = 0.05  # of a half, that is nobody's
_WHITE = 127


def mask_of(region: Region, size: tuple[int, int], what: str) -> Tensor:
    """A region of a picture of (height, width): bool [height, width].

    Args:
        what: to be named in messages.

    Raises:
        InputError: a mask that cannot be read, of another size, or empty; a box outside the picture.
    """
    height, width = size
    mask = torch.zeros(height, width, dtype=torch.bool)
    if isinstance(region, Half):
        half = width // 2
        left, right = int(half * _MARGIN), int(half * (1 - _MARGIN))
        shift = half if region.side == "right" else 0
        mask[int(height * _MARGIN) : int(height * (1 - _MARGIN)), left + shift : right + shift] = True
    elif isinstance(region, Box):
        if region.left >= width or region.top >= height:
            raise InputError(f"{what}: {region} lies outside the picture, which is {width}x{height}.")
        mask[int(region.top) : int(region.bottom), int(region.left) : int(region.right)] = True
    else:
        pixels = _pixels(region.path, what) if isinstance(region, MaskFile) else torch.from_numpy(region.pixels > 0.5)
        if pixels.shape != mask.shape:
            raise InputError(
                f"{what}: the mask is {pixels.shape[1]}x{pixels.shape[0]}, but the picture {width}x{height}; draw it "
                "on the picture as it is, before anything is cut off."
            )
        mask = pixels
    if not mask.any():
        raise InputError(f"{what}: {region} is empty; nothing in it is white.")
    return mask


def _pixels(path: Path, what: str) -> Tensor:
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("L")) > _WHITE)
    except FileNotFoundError:
        raise InputError(f"{what}: the mask {path} does not exist; check the path.") from None
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InputError(f"{what}: the mask {path} cannot be read ({in_short(error)}); give a PNG.") from error


def fitted(mask: Tensor, size: tuple[int, int], steps: tuple[ResizeStep, ...] | None = None) -> Tensor:
    """A mask of the reference at the video's (height, width), cut as the reference is: bool [height, width]."""
    if steps is not None:
        picture = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
        return resized(picture, steps, size)[0] > 0
    height, width = size
    scale = max(height / mask.shape[0], width / mask.shape[1])
    covering = math.ceil(scale * mask.shape[0]), math.ceil(scale * mask.shape[1])
    larger = F.interpolate(mask[None, None].float(), size=covering, mode="nearest")[0, 0]
    top, left = round((covering[0] - height) / 2), round((covering[1] - width) / 2)
    return larger[top : top + height, left : left + width] > 0


def tokens_of(mask: Tensor) -> Tensor:
    """Which tokens of a frame are in a mask of the video's size: bool [rows, columns]."""
    return mask[::TOKEN, ::TOKEN]


def token_masks(
    regions: Sequence[Region],
    source: tuple[int, int],
    size: tuple[int, int],
    steps: tuple[ResizeStep, ...] | None = None,
    names: Sequence[str] = (),
) -> Tensor:
    """The regions as tokens of a frame, and what is in none: bool [regions + 1, rows, columns].

    Args:
        source: height and width of the reference.
        size: of the video.
        steps: how the reference is resized, see ``--resize``.
        names: of the regions, for messages.

    Raises:
        InputError: regions overlap, or one is cut off, or too small for a token; or no token is in none.
    """
    names = names or [f"speaker {number + 1}" for number in range(len(regions))]
    masks = [fitted(mask_of(region, source, name), size, steps) for region, name in zip(regions, names, strict=True)]
    found = []
    for mask, region, name in zip(masks, regions, names, strict=True):
        tokens = tokens_of(mask)
        if not tokens.any():
            where = "lies in what is cut off" if not mask.any() else f"is smaller than {TOKEN}x{TOKEN} pixels"
            raise InputError(
                f"{name}: {region} {where} of the picture at {size[1]}x{size[0]}; give a larger region around the "
                "face, or another --size."
            )
        found.append(tokens)
    for second in range(len(found)):
        for first in range(second):
            if (found[first] & found[second]).any():
                raise InputError(
                    f"{names[first]} and {names[second]}: their regions overlap ({regions[first]} and "
                    f"{regions[second]}); draw them apart."
                )
    rest = ~torch.stack(found).any(0)
    if not rest.any():
        raise InputError(
            f"{' and '.join(names)}: the regions fill the picture; leave something between them that is nobody's."
        )
    return torch.stack([*found, rest])


def softened(mask: Tensor, reach: int = 2) -> Tensor:
    """A mask of tokens [rows, columns] with an edge that falls off outside over ``reach`` tokens: float32."""
    spread = mask.float()[None, None]
    total = spread.clone()
    for _ in range(reach):
        spread = F.max_pool2d(spread, 3, stride=1, padding=1)
        total = total + spread
    return (total / (reach + 1))[0, 0]
