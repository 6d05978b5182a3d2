"""The fused Triton kernels behind ``pointwise``: one program a token, everything in float32 registers.

Import only where Triton is installed. Chosen, probed and explained in ``pointwise``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ...quantisation.activations import Activation, Quantised
from ...quantisation.matmul_triton import store_row


@triton.jit
def _add_norm_kernel(
    x_ptr, y_ptr, gate_ptr, scale_ptr, shift_ptr, out_ptr, row_scale_ptr, dim, eps,
    ADD: tl.constexpr, GATE: tl.constexpr, NORM: tl.constexpr, QUANTISED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = token * dim
    column = tl.arange(0, BLOCK)
    inside = column < dim
    x = tl.load(x_ptr + row + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        y = tl.load(y_ptr + row + column, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            y *= tl.load(gate_ptr + column, mask=inside, other=0.0).to(tl.float32)
        # The norm sees what the next block will see: the rounded sum.
        total = (x + y).to(x_ptr.dtype.element_ty)
        tl.store(x_ptr + row + column, total, mask=inside)
        x = total.to(tl.float32)
    if NORM:
        mean = tl.sum(x, axis=0) / dim
        centred = tl.where(inside, x - mean, 0.0)
        variance = tl.sum(centred * centred, axis=0) / dim
        scale = tl.load(scale_ptr + column, mask=inside, other=0.0).to(tl.float32)
        shift = tl.load(shift_ptr + column, mask=inside, other=0.0).to(tl.float32)
        out = (centred * tl.rsqrt(variance + eps) * scale + shift).to(x_ptr.dtype.element_ty)
        if QUANTISED:
            store_row(out.to(tl.float32), token, column, dim, out_ptr, row_scale_ptr)
        else:
            tl.store(out_ptr + row + column, out, mask=inside)


@triton.jit
def _gelu_quantised_kernel(x_ptr, values_ptr, row_scale_ptr, channels, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + token * channels + column, mask=column < channels, other=0.0).to(tl.float32)
    # (1 + tanh(u)) / 2 is the sigmoid of 2u; 1.5957... is 2 sqrt(2 / pi).
    out = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    out = out.to(x_ptr.dtype.element_ty).to(tl.float32)
    store_row(out, token, column, channels, values_ptr, row_scale_ptr)


@triton.jit
def _norm_rotate_kernel(
    x_ptr, weight_ptr, rope_ptr, out_ptr, dim, head_dim, eps, NORM: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < dim
    x = tl.load(x_ptr + token * dim + column, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        x *= tl.rsqrt(tl.sum(x * x, axis=0) / dim + eps)
        x *= tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    # The table has a cosine and a sine for each pair of channels of a head.
    table = tl.load(rope_ptr + token * head_dim + column % head_dim, mask=inside, other=0.0)
    real, imaginary = tl.split(tl.reshape(x, (BLOCK // 2, 2)))
    cosine, sine = tl.split(tl.reshape(table, (BLOCK // 2, 2)))
    out = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    out = tl.reshape(out, (BLOCK,)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + token * dim + column, out, mask=inside)


@triton.jit
def _scaled_cast_kernel(x_ptr, scale_ptr, out_ptr, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    x = tl.load(x_ptr + place, mask=inside).to(tl.float32) * tl.load(scale_ptr)
    tl.store(out_ptr + place, x.to(out_ptr.dtype.element_ty), mask=inside)


def scaled_cast(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """See ``fp8_attention.scaled_cast``; ``x`` is contiguous."""
    out = torch.empty_like(x, dtype=dtype)
    block = 4096
    _scaled_cast_kernel[(triton.cdiv(x.numel(), block),)](x, scale, out, x.numel(), BLOCK=block, num_warps=8)
    return out


class TritonPointwise:
    """See ``pointwise.Pointwise``."""

    name = "triton"

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
        return _norm(x, None, None, scale, shift, eps, quantised)

    def add(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> None:
        _launch(x, y, gate)

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
        return _norm(x, y, gate, scale, shift, eps, quantised)

    def norm_rotate(
        self, x: torch.Tensor, weight: torch.Tensor, rope: torch.Tensor, heads: int, eps: float
    ) -> torch.Tensor:
        return _rotate(x, weight, rope, heads, eps).unflatten(-1, (heads, -1))

    def rotate(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return _rotate(x.flatten(1), None, table, x.shape[1], 0.0).view_as(x)

    def gelu(self, x: torch.Tensor, quantised: torch.dtype | None = None) -> Activation:
        if quantised is None:
            return Activation(F.gelu(x, approximate="tanh"))
        (tokens, channels), made = x.shape, Quantised.like(x, quantised)
        block = triton.next_power_of_2(channels)
        _gelu_quantised_kernel[(tokens,)](x, *made, channels, BLOCK=block, num_warps=_warps(block, 16))
        return Activation.of_quantised(made, x.dtype)


def _rotate(x: torch.Tensor, weight: torch.Tensor | None, rope: torch.Tensor, heads: int, eps: float) -> torch.Tensor:
    """x [tokens, dim] rotated in place, normed before unless ``weight`` is None."""
    tokens, dim = x.shape
    block = triton.next_power_of_2(dim)
    # In place: a program's row is in its registers, all of it, before the first of it is written.
    _norm_rotate_kernel[(tokens,)](
        x, weight, torch.view_as_real(rope), x, dim, dim // heads, eps,
        NORM=weight is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return x


def _norm(
    x: torch.Tensor,
    y: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    quantised: torch.dtype | None,
) -> Activation:
    """The norm of ``x``, to which ``y`` is added before unless it is None."""
    if quantised is not None:
        made = Quantised.like(x, quantised)
        _launch(x, y, gate, (scale, shift, *made), eps)
        return Activation.of_quantised(made, x.dtype)
    out = torch.empty_like(x) if y is None else y
    _launch(x, y, gate, (scale, shift, out), eps)
    return Activation(out)


def _launch(
    x: torch.Tensor,
    y: torch.Tensor | None,
    gate: torch.Tensor | None,
    norm: tuple[torch.Tensor, ...] = (),
    eps: float = 0.0,
) -> None:
    """Add ``y * gate`` to ``x``, if there is one, and compute the norm, if one is wanted.

    Args:
        norm: its scale, shift and result; the scales of the result's rows, if these are 8 bits.
    """
    tokens, dim = x.shape
    block = triton.next_power_of_2(dim)
    pointers = [x if given is None else given for given in (y, gate, *norm, *(None,) * (4 - len(norm)))]
    _add_norm_kernel[(tokens,)](
        x, *pointers, dim, eps,
        ADD=y is not None, GATE=gate is not None, NORM=len(norm) > 0, QUANTISED=len(norm) == 4, BLOCK=block,
        num_warps=_warps(block),
    )  # fmt: skip


def _warps(block: int, most: int = 8) -> int:
    """Warps for a row; eight were the fastest for 5120 channels on an H200."""
    return max(1, min(most, block // 512))
