"""Upstream's choice of size, its resize and crop, and its colour correction -> media.safetensors.

Tensors:
    sizes                   int [20, 2], height and width of the source pictures
    target.{size}           int [20, 2], height and width of the bucket, for infinitetalk-480 and -720
    colour.{strength}       float32 [3, T, H, W], frames corrected to a reference, in [-1, 1]
Notes: ``crops.{size}`` (SHA-256 of each resized and cropped picture, float32 [3, H, W] in [-1, 1]).

To rebuild the inputs: ``picture(height, width)``, ``frames()`` and ``reference()`` of this module.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from PIL import Image

from . import recipe
from .upstream import import_upstream

# Height/width from 0.18 to 5: odd sides, a tie of two buckets (450x200), smaller and larger than the target.
SIZES = (
    *((90, 500), (111, 400), (123, 333), (440, 1000), (200, 360), (301, 433), (240, 300), (255, 257), (719, 720)),
    *((1, 1), (333, 301), (400, 320), (450, 300), (720, 404), (450, 200), (500, 211), (510, 180), (500, 139)),
    *((480, 120), (500, 100)),
)
STRENGTHS = (1.0, 0.3)


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(recipe.reference_frames(1, height, width)[0])


def frames() -> torch.Tensor:
    """float32 [3, 4, 24, 32] in [-1, 1]: colourful, dark, without colour contrast, and black."""
    moving = torch.from_numpy(recipe.reference_frames(4, 24, 32)).permute(3, 0, 1, 2) / 127.5 - 1
    faded = 0.02 * moving[:, 2] + torch.tensor([0.3, 0.1, -0.2])[:, None, None]
    return torch.stack([moving[:, 0], moving[:, 1] * 0.2 - 0.75, faded, torch.full_like(faded, -1.0)], 1)


def reference() -> torch.Tensor:
    """float32 [3, 20, 28] in [-1, 1]"""
    return torch.from_numpy(recipe.reference_frames(9, 20, 28)[8]).permute(2, 0, 1) / 150 - 0.8


def digest(image: torch.Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()


def make(upstream: Path, out: Path) -> None:
    tensors = {"sizes": torch.tensor(SIZES)}
    notes = {}
    with import_upstream(upstream):
        from wan.multitalk import resize_and_centercrop
        from wan.utils import multitalk_utils

        for size, table in (("infinitetalk-480", "ASPECT_RATIO_627"), ("infinitetalk-720", "ASPECT_RATIO_960")):
            buckets = getattr(multitalk_utils, table)
            targets = [_bucket(buckets, height / width) for height, width in SIZES]
            tensors[f"target.{size}"] = torch.tensor(targets)
            notes[f"crops.{size}"] = [
                digest(((resize_and_centercrop(picture(*source), target) / 255 - 0.5) * 2)[0, :, 0])
                for source, target in zip(SIZES, targets, strict=True)
            ]
        for strength in STRENGTHS:
            corrected = multitalk_utils.match_and_blend_colors(frames()[None], reference()[None, :, None], strength)
            tensors[f"colour.{strength}"] = corrected[0]
    recipe.write_golden(out / "media.safetensors", tensors, **notes)


def _bucket(buckets: dict[str, tuple[list[int], int]], ratio: float) -> list[int]:
    """The height and width that upstream's generate picks (it does so inline, in a sorted list)."""
    return buckets[sorted(buckets, key=lambda key: abs(float(key) - ratio))[0]][0]
