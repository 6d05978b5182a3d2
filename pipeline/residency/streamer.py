"""Where the transformer's blocks live, and bringing each to the device when its turn comes.

The first ``resident`` blocks stay on the device; the others wait in pinned host memory and are copied into two
device slots in turn. Copies have a stream of their own and run while the block before computes; after the last
block the first ones are copied again for the next walk. Events order the two streams, and nothing waits on the
host. Where host memory is short, blocks are read from their memory-mapped file instead, at every walk. Of several
cards each may keep a part of every block: then all blocks come through the slots, gathered from all cards, and
``resident`` of them keep this card's part on the device. Residency never changes a result. Knows nothing about what
a block computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from ..facts.sizes import SLOTS
from .part import Part, Sharing
from .pinned import Ahead, pin
from .slab import Slab
from .staging import Staging

ALL = 2**31  # more blocks than there are


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

    def receive(self, kept: Slab | Part) -> None:
        place = kept.place(self.flat)
        if kept.in_file and self.copied is not None:
            self._receive_staged(kept, place, self.copied)
        else:
            kept.write(place)
        kept.complete(self.flat)

    def _receive_staged(self, kept: Slab | Part, place: torch.Tensor, copied: torch.cuda.Event) -> None:
        """By way of pinned memory: a copy out of a file would wait for the card, and the card then for the host."""
        if self._staging is None:
            self._staging = torch.zeros(len(self.flat), dtype=torch.uint8)
            pin(self, self._staging, self.flat.device)
        copied.synchronize()  # the last copy has left it
        staged = self._staging[: len(place)]
        kept.write(staged)
        place.copy_(staged, non_blocking=True)


class BlockStreamer:
    """Iterate to get the blocks in order, each with its parameters on the device while it is yours.

    Args:
        device: where blocks run.
        resident: how many of the first blocks stay on the device.
        offload: also give the resident blocks' device memory back on ``to_host`` (at the price of
            keeping them in host memory).
        again: whether one walk soon follows another, so that the slots stay and the first blocks are copied ahead.
        staging: by which blocks that stay reach the device; one of its own unless given.
        sharing: the cards that keep a part of every block each; None: this one keeps all.
    """

    def __init__(
        self,
        device: torch.device,
        resident: int,
        offload: bool = False,
        again: bool = True,
        staging: Staging | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.device = device
        self.resident = resident
        self._sharing = sharing
        self.offload = offload
        self._again = again
        self._staging = Staging(device) if staging is None else staging
        self._ahead = Ahead(device)
        self._blocks: list[tuple[nn.Module, tuple[nn.Parameter, ...]]] = []
        self._slabs: dict[int, Slab | Part] = {}
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
        if index >= self.resident or self.offload or self._sharing is not None:
            self._take(index)
        else:
            for parameter in self._blocks[index][1]:
                parameter.data = self._staging.to_device(parameter.data)

    def _take(self, index: int) -> None:
        parameters = self._blocks[index][1]
        if self._sharing is None:
            self._slabs[index] = Slab(parameters, self.device, self._ahead)
            self._slabs[index].leave()
        else:
            stays = index < self.resident and not self.offload
            self._slabs[index] = Part(parameters, self._sharing, self._staging, stays)

    def end_loading(self) -> None:
        """All blocks are there: give back what helped to take them."""
        self._staging.free()
        self._ahead.free()

    def place(self, resident: int) -> None:
        """Change how many blocks stay; between ``to_host`` and ``to_device`` where all are kept in host memory.

        Raises:
            ValueError: more blocks than now would stay, and the others are not kept in host memory.
        """
        if resident > self.resident and not self.offload:
            raise ValueError("blocks that are copied in cannot become resident")
        self.free_slots()
        self.resident = resident
        for index in range(resident, len(self._blocks)):
            kept = self._slabs.get(index)
            if kept is None:
                self._take(index)
            elif isinstance(kept, Part):
                kept.go()
        self._ahead.free()

    def to_device(self) -> None:
        """Bring resident blocks to the device, if they are not there."""
        if not self._at_home:
            return
        self._at_home = False
        for index, slab in self._slabs.items():
            if index < self.resident:
                slab.stay()

    def to_host(self) -> None:
        """Give device memory back as far as the weights are kept in host memory too."""
        self.free_slots()
        self._at_home = True
        for slab in self._slabs.values():
            slab.give_back()

    def free_slots(self) -> None:
        """Give the memory of blocks that are copied in back until the next walk."""
        if self._copying is not None and self._slots:
            self._copying.synchronize()  # so that the allocator can give it away at once
        self._slots = []

    def __iter__(self) -> Iterator[nn.Module]:
        first = self.resident if self._sharing is None else 0  # of those that come through the slots
        waiting = list(range(first, len(self._blocks)))
        if waiting and not self._slots:
            size = max(self._slabs[index].size for index in waiting)
            self._slots = [_Slot(size, self.device) for _ in range(min(SLOTS, len(waiting)))]
            if self._copying is not None:
                self._copying.wait_stream(torch.cuda.current_stream(self.device))  # the memory may just have been freed
        for number, slot in enumerate(self._slots):
            self._fetch(slot, waiting[number])
        for index, (block, _) in enumerate(self._blocks):
            if index < first:
                yield block
                continue
            number = index - first
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
        if self._copying is None or slot.copied is None:
            slot.receive(self._slabs[index])
            return
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(slot.used)
            slot.receive(self._slabs[index])
            slot.copied.record(self._copying)
        slot.flat.record_stream(self._copying)  # or its memory could be given away while it is written to
