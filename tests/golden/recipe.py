"""Weights and inputs that a golden file's maker and its test both build, so that no file has to hold them.

A tensor depends on its name, its shape and a seed alone, not on the order in which tensors are
made nor on upstream's code. This module knows no model; it must not import upstream.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

Shapes = Mapping[str, Sequence[int]]


def random_tensor(name: str, shape: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Standard normal float32 numbers, drawn on the CPU from a generator seeded by (``seed``, ``name``)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(tuple(shape), generator=generator)


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights under which every input of a model matters: name -> float32 tensor.

    Matrices and kernels keep the variance of their input (standard deviation ``fan_in ** -0.5``),
    norms multiply by about 1, and nothing is zero: biases 0.1, modulations and positions 0.5,
    embeddings 1 (standard deviations). Norms of attention keys multiply by about 4, or else the
    few tokens of a prompt would drown in the padding.
    """
    return {name: _weight(name, shape, seed) for name, shape in shapes.items()}


def _weight(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    tensor = random_tensor(name, shape, seed)
    leaf = name.rpartition(".")[2]
    fan_in = math.prod(shape[1:])
    is_vector = fan_in == 1
    if leaf == "gamma" or (leaf == "weight" and is_vector):
        return (4 if "norm_k" in name else 1) * (1 + 0.1 * tensor)
    if leaf == "bias" and is_vector:
        return 0.1 * tensor
    if leaf in ("modulation", "cls_embedding", "pos_embedding") or "pos_embedding" in name:
        return 0.5 * tensor
    if "token_embedding" in name:
        return tensor
    return tensor * fan_in**-0.5


def shapes_of(module: torch.nn.Module) -> dict[str, list[int]]:
    """Name -> shape of everything in a module's state dict."""
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def reference_frames(count: int, height: int, width: int) -> np.ndarray:
    """A colourful moving picture, uint8 [count, height, width, 3], in integer arithmetic: the same anywhere."""
    t, y, x = np.ogrid[:count, :height, :width]
    red = 255 * x // width * (height - y) // height + 5 * t
    green = 200 - 150 * y // height + 3 * t + 0 * x
    blue = (x - width // 2) ** 2 + (y - height // 3) ** 2 + 7 * t
    return np.stack([np.broadcast_to(plane, (count, height, width)) % 256 for plane in (red, green, blue)], -1).astype(
        np.uint8
    )


def write_lossless_video(path: Path, frames: np.ndarray, fps: int = 25) -> None:
    """Write uint8 [T, H, W, 3] so that decoding to RGB gives back the same bytes (H.264, RGB, lossless)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())


def write_golden(path: Path, tensors: Mapping[str, torch.Tensor], **notes: object) -> None:
    """Write a golden file; ``notes`` (anything JSON can hold) become its metadata.

    All notes are one entry, since safetensors shuffles entries and the same data should be the same file.
    """
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"json": json.dumps(notes)})
    path.chmod(0o644)  # safetensors writes for the owner alone


def read_golden(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The tensors and the notes of a golden file."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["json"])
