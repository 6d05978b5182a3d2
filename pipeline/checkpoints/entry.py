"""One tensor of a checkpoint under its logical name: what is known of it from headers alone.

Of a quantised matrix the numbers and their scales are one entry. Reading is for ``reading``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..facts.storages import FLOATS, FP32, StorageFacts
from .headers import Stored


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor under its logical name: of a quantised one, the shape and the values that it stands for.

    Attributes:
        numbers: where they are.
        dtype: what the numbers are, by PyTorch's name; for GGUF blocks "uint8".
        storage: how it is kept; None for what is no number to compute with (integers, bytes).
        scale: by which the numbers are multiplied, for all of them or for each row; None is 1.
    """

    numbers: Stored
    dtype: str
    storage: StorageFacts | None
    scale: Stored | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape


def plain_entry(stored: Stored) -> Entry:
    """The entry of a tensor that stands for itself: plain numbers, or GGUF blocks."""
    blocks = stored.blocks
    if blocks is None:
        return Entry(stored, stored.dtype, FLOATS.get(stored.dtype))
    if len(stored.shape) != 2 or blocks.blocks is None or stored.shape[1] % blocks.blocks.weights:
        # No matrix whose rows are whole blocks, so nothing that could be multiplied by as it is.
        return Entry(stored, FP32.dtype, FP32)
    return Entry(stored, stored.dtype, blocks)
