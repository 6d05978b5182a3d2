"""One card's part of the weights of a block of which several cards each keep a part.

A block's bytes lie one after another, as in a slab, and are cut in equal parts: whatever the weights are kept in
travels as it is, by one message a block, straight to where it is computed from. Knows neither blocks nor how cards
talk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from . import slab
from .host_memory import HOST_RESERVE, available_host_memory
from .pinned import PinnedMemory
from .staging import Staging


class Sharing(Protocol):
    """Cards that each keep a part of every block.

    Attributes:
        place: of this card among them, from 0.
        count: how many they are.
    """

    @property
    def place(self) -> int: ...

    @property
    def count(self) -> int: ...

    def gather(self, whole: torch.Tensor) -> None:
        """Fill bytes of which each card has its own part, the parts in their order.

        All cards call it for the same blocks in the same order. Work on the current stream follows it.
        """


@dataclass(frozen=True)
class _Piece:
    """Bytes of one tensor, and where they go in the part."""

    source: torch.Tensor
    start: int

    def write(self, target: torch.Tensor) -> None:
        target[self.start : self.start + len(self.source)].copy_(self.source)


class Part:
    """What this card keeps of a module's parameters, and the parameters when all of it is there.

    Args:
        tensors: which may be anywhere; of those in a mapped file only this part is read. They hold nothing then.
        staging: by which the part comes to the device, and the device.
        stays: whether it is kept on the device alone; else in host memory.

    Attributes:
        size: bytes of the whole, with what rounds it up to equal parts.
        in_file: whether the part stays where it was read, since host memory is short.
    """

    def __init__(
        self, tensors: Iterable[torch.Tensor], sharing: Sharing, staging: Staging, stays: bool = False
    ) -> None:
        self._sharing = sharing
        self._device = staging.device
        self._slices, size = slab.slices(tensors)
        self._length = slab.aligned(-(-size // sharing.count))
        self.size = self._length * sharing.count
        self._start = sharing.place * self._length
        pieces = self._pieces()
        self.in_file = False
        self._sources: list[_Piece] = []
        self._host: PinnedMemory | None = None
        self._there: torch.Tensor | None = None
        if stays:
            self._there = torch.empty(self._length, dtype=torch.uint8, device=self._device)
            for piece in pieces:
                _Piece(staging.to_device(piece.source), piece.start).write(self._there)
        else:
            self._keep(pieces)
        self.leave()

    def _keep(self, pieces: list[_Piece]) -> None:
        """In pinned host memory, or where it was read if that is short."""
        free = available_host_memory()
        on_host = sum(len(piece.source) for piece in pieces if piece.source.device.type == "cpu")
        self.in_file = free is not None and free < self._length + HOST_RESERVE and on_host > self._length // 2
        if self.in_file:
            self._sources = [_Piece(piece.source.cpu(), piece.start) for piece in pieces]
            return
        self._host = PinnedMemory(self._length, self._device)
        for piece in pieces:
            piece.write(self._host.flat)

    def _pieces(self) -> list[_Piece]:
        """This card's bytes of each tensor of which it has some."""
        found = []
        for each in self._slices:
            first, last = max(each.start, self._start), min(each.stop, self._start + self._length)
            if first < last:
                source = each.bytes()[first - each.start : last - each.start]
                found.append(_Piece(source, first - self._start))
        return found

    def place(self, flat: torch.Tensor) -> torch.Tensor:
        """Where this card's bytes are among all."""
        return flat[self._start : self._start + self._length]

    def write(self, target: torch.Tensor) -> None:
        """Write this card's bytes, on the host or on the device."""
        if self._there is not None:
            target.copy_(self._there)
        elif self._host is not None:
            target.copy_(self._host.flat, non_blocking=True)
        else:
            for piece in self._sources:
                piece.write(target)

    def complete(self, flat: torch.Tensor) -> None:
        """Get the others' bytes."""
        self._sharing.gather(flat[: self.size])

    def attach(self, flat: torch.Tensor) -> None:
        """Make the tensors views of ``flat``."""
        for part in self._slices:
            part.tensor.data = part.of(flat)

    def leave(self) -> None:
        """Have the tensors hold no memory."""
        for part in self._slices:
            part.tensor.data = torch.empty(0, dtype=part.dtype)

    def stay(self) -> None:
        """Bring this card's bytes to the device, if they are not there."""
        if self._there is None:
            there = torch.empty(self._length, dtype=torch.uint8, device=self._device)
            self.write(there)
            self._there = there

    def give_back(self) -> None:
        """Free the device as far as the bytes are elsewhere too."""
        if self._host is not None or self.in_file:
            self._there = None

    def go(self) -> None:
        """Keep this card's bytes in host memory alone."""
        if self._there is not None and self._host is None and not self.in_file:
            self._keep([_Piece(self._there, 0)])
        self._there = None
