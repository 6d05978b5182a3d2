"""What a transformer block does between its matrix products: norms, modulation, gates, rotation, GELU.

Two implementations of the same six functions: plain PyTorch, which always works, and fused Triton
kernels for CUDA cards, which read and write each tensor once. Both compute in float32 and round at
the end; they agree to rounding (the fused ones round less often).

What goes into 8-bit products is quantised row by row. The fused kernels do that while a row is in registers,
after rounding to the dtype of the floats that are not kept then; the plain ones leave it to the layers.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F

from ...errors import InputError, Unavailable
from ...quantisation.activations import Activation, row_slices
from ...quantisation.triton_probe import triton_kernels
from .rope import rotate


class Pointwise(Protocol):
    """x, y: [tokens, dim]. scale, shift, gate: [1, dim] or [dim], float32 or x's dtype.

    A window's tokens are hundreds of megabytes, so sums go into ``x`` and what is needed no more is overwritten.
    ``quantised`` are the 8 bits in which all layers take what is given back, None if one needs floats.
    """

    name: str
    reason: str

    def norm(
        self,
        x: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        eps: float,
        quantised: torch.dtype | None = None,
    ) -> Activation:
        """Layer norm of every token, times ``scale`` plus ``shift``."""
        ...

    def add(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> None:
        """Add ``y * gate`` to ``x``."""
        ...

    def add_norm(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        gate: torch.Tensor | None,
        scale: torch.Tensor,
        shift: torch.Tensor,
        eps: float,
        quantised: torch.dtype | None = None,
    ) -> Activation:
        """Add ``y * gate`` to ``x`` (a gate of None is 1), and give the sum's norm; ``y`` may be overwritten."""
        ...

    def norm_rotate(
        self, x: torch.Tensor, weight: torch.Tensor, rope: torch.Tensor, heads: int, eps: float
    ) -> torch.Tensor:
        """Root-mean-square norm over all heads, times ``weight``, rotated: [tokens, heads, head_dim].

        ``x`` may be overwritten.
        """
        ...

    def rotate(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """``rope.rotate`` of x [tokens, heads, head_dim], which may be overwritten."""
        ...

    def gelu(self, x: torch.Tensor, quantised: torch.dtype | None = None) -> Activation:
        """GELU by its tanh approximation; x: [tokens, hidden channels]."""
        ...


def choose_pointwise(name: str, device: torch.device) -> Pointwise:
    """The implementation called "plain" or "triton", or for "auto" the fastest that works here.

    Raises:
        InputError: Triton is asked for and does not work here; says why.
    """
    if name == "plain":
        return PlainPointwise("asked for")
    fused = triton_kernels(device)
    if not isinstance(fused, Unavailable):
        from .pointwise_triton import TritonPointwise

        return TritonPointwise("asked for" if name == "triton" else "a CUDA card with Triton")
    if name == "triton":
        raise InputError(f"--kernels triton: {fused.reason}. Use --kernels plain.")
    return PlainPointwise(fused.reason)


class PlainPointwise:
    """PyTorch's own operations."""

    name = "plain"

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def norm(
        self,
        x: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        eps: float,
        quantised: torch.dtype | None = None,
    ) -> Activation:
        if scale.dtype == x.dtype:
            return Activation(F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten(), eps))
        normed = F.layer_norm(x, x.shape[-1:], eps=eps)
        return Activation(torch.addcmul(shift, normed, scale, out=normed))

    def add(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> None:
        torch.addcmul(x, y, gate, out=x)

    def add_norm(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        gate: torch.Tensor | None,
        scale: torch.Tensor,
        shift: torch.Tensor,
        eps: float,
        quantised: torch.dtype | None = None,
    ) -> Activation:
        if gate is None:
            x.add_(y)
        else:
            self.add(x, y, gate)
        return self.norm(x, scale, shift, eps)

    def norm_rotate(
        self, x: torch.Tensor, weight: torch.Tensor, rope: torch.Tensor, heads: int, eps: float
    ) -> torch.Tensor:
        for part in row_slices(*x.shape):  # the rotation's float32 copies are large
            normed = F.rms_norm(x[part], weight.shape, weight, eps)
            x[part] = rotate(normed.unflatten(-1, (heads, -1)), rope[part]).flatten(-2)
        return x.unflatten(-1, (heads, -1))

    def rotate(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        for part in row_slices(len(x), x[0].numel()):
            x[part] = rotate(x[part], table[part])
        return x

    def gelu(self, x: torch.Tensor, quantised: torch.dtype | None = None) -> Activation:
        return Activation(F.gelu(x, approximate="tanh"))
