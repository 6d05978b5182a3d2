"""The small VAE whose latents and pixels upstream's own code has computed."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from ..golden.recipe import read_golden
from ..golden.vae import golden_weights
from .places import DATA

GOLDEN, NOTES = read_golden(DATA / "vae.safetensors")


def weights() -> dict[str, torch.Tensor]:
    return golden_weights(NOTES["shapes"])


def saved(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path = folder / "vae.safetensors"
    save_file(tensors, path)
    return path


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference in units of the largest value."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()
