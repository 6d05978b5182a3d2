"""Frames side by side as a picture, to look at."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image


def save_sheet(frames: torch.Tensor, path: Path) -> None:
    """Write frames [rows, columns, 3, H, W] in [-1, 1] as one picture."""
    levels = ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    rows = [torch.cat(list(row), dim=2) for row in levels]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()).save(path)
