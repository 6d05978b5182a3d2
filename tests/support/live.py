"""Counts the memory of tensors while they live, whoever makes them."""

from __future__ import annotations

import weakref

import torch

# what PyTorch documents for its dispatch modes, though the modules' names begin with an underscore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the bytes of storages that are made while it is on, as long as they live.

    Args:
        meta: also of those that are only imagined.
    """

    def __init__(self, meta=False):
        super().__init__()
        self._meta = meta
        self.now = self.peak = 0
        self._known = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and self._key(tensor) not in self._known:
                given = (self._key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor))
                if self._key(tensor) not in given:
                    self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    @staticmethod
    def _key(tensor):
        return tensor.untyped_storage()._cdata

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes() if self._meta or storage.device.type != "meta" else 0
        self.now += size

        def freed(_):
            self.now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
