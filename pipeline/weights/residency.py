"""Where the transformer's blocks live, and bringing each to the device when its turn comes.

The first ``resident`` blocks stay on the device; the others wait in pinned host memory and are copied into two
device slots in turn. Copies have a stream of their own and run while the block before computes; after the last
block the first ones are copied again for the next walk. Events order the two streams, and nothing waits on the
host. Residency never changes a result. Knows nothing about what a block computes.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ..memory import SLOTS

_ALIGNMENT = 256


@dataclass(frozen=True)
class _Slice:
    """A parameter's place among its block's bytes."""

    parameter: nn.Parameter
    dtype: torch.dtype
    shape: torch.Size
    start: int
    stop: int


class _Slab:
    """All parameters of one block in one piece of host memory, and on the device while a copy is attached."""

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        self._slices: list[_Slice] = []
        size = 0
        for parameter in block.parameters():
            tensor = parameter.data
            self._slices.append(_Slice(parameter, tensor.dtype, tensor.shape, size, size + tensor.nbytes))
            size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.host = torch.empty(size, dtype=torch.uint8)
        if device.type == "cuda":
            self.host.zero_()  # by all cores: the pages are made here, not one after the other
            _pin(self, self.host, device)
        for part in self._slices:
            self._view(self.host, part).copy_(part.parameter.data)
        self.leave()

    @staticmethod
    def _view(flat: torch.Tensor, part: _Slice) -> torch.Tensor:
        return flat[part.start : part.stop].view(part.dtype).view(part.shape)

    def attach(self, flat: torch.Tensor) -> None:
        """Make the block's parameters views of ``flat``."""
        for part in self._slices:
            part.parameter.data = self._view(flat, part)

    def leave(self) -> None:
        """Have the parameters hold no memory."""
        for part in self._slices:
            part.parameter.data = torch.empty(0, dtype=part.dtype)


def _pin(owner: object, host: torch.Tensor, device: torch.device) -> None:
    """Let the card read host memory that has been written, without a copy on the way, as long as ``owner`` lives.

    PyTorch's own pinned memory is rounded up to powers of two and takes six times as long to get. Where the
    system refuses, the memory stays ordinary, from which copies are slower and as right.
    """
    runtime = torch.cuda.cudart()
    with torch.cuda.device(device):
        refused = int(runtime.cudaHostRegister(host.data_ptr(), host.nbytes, 0))
    if refused:
        with contextlib.suppress(RuntimeError):  # the next kernel would be blamed for it
            torch.zeros(1, device=device)
    else:
        weakref.finalize(owner, _unpin, host, device).atexit = False  # the system does it then


def _unpin(host: torch.Tensor, device: torch.device) -> None:
    torch.cuda.synchronize(device)  # copies may be under way
    torch.cuda.cudart().cudaHostUnregister(host.data_ptr())


class _Slot:
    """Room for one block on the device.

    Attributes:
        holds: number of the block whose bytes are there or on their way.
        copied: an event after the copy that is on its way.
        used: an event after the last computation with what was there.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.flat = torch.empty(size, dtype=torch.uint8, device=device)
        self.holds: int | None = None
        on_card = device.type == "cuda"
        self.copied, self.used = (torch.cuda.Event() if on_card else None for _ in range(2))

    def receive(self, host: torch.Tensor) -> None:
        self.flat[: len(host)].copy_(host, non_blocking=True)


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
        self._slots: list[_Slot] = []
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._at_home = True  # whether all blocks that are kept in host memory are there

    def add(self, block: nn.Module) -> None:
        """Take the next block, filled on ``device``."""
        index = len(self._blocks)
        self._blocks.append(block)
        if index >= self.resident or self.offload:
            self._slabs[index] = _Slab(block, self.device)

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
        self._slots = []
        self._at_home = True
        for slab in self._slabs.values():
            slab.leave()

    def __iter__(self) -> Iterator[nn.Module]:
        waiting = [index for index in range(len(self._blocks)) if index >= self.resident]
        if waiting and not self._slots:
            size = max(self._slabs[index].host.nbytes for index in waiting)
            self._slots = [_Slot(size, self.device) for _ in range(min(SLOTS, len(waiting)))]
            if self._copying is not None:
                self._copying.wait_stream(torch.cuda.current_stream(self.device))  # the memory may just have been freed
        for number, slot in enumerate(self._slots):
            self._fetch(slot, waiting[number])
        for index, block in enumerate(self._blocks):
            if index < self.resident:
                yield block
                continue
            number = index - self.resident
            slot, slab = self._slots[number % len(self._slots)], self._slabs[index]
            self._fetch(slot, index)
            if slot.copied is not None:
                torch.cuda.current_stream(self.device).wait_event(slot.copied)
            slab.attach(slot.flat)
            try:
                yield block
            finally:
                slab.leave()
                if slot.used is not None:
                    slot.used.record(torch.cuda.current_stream(self.device))
            following = number + len(self._slots)
            self._fetch(slot, waiting[following if following < len(waiting) else number % len(self._slots)])

    def _fetch(self, slot: _Slot, index: int) -> None:
        """Start to copy a block into a slot, after what was there has been used."""
        if slot.holds == index:
            return
        slot.holds = index
        if self._copying is None:
            slot.receive(self._slabs[index].host)
            return
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(slot.used)
            slot.receive(self._slabs[index].host)
            slot.copied.record(self._copying)
        slot.flat.record_stream(self._copying)  # or its memory could be given away while it is written to
