"""A picture's fit to a size. Knows neither where it comes from nor what sees it."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image


def resize_and_crop(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """Scale an image until it covers (height, width), bilinearly, and cut out its centre.

    Upstream's ``resize_and_centercrop`` (wan/multitalk.py), with the same rounding.

    Returns:
        float32 [3, height, width] in [-1, 1].
    """
    height, width = size
    scale = max(height / image.height, width / image.width)
    covering = math.ceil(scale * image.width), math.ceil(scale * image.height)
    pixels = np.array(image.convert("RGB").resize(covering, resample=Image.Resampling.BILINEAR))
    # Python's round: a half goes to the even neighbour, as in torchvision's center_crop.
    top, left = round((covering[1] - height) / 2), round((covering[0] - width) / 2)
    cropped = torch.from_numpy(pixels[top : top + height, left : left + width]).permute(2, 0, 1).contiguous()
    return (cropped / 255 - 0.5) * 2
