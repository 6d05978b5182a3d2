"""A picture brought to a size as nodes of ComfyUI do it: core's ``common_upscale``, with KJNodes' or core's crop.

Lanczos works in 8 bits, by Pillow; the other methods in float32 without antialiasing. Knows neither where the picture
comes from nor what sees it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..facts.resizing import ResizeStep


def resized(image: Image.Image, steps: tuple[ResizeStep, ...], size: tuple[int, int]) -> Tensor:
    """A picture at its (height, width), step by step.

    Returns:
        float32 [3, height, width] in [-1, 1]; bicubic may exceed it.
    """
    pixels = _stepped(image, steps, size)
    if tuple(pixels.shape[1:]) != size:
        pixels = _scaled(pixels, size, "lanczos")  # as the node that makes the video does
    return pixels * 2 - 1


def before_fit(image: Image.Image, steps: tuple[ResizeStep, ...], size: tuple[int, int]) -> Tensor:
    """The same before the last step: float32 [3, h, w] in [-1, 1], of whatever size it is then."""
    return _stepped(image, steps[:-1], size) * 2 - 1


def _stepped(image: Image.Image, steps: tuple[ResizeStep, ...], size: tuple[int, int]) -> Tensor:
    pixels = torch.from_numpy(np.array(image.convert("RGB")).astype(np.float32) / 255).permute(2, 0, 1)
    for step in steps:
        target = step.size or size
        pixels = _scaled(_cut(pixels, step, target), target, step.method)
    return pixels


def _cut(pixels: Tensor, step: ResizeStep, target: tuple[int, int]) -> Tensor:
    if step.fit == "stretch":
        return pixels
    old_height, old_width = pixels.shape[1:]
    old, new = old_width / old_height, target[1] / target[0]
    if step.fit == "middle":
        x = round((old_width - old_width * (new / old)) / 2) if old > new else 0
        y = round((old_height - old_height * (old / new)) / 2) if old < new else 0
        return pixels[:, y : old_height - y, x : old_width - x]
    width, height = (round(old_height * new), old_height) if old > new else (old_width, round(old_width / new))
    x, y = (old_width - width) // 2, (old_height - height) // 2
    x = {"left": 0, "right": old_width - width}.get(step.position, x)
    y = {"top": 0, "bottom": old_height - height}.get(step.position, y)
    return pixels[:, y : y + height, x : x + width]


def _scaled(pixels: Tensor, size: tuple[int, int], method: str) -> Tensor:
    if method != "lanczos":
        return F.interpolate(pixels[None], size=size, mode=method)[0]
    levels = np.clip(255.0 * pixels.permute(1, 2, 0).numpy(), 0, 255).astype(np.uint8)  # which rounds down
    scaled = Image.fromarray(levels).resize((size[1], size[0]), resample=Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(scaled).astype(np.float32) / 255.0).permute(2, 0, 1)
