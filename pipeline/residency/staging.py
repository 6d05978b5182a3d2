"""From a mapped file to a card by way of a little pinned memory.

PyTorch copies ordinary memory to a card by one thread, which for a mapped file also meets its pages one by one: 5 GB/s
on a machine whose cores together copy 20. Here all cores copy a piece into pinned memory while the card takes the one
before. What arrives is the same. Knows neither files nor models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .pinned import pin

_PIECES, _SIZE = 3, 2**25  # pinned pieces, and bytes of each
_WORTH_IT = 2**20  # bytes from which on a copy goes this way


@dataclass
class _Piece:
    """Pinned memory, and an event after the copy that reads it."""

    host: torch.Tensor
    read: torch.cuda.Event


class Staging:
    """Copies tensors to a device.

    Args:
        device: which may be a CPU; then nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pieces: list[_Piece] = []

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device: itself if it is there."""
        on_the_way = self.device.type == "cuda" and tensor.device.type == "cpu" and tensor.is_contiguous()
        if not on_the_way or tensor.nbytes < _WORTH_IT:
            return tensor.to(self.device)
        if not self._pieces:
            self._pieces = [self._piece() for _ in range(_PIECES)]
        there = torch.empty_like(tensor, device=self.device)
        source, target = (x.reshape(-1).view(torch.uint8) for x in (tensor, there))
        for number, start in enumerate(range(0, tensor.nbytes, _SIZE)):
            piece, part = self._pieces[number % _PIECES], source[start : start + _SIZE]
            piece.read.synchronize()
            piece.host[: len(part)].copy_(part)
            target[start : start + _SIZE].copy_(piece.host[: len(part)], non_blocking=True)
            piece.read.record(torch.cuda.current_stream(self.device))
        return there

    def free(self) -> None:
        """Give the pinned memory back."""
        self._pieces = []

    def _piece(self) -> _Piece:
        piece = _Piece(torch.zeros(_SIZE, dtype=torch.uint8), torch.cuda.Event())
        pin(piece, piece.host, self.device)
        return piece
