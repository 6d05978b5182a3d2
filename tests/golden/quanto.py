"""Golden data for quanto files: what optimum-quanto saves of a small model, and what it reads back from that.

Needs optimum-quanto (0.2.7 made the data), which the engine does without; upstream's clone is not used. See
``tests/checkpoints/test_formats.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from .encoders import random_weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make(upstream: Path, out: Path) -> None:
    """Write ``quanto.safetensors`` into ``out``.

    Its tensors are named ``{qtype}.{dtype}.saved.{name}`` (as in a file) and ``{qtype}.{dtype}.read.{name}`` (as
    quanto dequantises it); its header holds the quantisation maps.
    """
    try:
        from optimum.quanto import freeze, qfloat8_e4m3fn, qfloat8_e5m2, qint4, qint8, quantization_map, quantize
    except ImportError as error:
        raise SystemExit("quanto.safetensors is not recomputed: it needs optimum-quanto==0.2.7") from error

    tensors, maps = {}, {}
    for qtype in (qint8, qfloat8_e4m3fn, qfloat8_e5m2, qint4):
        for dtype_name, dtype in DTYPES.items():
            model = _model()
            model.load_state_dict(random_weights({n: list(t.shape) for n, t in model.state_dict().items()}))
            model.to(dtype)
            quantize(model, weights=qtype)
            freeze(model)
            case = f"{qtype.name}.{dtype_name}"
            maps[case] = quantization_map(model)
            for name, tensor in model.state_dict().items():
                tensors[f"{case}.saved.{name}"] = tensor.contiguous()
            for name, parameter in model.named_parameters():
                plain = parameter.dequantize() if hasattr(parameter, "qtype") else parameter
                tensors[f"{case}.read.{name}"] = plain.detach().contiguous()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, out / "quanto.safetensors", _header(maps))


def _header(maps: dict[str, dict]) -> dict[str, str]:
    return {"json": json.dumps({"shapes": {n: list(t.shape) for n, t in _model().state_dict().items()}, "maps": maps})}


def _model() -> nn.Module:
    """One of each kind of layer that a transformer has; quanto takes the matrices and the 2D convolution."""
    block = nn.ModuleDict({"q": nn.Linear(16, 12), "norm": nn.LayerNorm(12)})
    embeddings = {"token_embedding": nn.Embedding(4, 6), "patch_embedding": nn.Conv3d(3, 4, (1, 2, 2))}
    return nn.ModuleDict({"blocks": nn.ModuleList([block]), "conv": nn.Conv2d(3, 4, 2), **embeddings})
