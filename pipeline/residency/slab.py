"""Weights in one piece of pinned host memory, from where a card reads them without a copy on the way.

They never change, so that leaving the card means forgetting the copies that are there. Knows neither blocks nor
models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from .host_memory import HOST_RESERVE, available_host_memory
from .pinned import Ahead, PinnedMemory

_ALIGNMENT = 256


@dataclass(frozen=True)
class Slice:
    """A tensor's place among bytes that lie one after another."""

    tensor: torch.Tensor
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    start: int
    stop: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        return flat[self.start : self.stop].view(self.dtype).as_strided(self.shape, self.stride)

    def bytes(self) -> torch.Tensor:
        """The tensor's bytes as they lie in one piece, in its own memory if they lie so there."""
        tensor = self.tensor.data
        if tensor.stride() == self.stride:
            return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
        flat = torch.empty(tensor.nbytes, dtype=torch.uint8, device=tensor.device)
        flat.view(self.dtype).as_strided(self.shape, self.stride).copy_(tensor)
        return flat


def aligned(size: int) -> int:
    """So many bytes, rounded up to where a tensor may begin."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def slices(tensors: Iterable[torch.Tensor]) -> tuple[list[Slice], int]:
    """The places of tensors that lie one after another, and the bytes that they take so."""
    found, size = [], 0
    for tensor in tensors:
        layout = tensor.dtype, tensor.shape, torch.empty_like(tensor, device="meta").stride()
        found.append(Slice(tensor, *layout, size, size + tensor.nbytes))
        size += aligned(tensor.nbytes)
    return found, size


class Slab:
    """Parameters and buffers of a module in one piece of host memory; they themselves are where they were put last.

    Made, they are in host memory.

    Args:
        tensors: which may be anywhere. Those in host memory are moved one by one.
        device: where they are copied to.
        ahead: what makes the memory, where several slabs follow one another.

    Attributes:
        size: bytes that they take in one piece.
        in_file: whether they stay where they were read, mostly in a mapped file, since host memory is short.
    """

    def __init__(self, tensors: Iterable[torch.Tensor], device: torch.device, ahead: Ahead | None = None) -> None:
        self._device = device
        self._slices, self.size = slices(tensors)
        read = sum(part.tensor.nbytes for part in self._slices if part.tensor.device.type == "cpu")
        free = available_host_memory()
        self.in_file = free is not None and free < self.size + HOST_RESERVE and read > self.size // 2
        self._host: PinnedMemory | None = None
        if self.in_file:
            self._sources = [part.tensor.data.cpu() for part in self._slices]
        else:
            self._host = PinnedMemory(self.size, device) if ahead is None else ahead.take(self.size)
            self._sources = [part.of(self._host.flat) for part in self._slices]
            for part, source in zip(self._slices, self._sources, strict=True):
                part.tensor.data = source.copy_(part.tensor.data)  # one by one, so that no other is held twice
        self.to_host()

    def place(self, flat: torch.Tensor) -> torch.Tensor:
        """Where the bytes are in room for this slab or a larger one."""
        return flat[: self.size]

    def write(self, target: torch.Tensor) -> None:
        """Write all bytes, on the host or on the device."""
        if self._host is not None:
            target.copy_(self._host.flat, non_blocking=True)
            return
        for part, source in zip(self._slices, self._sources, strict=True):
            part.of(target).copy_(source)

    def complete(self, flat: torch.Tensor) -> None:
        """Get what others keep: nothing."""

    def attach(self, flat: torch.Tensor) -> None:
        """Make the tensors views of ``flat``."""
        for part in self._slices:
            part.tensor.data = part.of(flat)

    def leave(self) -> None:
        """Have the tensors hold no memory."""
        for part in self._slices:
            part.tensor.data = torch.empty(0, dtype=part.dtype)

    def stay(self) -> None:
        """Make the tensors views of a copy in one piece on the device."""
        flat = torch.empty(self.size, dtype=torch.uint8, device=self._device)
        self.write(flat)
        self.attach(flat)

    def give_back(self) -> None:
        """Free the device."""
        self.leave()

    def to_device(self, device: torch.device) -> None:
        """Make each tensor a copy of its own there, which finds room where one for all would not."""
        for part, source in zip(self._slices, self._sources, strict=True):
            part.tensor.data = torch.empty_like(source, device=device).copy_(source, non_blocking=True)

    def to_host(self) -> None:
        """Make the tensors what they are in host memory. Nothing is copied back."""
        for part, source in zip(self._slices, self._sources, strict=True):
            part.tensor.data = source


class HostWeights:
    """Moves a module's weights between host memory and a card, as ``Module.to`` would with weights that may change.

    From the first move on they stay in host memory, also while they are on the card.
    """

    def __init__(self) -> None:
        self._slab: Slab | None = None

    def move(self, modules: Iterable[nn.Module], device: torch.device | str) -> None:
        """Have parameters and buffers of the modules, the same each time, on the device."""
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        here, target = tensors[0].device, torch.device(device)
        if here == target or here.type == target.type and target.index is None:
            return
        if self._slab is None:
            self._slab = Slab(tensors, here if target.type == "cpu" else target)
        if target.type == "cpu":
            self._slab.to_host()
        else:
            self._slab.to_device(target)
