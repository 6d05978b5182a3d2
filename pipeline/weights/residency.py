"""Where the transformer's blocks live, and bringing each to the device when its turn comes.

The first ``resident`` blocks stay on the device; the others wait in pinned host memory, one flat
slab per block, and are copied into one device slot as they are needed. Copies and kernels share a
stream, so the order alone keeps them right. Residency never changes a result. Knows nothing about
what a block computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

_ALIGNMENT = 256


@dataclass(frozen=True)
class _Slice:
    parameter: nn.Parameter
    start: int
    stop: int


class _Slab:
    """All parameters of one block in one piece of pinned host memory."""

    def __init__(self, block: nn.Module, pinned: bool) -> None:
        self.slices: list[_Slice] = []
        size = 0
        for parameter in block.parameters():
            self.slices.append(_Slice(parameter, size, size + parameter.nbytes))
            size += -(-parameter.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.host = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        for part in self.slices:
            self._view(self.host, part).copy_(part.parameter.data)
        self.attach(self.host)

    @staticmethod
    def _view(flat: torch.Tensor, part: _Slice) -> torch.Tensor:
        return flat[part.start : part.stop].view(part.parameter.dtype).view(part.parameter.shape)

    def attach(self, flat: torch.Tensor) -> None:
        """Make the block's parameters views of ``flat`` (the slab itself or a copy on the device)."""
        for part in self.slices:
            part.parameter.data = self._view(flat, part)


class BlockStreamer:
    """Iterate to get the blocks in order, each on the device while it is yours.

    Args:
        device: where blocks run.
        resident: how many of the first blocks stay on the device. May be changed between ``to_host`` and
            ``to_device``, where all blocks are kept in host memory.
        offload: also give the resident blocks' device memory back on ``to_host`` (at the price of
            keeping them in host memory).
    """

    def __init__(self, device: torch.device, resident: int, offload: bool = False) -> None:
        self.device = device
        self.resident = resident
        self.offload = offload
        self._blocks: list[nn.Module] = []
        self._slabs: dict[int, _Slab] = {}
        self._slot: torch.Tensor | None = None
        self._at_home = True  # whether all blocks that are kept in host memory are there

    def loading_device(self, index: int) -> torch.device:
        """Where block ``index`` is to be filled before ``add``."""
        return torch.device("cpu") if self._waits(index) else self.device

    def _waits(self, index: int) -> bool:
        return index >= self.resident or self.offload

    def add(self, block: nn.Module) -> None:
        """Take the next block, filled on ``loading_device``."""
        index = len(self._blocks)
        self._blocks.append(block)
        if self._waits(index):
            self._slabs[index] = _Slab(block, pinned=self.device.type == "cuda")

    def to_device(self) -> None:
        """Bring resident blocks to the device, if they are not there."""
        if not self._at_home:
            return
        self._at_home = False
        for index, slab in self._slabs.items():
            if index < self.resident:
                slab.attach(slab.host.to(self.device, non_blocking=True, copy=True))

    def to_host(self) -> None:
        """Give device memory back as far as the weights are kept in host memory too."""
        self._slot = None
        self._at_home = True
        for slab in self._slabs.values():
            slab.attach(slab.host)

    def __iter__(self) -> Iterator[nn.Module]:
        for index, block in enumerate(self._blocks):
            if index < self.resident:
                yield block
                continue
            slab = self._slabs[index]
            if self._slot is None:
                size = max(s.host.nbytes for i, s in self._slabs.items() if i >= self.resident)
                self._slot = torch.empty(size, dtype=torch.uint8, device=self.device)
            self._slot[: slab.host.nbytes].copy_(slab.host, non_blocking=True)
            slab.attach(self._slot)
            yield block
            slab.attach(slab.host)
