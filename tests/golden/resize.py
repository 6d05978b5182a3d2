"""Golden data for resizing: core's ``common_upscale`` and ``clip_preprocess``, and KJNodes' ImageResizeKJv2.

Made with ``--upstream`` a ComfyUI whose ``custom_nodes`` has ComfyUI-KJNodes. Of the results some rows and columns
are kept. See ``tests/media/test_resize.py``.
"""

from __future__ import annotations

import ast
import logging
import math
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...pipeline.facts.resizing import resize_steps
from .recipe import reference_frames, write_golden

PICTURES = ((301, 433), (250, 120))  # height, width
SIZE = (96, 160)
CROPPED = ("lanczos,crop", "bilinear,crop,left", "area,crop,bottom", "bicubic,crop,top", "nearest-exact,crop,right")
PADDED = ("lanczos,pad,#ff8000,/16", "bilinear,pad_edge,top,/7", "lanczos,pad_edge,/2", "area,pad_edge_pixel,right")
SCALED = ("lanczos,stretch", "bicubic,stretch", "bilinear,middle", "area,middle")
CLIP_SIDE = 56


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(reference_frames(1, *size)[0])


def thinned(pixels: torch.Tensor) -> torch.Tensor:
    return pixels[:, ::7, ::5]


def make(upstream: Path, out: Path) -> None:
    """Write ``resize.safetensors`` into ``out``."""
    core = {"np": np, "torch": torch, "Image": Image}
    _define(upstream / "comfy" / "utils.py", ("lanczos", "common_upscale"), core)
    _define(upstream / "comfy" / "clip_vision.py", ("clip_preprocess",), core)
    _define(
        next((upstream / "custom_nodes").glob("*/nodes/image_nodes.py")),
        ("ImageResizeKJv2", "ImagePadKJ"),
        names := core
        | {"math": math, "logging": logging, "F": torch.nn.functional, "PromptServer": None, "MAX_RESOLUTION": 16384}
        | {"model_management": types.SimpleNamespace(throw_exception_if_processing_interrupted=lambda: None)},
    )
    names["common_upscale"] = core["common_upscale"]
    utility = {"List": list, "np": np}
    _define(next((upstream / "custom_nodes").glob("*/utility/utility.py")), ("string_to_color",), utility)
    names["string_to_color"] = utility["string_to_color"]
    tensors, (height, width) = {}, SIZE
    for size in PICTURES:
        pixels = torch.from_numpy(np.array(picture(size)).astype(np.float32) / 255)[None]
        for text in CROPPED:
            method, _, position, *_ = [*text.split(","), "center"]
            node = names["ImageResizeKJv2"]()
            made = node.resize(pixels, width, height, "crop", method, 16, "0, 0, 0", position, None, "cpu")[0]
            tensors[f"{text} {size}"] = thinned(made[0].permute(2, 0, 1) * 2 - 1)
        for text in PADDED:
            (step,) = resize_steps((text,))
            node, colour = names["ImageResizeKJv2"](), ", ".join(map(str, step.colour))
            made = node.resize(
                pixels, width, height, step.fit, step.method, step.multiple, colour, step.position, None, "cpu"
            )[0]
            tensors[f"{text} {size}"] = thinned(made[0].permute(2, 0, 1) * 2 - 1)
        for text in SCALED:
            method, fit = text.split(",")
            crop = "center" if fit == "middle" else "disabled"
            made = core["common_upscale"](pixels.movedim(-1, 1), width, height, method, crop)[0]
            tensors[f"{text} {size}"] = thinned(made * 2 - 1)
        tensors[f"clip {size}"] = core["clip_preprocess"](pixels, CLIP_SIDE, [0.0] * 3, [1.0] * 3)[0, :, ::3, ::3]
    write_golden(out / "resize.safetensors", tensors)


def _define(path: Path, wanted: tuple[str, ...], names: dict) -> None:
    """Functions and classes of a file of ComfyUI or a pack, without what the file imports."""
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in wanted:
            exec(ast.get_source_segment(text, node), names)  # noqa: S102
