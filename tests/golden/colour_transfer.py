"""Golden data for colours by covariance and by histogram: the package color-matcher, as Kijai's nodes call it.

Made with that package installed; ``--upstream`` is not read. See ``tests/media/test_colour_transfer.py``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .media import frames, reference
from .recipe import write_golden

METHODS = ("mkl", "hm", "hm-mkl-hm")


def make(upstream: Path, out: Path) -> None:
    """Write ``colour_transfer.safetensors`` into ``out``."""
    from color_matcher import ColorMatcher

    target = reference().permute(1, 2, 0).float().numpy()
    tensors = {}
    for method in METHODS:
        matcher = ColorMatcher()
        matched = [matcher.transfer(src=frame.permute(1, 2, 0).numpy(), ref=target, method=method) for frame in shown()]
        tensors[method] = torch.stack([torch.from_numpy(frame).permute(2, 0, 1).float() for frame in matched], dim=1)
    write_golden(out / "colour_transfer.safetensors", tensors)


def shown() -> list[torch.Tensor]:
    """Two frames [3, H, W] in [-1, 1]."""
    return list(frames().unbind(1))[:2]
