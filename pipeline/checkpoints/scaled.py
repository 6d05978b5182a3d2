"""8-bit numbers and the scales that lie beside them, as one tensor.

A matrix stays as it is kept until it is asked for; everything else (norms, biases, convolutions) is only
ever read as values. Knows no names: which tensor is whose scale is for the formats that are read.
"""

from __future__ import annotations

import math

from ..facts.storages import FP32, ROW_SCALED
from .entry import Entry

_SCALE_DTYPES = ("float32", "float16", "bfloat16", "float64")


def fits(weight: Entry, scale: Entry) -> bool:
    """Whether these are scales for the whole tensor or for its rows, told by shape and dtype."""
    per_row = bool(scale.shape) and math.prod(scale.shape[1:]) == 1 and scale.shape[0] == weight.shape[0]
    return scale.dtype in _SCALE_DTYPES and (per_row or math.prod(scale.shape) == 1)


def scaled(weight: Entry, scale: Entry | None = None, dtype: str | None = None) -> Entry:
    """The tensor that an entry of fp8, int8 or float numbers and its scales stand for.

    Args:
        scale: one that ``fits``; None is 1.
        dtype: what the numbers are, if the file declares them as bytes.
    """
    dtype = dtype or weight.dtype
    storage = ROW_SCALED.get(dtype, FP32) if len(weight.shape) == 2 else FP32
    return Entry(weight.numbers, dtype, storage, None if scale is None else scale.numbers)
