"""The fused Triton kernels behind ``kernels``: a program takes some pixels with all their channels.

Import only where Triton is installed. Chosen and explained in ``kernels``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .kernels import EPS

_NUMBERS = 4096  # that a program holds
_WARPS = 4


@triton.jit
def _norm_silu_kernel(
    x_ptr, bias_ptr, gamma_ptr, past_ptr, out_ptr,
    frame, pixels, width, frame_step, row_step, pixel_step, scale, eps,
    BIAS: tl.constexpr, FRAMES: tl.constexpr, REACH: tl.constexpr,
    DIM: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, BLOCK)
    inside = (pixel < pixels)[:, None] & (channel < DIM)[None, :]
    # x may leave out borders; everything else is dense.
    from_x = ((pixel // width).to(tl.int64) * row_step + (pixel % width) * pixel_step)[:, None] + channel[None, :]
    dense = pixel.to(tl.int64)[:, None] * DIM + channel[None, :]
    gamma = tl.load(gamma_ptr + channel, mask=channel < DIM, other=0.0).to(tl.float32) * scale
    if BIAS:
        bias = tl.load(bias_ptr + channel, mask=channel < DIM, other=0.0).to(tl.float32)
    for number in tl.static_range(REACH):
        old = tl.load(past_ptr + number * frame + dense, mask=inside, other=0.0)
        tl.store(out_ptr + dense, old, mask=inside)
        out_ptr += frame
        # Frames that stay in reach of the next piece move up, where they have been read before.
        if number >= FRAMES:
            tl.store(past_ptr + (number - FRAMES) * frame + dense, old, mask=inside)
    for number in range(FRAMES):
        x = tl.load(x_ptr + from_x, mask=inside, other=0.0).to(tl.float32)
        if BIAS:
            x += bias[None, :]
        length = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), eps)
        y = x / length[:, None] * gamma[None, :]
        y = (y * tl.sigmoid(y)).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + dense, y, mask=inside)
        behind = REACH + number - FRAMES
        tl.store(past_ptr + behind * frame + dense, y, mask=inside & (behind >= 0))
        x_ptr += frame_step
        out_ptr += frame


@triton.jit
def _add_kernel(
    h_ptr, bias_ptr, x_ptr, pixels, width, frame_step, row_step, pixel_step,
    BIAS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    number = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = (pixel < pixels)[:, None] & (channel < DIM)[None, :]
    from_x = ((pixel // width).to(tl.int64) * row_step + (pixel % width) * pixel_step)[:, None] + channel[None, :]
    dense = (number * pixels + pixel.to(tl.int64))[:, None] * DIM + channel[None, :]
    total = tl.load(h_ptr + dense, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        total += tl.load(bias_ptr + channel, mask=channel < DIM, other=0.0).to(tl.float32)[None, :]
    total += tl.load(x_ptr + number * frame_step + from_x, mask=inside, other=0.0).to(tl.float32)
    tl.store(h_ptr + dense, total.to(h_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _double_kernel(
    x_ptr, bias_ptr, out_ptr, copies, pixels, width, frame_step, row_step, pixel_step,
    BIAS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    number = tl.program_id(1)
    channel = tl.arange(0, BLOCK)
    inside = (pixel < pixels)[:, None] & (channel < DIM)[None, :]
    shift = (number % copies) * DIM
    row, column = pixel // width, pixel % width
    from_x = (row.to(tl.int64) * row_step + column * pixel_step)[:, None] + channel[None, :]
    x = tl.load(x_ptr + (number // copies).to(tl.int64) * frame_step + shift + from_x, mask=inside, other=0.0)
    if BIAS:
        bias = tl.load(bias_ptr + shift + channel, mask=channel < DIM, other=0.0).to(tl.float32)
        x = (x.to(tl.float32) + bias[None, :]).to(out_ptr.dtype.element_ty)
    corner = number.to(tl.int64) * 4 * pixels + row.to(tl.int64) * 4 * width + column * 2
    to = corner[:, None] * DIM + channel[None, :]
    tl.store(out_ptr + to, x, mask=inside)
    tl.store(out_ptr + to + DIM, x, mask=inside)
    tl.store(out_ptr + to + 2 * width * DIM, x, mask=inside)
    tl.store(out_ptr + to + 2 * width * DIM + DIM, x, mask=inside)


class TritonVaeKernels:
    """See ``kernels.VaeKernels``."""

    name = "triton"
    adds_bias = True

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def norm_silu(
        self, x: torch.Tensor, bias: torch.Tensor | None, gamma: torch.Tensor, past: torch.Tensor | None, reach: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = _channels_last(x)
        _, c, t, h, w = x.shape
        joined = _empty(x, c, reach + t, h, w)
        past = _empty(x, c, reach, h, w).zero_() if past is None else past
        block, pixels = _block(c)
        _norm_silu_kernel[(triton.cdiv(h * w, pixels),)](
            x, x if bias is None else bias, gamma, past, joined, c * h * w, h * w, w, *x.stride()[2:], c**0.5, EPS,
            BIAS=bias is not None, FRAMES=t, REACH=reach, DIM=c, BLOCK=block, PIXELS=pixels, num_warps=_WARPS,
        )  # fmt: skip
        return joined, past

    def add(self, h: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        h, x = h.contiguous(memory_format=torch.channels_last_3d), _channels_last(x)
        _, c, t, rows, w = h.shape
        block, pixels = _block(c)
        _add_kernel[(triton.cdiv(rows * w, pixels), t)](
            h, x if bias is None else bias, x, rows * w, w, *x.stride()[2:],
            BIAS=bias is not None, DIM=c, BLOCK=block, PIXELS=pixels, num_warps=_WARPS,
        )  # fmt: skip
        return h

    def double(self, x: torch.Tensor, bias: torch.Tensor | None, copies: int) -> torch.Tensor:
        x = _channels_last(x)
        _, c, t, h, w = x.shape
        c //= copies
        out = _empty(x, c, t * copies, 2 * h, 2 * w)
        block, pixels = _block(c)
        _double_kernel[(triton.cdiv(h * w, pixels), t * copies)](
            x, x if bias is None else bias, out, copies, h * w, w, *x.stride()[2:],
            BIAS=bias is not None, DIM=c, BLOCK=block, PIXELS=pixels, num_warps=_WARPS,
        )  # fmt: skip
        return out[0].transpose(0, 1)


def _empty(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.empty((1, *shape), dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """``x``, or a copy where a convolution of one frame gave channels-first memory."""
    if x.shape[0] != 1:
        raise ValueError(f"features of {x.shape[0]} videos, expected one")
    return x if x.stride(1) == 1 else x.contiguous(memory_format=torch.channels_last_3d)


def _block(channels: int) -> tuple[int, int]:
    """Channels (a power of two) and pixels of a program."""
    block = triton.next_power_of_2(channels)
    return block, max(1, _NUMBERS // block)
