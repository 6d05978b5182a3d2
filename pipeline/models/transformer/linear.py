"""A linear layer whose matrix may be kept in any storage, with an optional LoRA beside it.

The parts of the matrix are parameters, so that a block's weights move as a whole whatever they are
kept in. How the product is computed is chosen when the weights are loaded (``quantisation.matmul``).
"""

from __future__ import annotations

import torch
from torch import nn

from ...quantisation.activations import Activation, floats, token_slices
from ...quantisation.matmul import Multiply, multiply_plain
from ...quantisation.storage import Packed, Parts, Storage


class Linear(nn.Module):
    """``x W^T + b``, and ``+ x down^T up^T`` where a LoRA runs beside.

    Built with an empty float matrix, so that a plain state dict fits; ``store`` replaces it.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.storage: Storage | None = None
        self.multiply: Multiply = multiply_plain
        self.parts: tuple[str, ...] = ("weight",)
        self.lora_down: nn.Parameter | None = None
        self.lora_up: nn.Parameter | None = None

    def store(
        self, packed: Packed, multiply: Multiply, branch: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> None:
        """Take a matrix as it is kept, and how to multiply by it.

        Args:
            branch: ``down`` [r, in] and ``up`` [out, r] of a LoRA that runs beside the matrix, in the dtype
                of the activations.
        """
        for name in set(self.parts) - set(packed.parts):
            delattr(self, name)
        self.storage, self.multiply, self.parts = packed.storage, multiply, tuple(packed.parts)
        for name, part in packed.parts.items():
            self.register_parameter(name, nn.Parameter(part, requires_grad=False))
        if branch is not None:
            self.lora_down, self.lora_up = (nn.Parameter(factor, requires_grad=False) for factor in branch)

    def quantised_dtype(self, count: int) -> torch.dtype | None:
        """The 8 bits in which this takes so many tokens, or None where it needs floats."""
        return self.multiply.quantised_dtype(count, self.weight.shape) if self.alone else None

    @property
    def alone(self) -> bool:
        """Whether no LoRA runs beside the matrix."""
        return self.lora_down is None

    def matrix(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix [out, in] in floats, without a LoRA that runs beside it."""
        return self.multiply.matrix(self._stored(), dtype)

    def _stored(self) -> Parts:
        return {name: getattr(self, name) for name in self.parts}

    def forward(self, x: torch.Tensor | Activation) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        y = self.multiply(x, self._stored(), self.bias)
        if self.lora_down is not None and self.lora_up is not None:
            values, added = floats(x).flatten(0, -2), y.view(-1, y.shape[-1])
            for part in token_slices(len(values)):
                added[part] += (values[part] @ self.lora_down.T) @ self.lora_up.T
        return y


def shared_quantised_dtype(count: int, *layers: Linear) -> torch.dtype | None:
    """The 8 bits in which all of these layers take so many tokens, or None where one needs floats or others."""
    kinds = {layer.quantised_dtype(count) for layer in layers}
    return kinds.pop() if len(kinds) == 1 else None
