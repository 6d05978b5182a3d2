"""What one LoRA file does to one parameter: a product of two factors, or a whole difference.

Formulas: ``up @ down * alpha / rank`` (Hu et al., arXiv 2106.09685; without alpha the factor is 1), with ``mid``
between them for convolutions (LyCORIS' LoCon); ``diff`` tensors are added as they are. Both are multiplied by the
user's strength elsewhere. Knows tensors by key, and no models.
PyTorch is imported where a change is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checkpoints.files import Tensors
from .names import refused_as, split_key

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Difference:
    """A tensor that is added to a parameter, times ``alpha / rank`` where it goes with factors."""

    tensors: Tensors
    key: str
    factor: float = 1.0

    def dense(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """float32, of the parameter's shape."""
        return self.tensors[self.key].to(device).float().reshape(shape) * self.factor

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it has the parameter's shape, apart from axes of one."""
        return [n for n in self.tensors.shape(self.key) if n > 1] == [n for n in shape if n > 1]

    @property
    def description(self) -> str:
        return f"{self.key} of shape {list(self.tensors.shape(self.key))}"


@dataclass(frozen=True)
class Product:
    """``up`` [out, r, ...] times ``down`` [r, in, ...] times ``alpha / r``; ``mid`` [r, r, ...] holds a kernel.

    ``alpha`` is a tensor's key, or a number that the file's settings give, or None for the rank itself.
    """

    tensors: Tensors
    up: str
    down: str
    mid: str | None
    alpha: str | float | None
    by_root: bool = False

    @property
    def rank(self) -> int:
        return self.tensors.shape(self.down)[0]

    @property
    def factor(self) -> float:
        """``alpha / rank``, or for rank-stabilised LoRA ``alpha / sqrt(rank)``."""
        if self.alpha is None:
            return 1.0
        alpha = self.tensors[self.alpha].item() if isinstance(self.alpha, str) else self.alpha
        return alpha / (self.rank**0.5 if self.by_root else self.rank)

    def factors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """``up`` [out, r] and ``down`` [r, in], float32, ``alpha / rank`` in ``up``."""
        up, down = (self.tensors[key].to(device).float().flatten(1) for key in (self.up, self.down))
        return up * self.factor, down

    def dense(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """float32, of the parameter's shape."""
        up, down = self.factors(device)
        if self.mid is None:
            return (up @ down).reshape(shape)
        import torch

        mid = self.tensors[self.mid].to(device).float()
        return torch.einsum("op,pq...,qi->oi...", up, mid, down).reshape(shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        up, down = self.tensors.shape(self.up), self.tensors.shape(self.down)
        if len(up) < 2 or len(down) < 2 or len(shape) < 2:
            return False
        inputs, outputs = math.prod(down[1:]), math.prod(up[:1])
        if self.mid is None:
            joined = math.prod(up[1:]) == down[0]
            return joined and outputs == shape[0] and inputs == math.prod(shape[1:])
        mid = self.tensors.shape(self.mid)
        return mid[:2] == (up[1], down[0]) and (outputs, inputs, *mid[2:]) == tuple(shape)

    def is_branch(self, shape: tuple[int, ...]) -> bool:
        """Whether it can run beside a layer, as two matrix products."""
        return self.mid is None and len(shape) == 2

    @property
    def description(self) -> str:
        shapes = " and ".join(str(list(self.tensors.shape(key))) for key in (self.up, self.down))
        return f"{self.up} and {self.down} of shapes {shapes}"


Change = Difference | Product


def is_lora(tensors: Tensors) -> bool:
    """Whether these are the tensors of a LoRA or of another adapter, not of a model."""
    for key in tensors:
        split = split_key(key)
        if (split is not None and split[1] != "alpha") or refused_as(key) is not None:
            return True
    return False
