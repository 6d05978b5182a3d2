"""Where the transformer's blocks live, and bringing each to the device when its turn comes.

The first ``resident`` blocks stay on the device; the others wait in pinned host memory and are copied into two
device slots in turn. Copies have a stream of their own and run while the block before computes; after the last
block the first ones are copied again for the next walk. Events order the two streams, and nothing waits on the
host. Where host memory is short, blocks are read from their memory-mapped file instead, at every walk. Residency
never changes a result. Knows nothing about what a block computes.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ..memory import SLOTS
from .host_memory import HOST_RESERVE, available_host_memory

_ALIGNMENT = 256
ALL = 2**31  # more blocks than there are


@dataclass(frozen=True)
class _Slice:
    """A parameter's place among its block's bytes."""

    parameter: nn.Parameter
    dtype: torch.dtype
    shape: torch.Size
    start: int
    stop: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        return flat[self.start : self.stop].view(self.dtype).view(self.shape)


class _Slab:
    """Parameters of one block in one piece of host memory, and on the device while a copy is attached.

    Attributes:
        size: bytes that they take on the device.
        in_file: whether they stay where they were read, mostly in a mapped file, instead.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._slices: list[_Slice] = []
        self.size = 0
        for parameter in parameters:
            tensor = parameter.data
            self._slices.append(_Slice(parameter, tensor.dtype, tensor.shape, self.size, self.size + tensor.nbytes))
            self.size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        read = sum(part.parameter.nbytes for part in self._slices if part.parameter.device.type == "cpu")
        free = available_host_memory()
        self.in_file = free is not None and free < self.size + HOST_RESERVE and read > self.size // 2
        if self.in_file:
            self._sources = [part.parameter.data.cpu() for part in self._slices]
        else:
            self._host = self._gathered(device)
        self.leave()

    def _gathered(self, device: torch.device) -> torch.Tensor:
        host = torch.empty(self.size, dtype=torch.uint8)
        on_card = [part for part in self._slices if part.parameter.device.type != "cpu"]
        on_host = [part for part in self._slices if part.parameter.device.type == "cpu"]
        # Both of these make pages by all cores; pinning and copies from the card would make them one by one.
        for part in on_host:
            part.of(host).copy_(part.parameter.data)
        for part in on_card:
            part.of(host).zero_()
        if device.type == "cuda":
            _pin(self, host, device)
        for part in on_card:
            part.of(host).copy_(part.parameter.data)
        return host

    def copy_to(self, flat: torch.Tensor) -> None:
        """Write all bytes to the start of ``flat``, on the host or on the device."""
        if not self.in_file:
            flat[: self.size].copy_(self._host, non_blocking=True)
            return
        for part, source in zip(self._slices, self._sources, strict=True):
            part.of(flat).copy_(source)

    def attach(self, flat: torch.Tensor) -> None:
        """Make the block's parameters views of ``flat``."""
        for part in self._slices:
            part.parameter.data = part.of(flat)

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
        self._staging: torch.Tensor | None = None
        on_card = device.type == "cuda"
        self.copied, self.used = (torch.cuda.Event() if on_card else None for _ in range(2))

    def receive(self, slab: _Slab) -> None:
        if slab.in_file and self.copied is not None:
            self._receive_staged(slab)
        else:
            slab.copy_to(self.flat)

    def _receive_staged(self, slab: _Slab) -> None:
        """By way of pinned memory: a copy out of a file would wait for the card, and the card then for the host."""
        if self._staging is None:
            self._staging = torch.zeros(len(self.flat), dtype=torch.uint8)
            _pin(self, self._staging, self.flat.device)
        self.copied.synchronize()  # the last copy has left it
        slab.copy_to(self._staging)
        self.flat[: slab.size].copy_(self._staging[: slab.size], non_blocking=True)


