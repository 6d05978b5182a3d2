"""Encoding and decoding by upstream's WanVAE_ with small random weights -> vae.safetensors.

Tensors (float32):
    latents     [16, 5, 3, 5], normalised, of ``golden_video()``
    decoded     [3, 17, 24, 40], of the latents ``recipe.random_tensor("latents", [16, 5, 3, 5])``
Notes: ``config`` (arguments of WanVAE_), ``shapes`` (name -> shape of every weight).

To rebuild: weights are ``golden_weights(shapes)``, the video is ``golden_video()``.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch

from .recipe import Shapes, random_state, random_tensor, reference_frames, shapes_of, write_golden
from .transformer import check_alive
from .upstream import import_upstream

CONFIG = {
    "dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
}
LATENTS = [16, 5, 3, 5]


def make(upstream: Path, out: Path) -> None:
    """Write vae.safetensors; fails if a weight moves its result by less than 1 % or if many values are clamped."""
    video, latents = golden_video(), random_tensor("latents", LATENTS)
    with import_upstream(upstream), torch.no_grad():
        vae, shapes = _small_vae()
        encoded, decoded = vae.encode([video])[0], vae.decode([latents])[0]
        if (decoded.abs() == 1).float().mean() > 0.01:
            raise AssertionError("vae: more than 1 % of the decoded values are clamped")
        others = random_state(shapes, seed=1)
        for name, weight in golden_weights(shapes).items():
            vae.model.load_state_dict({name: others[name]}, strict=False)
            if name.startswith(("encoder.", "conv1.")):
                check_alive(f"vae: {name}", encoded, vae.encode([video])[0])
            else:
                check_alive(f"vae: {name}", decoded, vae.decode([latents])[0])
            vae.model.load_state_dict({name: weight}, strict=False)
    write_golden(out / "vae.safetensors", {"latents": encoded, "decoded": decoded}, config=CONFIG, shapes=shapes)


def golden_video() -> torch.Tensor:
    """A moving picture ``[3, 17, 24, 40]`` in [-1, 1]."""
    frames = torch.from_numpy(reference_frames(17, 24, 40)).permute(3, 0, 1, 2)
    return frames.float() / 127.5 - 1


def golden_weights(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Random weights under which decoded values hardly ever reach the clamp at 1."""
    weights = random_state(shapes)
    weights["decoder.head.2.weight"] *= 0.4
    return weights


def _small_vae() -> tuple[object, dict[str, list[int]]]:
    """Upstream's WanVAE around a small model with the golden weights, and their shapes. Needs ``import_upstream``."""
    from wan.modules import vae

    model = vae.WanVAE_(**CONFIG).eval()
    shapes = shapes_of(model)
    model.load_state_dict(golden_weights(shapes))
    with mock.patch.object(vae, "_video_vae", lambda **options: model):
        return vae.WanVAE(device="cpu"), shapes
