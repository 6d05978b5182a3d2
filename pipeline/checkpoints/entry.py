"""One tensor of a checkpoint: what is known of it without reading, and how to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..quantisation.storage import PLAIN, Packed, Storage


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor under its logical name: of a quantised matrix, the shape and the values it stands for.

    Attributes:
        dtype: what the numbers are kept in; for GGUF blocks uint8.
        read: gives the values, float32 where they are quantised.
        storage: how a matrix is kept; left out for a plain tensor, whose dtype says it.
        pack: gives the weight as it is kept; left out for a plain tensor.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    source: Path
    read: Callable[[], torch.Tensor]
    storage: Storage | None = None
    pack: Callable[[], Packed] | None = None

    def kept_as(self) -> Storage | None:
        """The storage; None for what is no number to compute with (integers, bytes)."""
        return self.storage or PLAIN.get(self.dtype)

    def packed(self) -> Packed:
        """The weight as the file keeps it; a plain one shares the file's memory."""
        if self.pack is not None:
            return self.pack()
        return Packed(PLAIN[self.dtype], {"weight": self.read()}, self.shape)
