"""What a way of keeping a weight matrix has to say of itself, and one weight that is kept so.

A ``Storage`` reads its parts back and says how a LoRA is fused into them; one that cannot say so does
not construct (the idea of LTX-2's fuse rule), so a LoRA cannot be lost on the way to any format. Knows
no files and no models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..facts.storages import FLOATS, StorageFacts

Parts = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Requantise:
    """A LoRA is fused by reading the matrix back, adding in float32 and storing it again with fresh scales.

    Attributes:
        pack: stores a float32 matrix [out, in], on the device that it is on.
    """

    pack: Callable[[torch.Tensor], Packed]


@dataclass(frozen=True)
class SideBranch:
    """The format cannot be written again, so a LoRA runs beside the layer.

    Attributes:
        reason: why, for people.
    """

    reason: str


@dataclass(frozen=True)
class Storage:
    """One way of keeping a weight matrix [out, in].

    Attributes:
        facts: what is known of it without its code.
        unpack: parts to the matrix in float32, on the device that they are on.
        fuse: how a LoRA gets into it.
    """

    facts: StorageFacts
    unpack: Callable[[Parts], torch.Tensor]
    fuse: Requantise | SideBranch

    def __post_init__(self) -> None:
        if not isinstance(self.fuse, Requantise | SideBranch):
            raise TypeError(f"storage {self.facts.name}: say how a LoRA is fused (Requantise or SideBranch)")

    @property
    def name(self) -> str:
        return self.facts.name


@dataclass(frozen=True)
class Packed:
    """A weight as it is kept.

    Attributes:
        parts: tensors by name: ``weight`` (fp8, int8, plain floats, or a GGUF tensor's bytes [out, row bytes])
            and, where the storage has them, ``scale`` (float32 [out]).
        shape: of the matrix.
    """

    storage: Storage
    parts: Parts
    shape: tuple[int, ...]

    def unpacked(self) -> torch.Tensor:
        """The matrix in float32 (plain floats keep their dtype)."""
        return self.storage.unpack(self.parts)

    def to(self, device: torch.device | str) -> Packed:
        """The same on a device."""
        return Packed(self.storage, {name: part.to(device) for name, part in self.parts.items()}, self.shape)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())


def _plain(facts: StorageFacts, dtype: torch.dtype) -> Storage:
    def pack(matrix: torch.Tensor) -> Packed:
        return Packed(PLAIN[dtype], {"weight": matrix.to(dtype)}, tuple(matrix.shape))

    return Storage(facts, lambda parts: parts["weight"], Requantise(pack))


PLAIN = {
    dtype: _plain(FLOATS[str(dtype).removeprefix("torch.")], dtype)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}
