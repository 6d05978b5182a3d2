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

from ..facts.resizing import PADS, ResizeStep


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
        if step.fit in PADS:
            pixels = _padded(pixels, step, target)
        else:
            pixels = _scaled(_cut(pixels, step, target), target, step.method)
    return pixels


def _padded(pixels: Tensor, step: ResizeStep, target: tuple[int, int]) -> Tensor:
    """As large as fits into a box, with bars where it does not reach the sides."""
    old_height, old_width = pixels.shape[1:]
    ratio = min(target[1] / old_width, target[0] / old_height)
    width, height = round(old_width * ratio), round(old_height * ratio)
    free_x, free_y, multiple = target[1] - width, target[0] - height, step.multiple
    left = {"left": 0, "right": free_x}.get(step.position, free_x // 2)
    top = {"top": 0, "bottom": free_y}.get(step.position, free_y // 2)
    shown = _scaled(pixels, (height - height % multiple, width - width % multiple), step.method)
    if free_x <= 0 and free_y <= 0:
        return shown
    shown_height, shown_width = shown.shape[1:]
    size = [-(-side // multiple) * multiple for side in (shown_height + free_y, shown_width + free_x)]
    right, bottom = left + shown_width, top + shown_height
    if step.fit == "pad_edge_pixel":
        bars = left, size[1] - right, top, size[0] - bottom
        return F.pad(shown[None], bars, mode="replicate")[0]
    colour = torch.tensor(step.colour, dtype=torch.float32) / 255
    padded = colour[:, None, None].repeat(1, *size)
    if step.fit == "pad_edge":
        padded[:, :top] = shown[:, 0].mean(dim=1)[:, None, None]
        padded[:, bottom:] = shown[:, -1].mean(dim=1)[:, None, None]
        padded[:, :, :left] = shown[:, :, 0].mean(dim=1)[:, None, None]
        padded[:, :, right:] = shown[:, :, -1].mean(dim=1)[:, None, None]
    padded[:, top:bottom, left:right] = shown
    return padded


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
