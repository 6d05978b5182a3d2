"""Rotary position embedding over time, height and width (Wan 2.1's three-axis split of each head).

Tables are computed once per latent size in float64 and kept on the device as complex64; the
rotation itself runs in float32. Knows nothing about attention.
"""

from __future__ import annotations

import torch

THETA = 10_000.0


def rope_table(grid: tuple[int, int, int], head_dim: int, device: torch.device | str) -> torch.Tensor:
    """Unit complex numbers to rotate by, [frames * height * width, 1, head_dim / 2] complex64.

    Args:
        grid: tokens along time, height and width.
        head_dim: channels of one head; the pairs are split over the axes as
            ``d - 4 * (d // 6), 2 * (d // 6), 2 * (d // 6)`` channels (wan/modules/model.py).
    """
    spatial = 2 * (head_dim // 6)
    axes = (head_dim - 2 * spatial, spatial, spatial)
    angles = [_angles(length, channels) for length, channels in zip(grid, axes, strict=True)]
    frames, height, width = grid
    full = torch.cat(
        [
            angles[0].view(frames, 1, 1, -1).expand(frames, height, width, -1),
            angles[1].view(1, height, 1, -1).expand(frames, height, width, -1),
            angles[2].view(1, 1, width, -1).expand(frames, height, width, -1),
        ],
        dim=-1,
    ).reshape(frames * height * width, 1, head_dim // 2)
    return torch.polar(torch.ones_like(full), full).to(torch.complex64).to(device)


def _angles(length: int, channels: int) -> torch.Tensor:
    exponents = torch.arange(0, channels, 2, dtype=torch.float64) / channels
    return torch.outer(torch.arange(length, dtype=torch.float64), THETA**-exponents)


def rotate(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys. ``x`` may be overwritten.

    Args:
        x: [tokens, heads, head_dim], neighbouring channels are a pair.
        table: from ``rope_table``.

    Returns:
        The same shape and dtype.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs.mul_(table)).flatten(-2).to(x.dtype)
