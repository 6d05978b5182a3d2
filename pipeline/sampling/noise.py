"""Noise that belongs to a seed and a window: the same on any device and after any interruption."""

from __future__ import annotations

import hashlib

import torch


def window_generator(seed: int, window: int) -> torch.Generator:
    """A CPU generator for window ``window`` (from 0) of a run with this seed.

    Its first draw is the window's initial noise; solvers that add noise draw from it afterwards.
    """
    digest = hashlib.sha256(f"{seed}:{window}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def window_noise(generator: torch.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal float32 noise on the CPU."""
    return torch.randn(shape, generator=generator, dtype=torch.float32)
