"""The code of every storage, by its facts."""

from __future__ import annotations

import torch

from ..facts.storages import StorageFacts, choices
from . import gguf, rowwise
from .storage import PLAIN, Packed, Requantise

_ALL = (
    *PLAIN.values(),
    *(*rowwise.FP8.values(), rowwise.INT8),
    *gguf.STORAGES.values(),
)
CODES = {code.facts: code for code in _ALL}
# what the settings can ask for, and the storage that is made then
QUANTISERS = {choice: storages[0] for choice, storages in choices().items()}


def pack(storage: StorageFacts, matrix: torch.Tensor) -> Packed:
    """A float matrix [out, in] stored, on the device that it is on.

    Raises:
        ValueError: it cannot be written, or not as this storage.
    """
    fuse = CODES[storage].fuse
    if storage.again != storage.name or not isinstance(fuse, Requantise):
        raise ValueError(f"{storage.name} is not written")
    return fuse.pack(matrix)
