"""8-bit numbers and the scales that lie beside them, as one tensor.

A matrix stays as it is kept until it is asked for; everything else (norms, biases, convolutions) is only
ever read as values. Knows no names: which tensor is whose scale is for the formats that are read.
"""

from __future__ import annotations

import math

import torch

from ..quantisation.rowwise import FP8, INT8, packed_rows
from ..quantisation.storage import PLAIN, Packed
from .entry import Entry

STORAGES = {**FP8, torch.int8: INT8}
_SCALE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def fits(weight: Entry, scale: Entry) -> bool:
    """Whether these are scales for the whole tensor or for its rows, told by shape and dtype."""
    per_row = bool(scale.shape) and math.prod(scale.shape[1:]) == 1 and scale.shape[0] == weight.shape[0]
    return scale.dtype in _SCALE_DTYPES and (per_row or math.prod(scale.shape) == 1)


def scaled(weight: Entry, scale: Entry | None = None, dtype: torch.dtype | None = None) -> Entry:
    """The tensor that an entry of fp8, int8 or float numbers and its scales stand for.

    Args:
        scale: one that ``fits``; None is 1.
        dtype: what the numbers are, if the file declares them as bytes.
    """
    dtype = dtype or weight.dtype

    def numbers() -> torch.Tensor:
        return weight.read().view(dtype)

    def pack_matrix() -> Packed:
        return packed_rows(numbers(), scale and scale.read())

    def values() -> torch.Tensor:
        if scale is None:
            return numbers().float()
        factors = scale.read().float().flatten()
        return numbers().float() * factors.view(-1, *[1] * (len(weight.shape) - 1))

    def pack_values() -> Packed:
        return Packed(PLAIN[torch.float32], {"weight": values()}, weight.shape)

    if len(weight.shape) == 2 and dtype in STORAGES:
        return Entry(weight.shape, dtype, weight.source, lambda: pack_matrix().unpacked(), STORAGES[dtype], pack_matrix)
    return Entry(weight.shape, dtype, weight.source, values, PLAIN[torch.float32], pack_values)
