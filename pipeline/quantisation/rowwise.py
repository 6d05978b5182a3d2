"""fp8 and int8 with one float32 scale for each row (output channel) of a matrix.

A row is divided by its largest magnitude over the format's largest number, so nothing saturates and every
row uses the whole range. A file's single scale is one scale repeated. Knows no files and no products.
"""

from __future__ import annotations

import torch

from ..facts import storages
from .storage import Packed, Parts, Requantise, Storage

_INT8_MAX = 127.0


def _unpack(parts: Parts) -> torch.Tensor:
    return parts["weight"].float().mul_(parts["scale"][:, None])


def _scales(matrix: torch.Tensor, largest: float) -> torch.Tensor:
    """One for each row, float32 [out]; a row of zeros gets 1."""
    scale = matrix.abs().amax(dim=1).float() / largest
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def pack_fp8(matrix: torch.Tensor) -> Packed:
    """A float matrix [out, in] in fp8 e4m3, rounded to nearest."""
    largest = torch.finfo(torch.float8_e4m3fn).max
    scale = _scales(matrix, largest)
    rounded = (matrix.float() / scale[:, None]).clamp_(-largest, largest).to(torch.float8_e4m3fn)
    return Packed(FP8_E4M3, {"weight": rounded, "scale": scale}, tuple(matrix.shape))


def pack_int8(matrix: torch.Tensor) -> Packed:
    """A float matrix [out, in] in int8, symmetric around zero, rounded to nearest."""
    scale = _scales(matrix, _INT8_MAX)
    rounded = (matrix.float() / scale[:, None]).round_().clamp_(-_INT8_MAX, _INT8_MAX).to(torch.int8)
    return Packed(INT8, {"weight": rounded, "scale": scale}, tuple(matrix.shape))


FP8_E4M3 = Storage(storages.FP8_E4M3, _unpack, Requantise(pack_fp8))
FP8_E5M2 = Storage(storages.FP8_E5M2, _unpack, Requantise(pack_fp8))
INT8 = Storage(storages.INT8, _unpack, Requantise(pack_int8))
FP8 = {torch.float8_e4m3fn: FP8_E4M3, torch.float8_e5m2: FP8_E5M2}


def packed_rows(weight: torch.Tensor, scale: torch.Tensor | None = None, storage: Storage | None = None) -> Packed:
    """What a file holds: an 8-bit matrix [out, in] and its scales.

    Args:
        scale: one number, or one for each row in any shape; None is 1.
        storage: told by the dtype of fp8 and int8, if left out.

    Raises:
        ValueError: the number of scales is neither 1 nor that of the rows.
    """
    rows = weight.shape[0]
    scale = torch.ones(1) if scale is None else scale.detach().float().flatten()
    if scale.numel() not in (1, rows):
        raise ValueError(f"{scale.numel()} scales for {rows} rows")
    if storage is None:
        storage = INT8 if weight.dtype == torch.int8 else FP8[weight.dtype]
    parts = {"weight": weight, "scale": scale.to(weight.device).expand(rows).contiguous()}
    return Packed(storage, parts, tuple(weight.shape))