class BlockStreamer:
    """Iterate to get the blocks in order, each with its parameters on the device while it is yours.

    Args:
        device: where blocks run.
        resident: how many of the first blocks stay on the device.
        offload: also give the resident blocks' device memory back on ``to_host`` (at the price of
            keeping them in host memory).
        again: whether one walk soon follows another, so that the slots stay and the first blocks are copied ahead.
    """

    def __init__(self, device: torch.device, resident: int, offload: bool = False, again: bool = True) -> None:
        self.device = device
        self.resident = resident
        self.offload = offload
        self._again = again
        self._blocks: list[tuple[nn.Module, tuple[nn.Parameter, ...]]] = []
        self._slabs: dict[int, _Slab] = {}
        self._slots: list[_Slot] = []
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._at_home = True  # whether all blocks that are kept in host memory are there

    def add(self, block: nn.Module, parameters: Iterable[nn.Parameter] | None = None) -> None:
        """Take the next block, whose parameters may be anywhere.

        Args:
            parameters: those that are meant; all, unless given.
        """
        index = len(self._blocks)
        self._blocks.append((block, tuple(block.parameters() if parameters is None else parameters)))
        if index >= self.resident or self.offload:
            self._take(index)
        else:
            for parameter in self._blocks[index][1]:
                parameter.data = parameter.data.to(self.device)

    def _take(self, index: int) -> None:
        self._slabs[index] = _Slab(self._blocks[index][1], self.device)

    def place(self, resident: int) -> None:
        """Change how many blocks stay; between ``to_host`` and ``to_device`` where all are kept in host memory.

        Raises:
            ValueError: more blocks than now would stay, and the others are not kept in host memory.
        """
        if resident > self.resident and not self.offload:
            raise ValueError("blocks that are copied in cannot become resident")
        self.free_slots()
        self.resident = resident
        for index in range(len(self._blocks)):
            if index >= resident and index not in self._slabs:
                self._take(index)

    def to_device(self) -> None:
        """Bring resident blocks to the device, if they are not there."""
        if not self._at_home:
            return
        self._at_home = False
        for index, slab in self._slabs.items():
            if index < self.resident:
                flat = torch.empty(slab.size, dtype=torch.uint8, device=self.device)
                slab.copy_to(flat)
                slab.attach(flat)

    def to_host(self) -> None:
        """Give device memory back as far as the weights are kept in host memory too."""
        self.free_slots()
        self._at_home = True
        for slab in self._slabs.values():
            slab.leave()

    def free_slots(self) -> None:
        """Give the memory of blocks that are copied in back until the next walk."""
        if self._copying is not None and self._slots:
            self._copying.synchronize()  # so that the allocator can give it away at once
        self._slots = []

    def __iter__(self) -> Iterator[nn.Module]:
        waiting = [index for index in range(len(self._blocks)) if index >= self.resident]
        if waiting and not self._slots:
            size = max(self._slabs[index].size for index in waiting)
            self._slots = [_Slot(size, self.device) for _ in range(min(SLOTS, len(waiting)))]
            if self._copying is not None:
                self._copying.wait_stream(torch.cuda.current_stream(self.device))  # the memory may just have been freed
        for number, slot in enumerate(self._slots):
            self._fetch(slot, waiting[number])
        for index, (block, _) in enumerate(self._blocks):
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
            if following < len(waiting):
                self._fetch(slot, waiting[following])
            elif self._again:
                self._fetch(slot, waiting[number % len(self._slots)])
        if not self._again:
            self.free_slots()

    def _fetch(self, slot: _Slot, index: int) -> None:
        """Start to copy a block into a slot, after what was there has been used."""
        if slot.holds == index:
            return
        slot.holds = index
        if self._copying is None:
            slot.receive(self._slabs[index])
            return
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(slot.used)
            slot.receive(self._slabs[index])
            slot.copied.record(self._copying)
        slot.flat.record_stream(self._copying)  # or its memory could be given away while it is written to
