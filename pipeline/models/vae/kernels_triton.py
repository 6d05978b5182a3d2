"""The Triton kernels behind ``kernels``: a program takes some pixels with all their channels.

Import only where Triton is installed. Chosen and explained in ``kernels``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from .kernels import EPS, convolve

_NUMBERS = 4096  # that a program holds
_WARPS = 4
_FINEST = (96, 96, 3, 3, 3)  # the weight that is most of a decoding's arithmetic
_QUERIES = 8192  # that attend at a time: at most half a GB of scores up to 1280x720
# What differs from piece to piece and tile to tile, and would have Triton compile each kernel for each: 5 s of a start.
_OF_A_PIECE = ("frames", "pixels", "height", "width", "across", "copies")
_PATCH = 4, 32  # rows and columns of pixels of a program that convolves


@triton.jit(do_not_specialize=_OF_A_PIECE)
def _norm_silu_kernel(
    x_ptr, bias_ptr, gamma_ptr, past_ptr, out_ptr,
    frames, frame, pixels, width, frame_step, row_step, pixel_step, scale, eps,
    BIAS: tl.constexpr, REACH: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
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
    frame, frame_step = frame.to(tl.int64), frame_step.to(tl.int64)
    for old in tl.static_range(REACH):
        y = tl.load(past_ptr + old * frame + dense, mask=inside, other=0.0)
        tl.store(out_ptr + old * frame + dense, y, mask=inside)
        # Frames that stay in reach of the next piece move up, where they have been read before.
        if old >= frames:
            tl.store(past_ptr + (old - frames) * frame + dense, y, mask=inside)
    new = 0
    while new < frames:  # a range of it is beyond Triton's interpreter
        x = tl.load(x_ptr + new * frame_step + from_x, mask=inside, other=0.0).to(tl.float32)
        if BIAS:
            x += bias[None, :]
        length = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), eps)
        y = x / length[:, None] * gamma[None, :]
        y = (y * tl.sigmoid(y)).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + (REACH + new) * frame + dense, y, mask=inside)
        behind = REACH + new - frames
        tl.store(past_ptr + behind * frame + dense, y, mask=inside & (behind >= 0))
        new += 1


@triton.jit(do_not_specialize=_OF_A_PIECE)
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


@triton.jit(do_not_specialize=_OF_A_PIECE)
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


@triton.jit(do_not_specialize=_OF_A_PIECE)
def _convolve_kernel(
    x_ptr, weight_ptr, out_ptr, height, width, across, frame,
    MOST: tl.constexpr, REST: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    # A matrix product whose rows are ROWS x COLUMNS pixels, read once for each of the 9 * TAPS taps from where they
    # lie. Its 96 channels are 64 + 32 on both sides, since Triton's products have powers of two.
    DIM: tl.constexpr = MOST + REST
    number = tl.arange(0, ROWS * COLUMNS)
    y = (tl.program_id(0) // across) * ROWS + number // COLUMNS
    x = (tl.program_id(0) % across) * COLUMNS + number % COLUMNS
    t = tl.program_id(1).to(tl.int64)
    pixel = (y * width + x) * DIM
    most, rest = tl.arange(0, MOST), MOST + tl.arange(0, REST)
    in_row = 9 * TAPS * DIM  # of weight [DIM, TAPS, 3, 3, DIM]
    to_most = tl.zeros((ROWS * COLUMNS, MOST), tl.float32)
    to_rest = tl.zeros((ROWS * COLUMNS, REST), tl.float32)
    for tap in range(9 * TAPS):
        dy, dx = (tap // 3) % 3 - 1, tap % 3 - 1
        inside = ((y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width))[:, None]
        seen = (x_ptr + (t + tap // 9) * frame + pixel + (dy * width + dx) * DIM)[:, None]
        x_most = tl.load(seen + most[None, :], mask=inside, other=0.0)
        x_rest = tl.load(seen + rest[None, :], mask=inside, other=0.0)
        weight = weight_ptr + tap * DIM
        to_most = tl.dot(x_most, tl.load(weight + most[None, :] * in_row + most[:, None]), to_most)
        to_most = tl.dot(x_rest, tl.load(weight + most[None, :] * in_row + rest[:, None]), to_most)
        to_rest = tl.dot(x_most, tl.load(weight + rest[None, :] * in_row + most[:, None]), to_rest)
        to_rest = tl.dot(x_rest, tl.load(weight + rest[None, :] * in_row + rest[:, None]), to_rest)
    out = (out_ptr + t * frame + pixel)[:, None]
    inside = ((y < height) & (x < width))[:, None]
    tl.store(out + most[None, :], to_most.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(out + rest[None, :], to_rest.to(out_ptr.dtype.element_ty), mask=inside)


class TritonVaeKernels:
    """See ``kernels.VaeKernels``.

    Args:
        own_convolution: whether the 3x3x3 convolutions of the finest features are Triton's. On an H200 they reach 440
            TFLOP/s, cuDNN's 290, which work with instructions of older cards; other cards were not measured.
        wide_attention: whether ``attend_wide`` works here.
    """

    name = "triton"
    adds_bias = True

    def __init__(self, reason: str, own_convolution: bool = False, wide_attention: bool = False) -> None:
        self.reason = reason
        self._own_convolution = own_convolution
        self._wide_attention = wide_attention

    def norm_silu(
        self, x: torch.Tensor, bias: torch.Tensor | None, gamma: torch.Tensor, past: torch.Tensor | None, reach: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = _channels_last(x)
        _, c, t, h, w = x.shape
        joined = _empty(x, c, reach + t, h, w)
        past = _empty(x, c, reach, h, w).zero_() if past is None else past
        block, pixels = _block(c)
        _norm_silu_kernel[(triton.cdiv(h * w, pixels),)](
            x, x if bias is None else bias, gamma, past, joined, t, c * h * w, h * w, w, *x.stride()[2:], c**0.5, EPS,
            BIAS=bias is not None, REACH=reach, DIM=c, BLOCK=block, PIXELS=pixels, num_warps=_WARPS,
        )  # fmt: skip
        return joined, past

    def convolve(
        self, joined: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, time_stride: int
    ) -> torch.Tensor:
        own = self._own_convolution and bias is None and weight.shape == _FINEST and joined.itemsize == 2
        return convolve_finest(joined, weight) if own else convolve(joined, weight, bias, time_stride)

    def add(self, h: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        h, x = h.contiguous(memory_format=torch.channels_last_3d), _channels_last(x)
        _, c, t, rows, w = h.shape
        block, pixels = _block(c)
        _add_kernel[(triton.cdiv(rows * w, pixels), t)](
            h, x if bias is None else bias, x, rows * w, w, *x.stride()[2:],
            BIAS=bias is not None, DIM=c, BLOCK=block, PIXELS=pixels, num_warps=_WARPS,
        )  # fmt: skip
        return h

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.itemsize == 2 and self._wide_attention:
            return attend_wide(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

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


def convolve_finest(joined: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``kernels.convolve`` where 96 channels become 96.

    Args:
        joined: [1, 96, 2 + t, h, w], float16 or bfloat16.
        weight: [96, 96, 3, 3, 3], of the same type.

    Returns:
        [1, 96, t, h, w].
    """
    joined = joined.contiguous(memory_format=torch.channels_last_3d)
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    _, c, t, h, w = joined.shape
    out = _empty(joined, c, t - 2, h, w)
    rows, columns = _PATCH
    across = triton.cdiv(w, columns)
    _convolve_kernel[(across * triton.cdiv(h, rows), t - 2)](
        joined, weight, out, h, w, across, h * w * c,
        MOST=64, REST=32, TAPS=3, ROWS=rows, COLUMNS=columns, num_warps=8, num_stages=2,
    )  # fmt: skip
    return out


def attend_wide(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """``kernels.attend`` by products of 16 bits with scores in float32, some thousand queries at a time.

    The one head has 384 channels, more than PyTorch's fused kernels take: its own way is float32 without tensor cores,
    5 times as slow.
    """
    attended = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for start in range(0, q.shape[2], _QUERIES):
        rows = slice(start, start + _QUERIES)
        scores = torch.bmm(q[:, 0, rows], k[:, 0].mT, out_dtype=torch.float32).mul_(q.shape[-1] ** -0.5)
        torch.bmm(scores.softmax(-1).to(v.dtype), v[:, 0], out=attended[:, 0, rows])
    return attended


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
