"""The fused Triton kernels behind ``folding``. Import only where Triton is installed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import folding

_COLUMNS = 128  # of scores that a program weighs: whole heads
_PIXELS = 64
_CHANNELS = 256  # of a matrix that a program folds into _FRAMES frames
_FRAMES = 7


@triton.jit
def _fold_kernel(
    kv_ptr, matrix_ptr, out_ptr, frames, channels, kv_frame, kv_token, kv_head, matrix_width, matrix_channel,
    HEADS: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr, FRAMES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    channel = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    inside = (channel < channels)[None, :]
    width, token = tl.arange(0, WIDTH), tl.arange(0, TOKENS)
    place = (head * WIDTH + width).to(tl.int64)[:, None] * matrix_width + channel[None, :] * matrix_channel
    matrix = tl.load(matrix_ptr + place, mask=inside, other=0.0)
    for index in range(FRAMES):  # the matrix is read once for all of them
        frame = (tl.program_id(2) * FRAMES + index).to(tl.int64)
        if frame < frames:
            kv = tl.load(kv_ptr + frame * kv_frame + token[:, None] * kv_token + head * kv_head + width[None, :])
            out = tl.dot(kv, matrix).to(out_ptr.dtype.element_ty)
            row = (frame * HEADS + head) * TOKENS + token
            tl.store(out_ptr + row[:, None] * channels + channel[None, :], out, mask=inside)


@triton.jit
def _weigh_kernel(
    scores_ptr, offset_ptr, out_ptr, pixels, columns, scale,
    TOKENS: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = (frame * pixels + pixel)[:, None] * columns + column[None, :]
    inside = (pixel < pixels)[:, None] & (column < columns)[None, :]
    scores = tl.load(scores_ptr + place, mask=inside, other=0.0)
    scores += tl.load(offset_ptr + frame * columns + column, mask=column < columns, other=0.0)[None, :]
    scores = tl.reshape(scores * scale, (PIXELS, BLOCK // TOKENS, TOKENS))
    weights = tl.exp(scores - tl.max(scores, 2)[:, :, None])
    weights /= tl.sum(weights, 2)[:, :, None]
    tl.store(out_ptr + place, tl.reshape(weights, (PIXELS, BLOCK)).to(out_ptr.dtype.element_ty), mask=inside)


def fold(kv: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """See ``folding.Folding.fold``."""
    (frames, tokens, heads, width), channels = kv.shape, matrix.shape[-1]
    if not _suits(tokens) or not _suits(width):
        return folding.fold(kv, matrix)
    out = kv.new_empty(frames, heads * tokens, channels)
    _fold_kernel[(triton.cdiv(channels, _CHANNELS), heads, triton.cdiv(frames, _FRAMES))](
        kv, matrix, out, frames, channels, *kv.stride()[:3], *matrix.stride()[1:],
        HEADS=heads, TOKENS=tokens, WIDTH=width, FRAMES=_FRAMES, BLOCK=_CHANNELS, num_warps=4,
    )  # fmt: skip
    return out


def weigh(scores: torch.Tensor, offset: torch.Tensor, scale: float, heads: int, dtype: torch.dtype) -> torch.Tensor:
    """See ``folding.Folding.weigh``."""
    frames, pixels, columns = scores.shape
    tokens = columns // heads
    if not _suits(tokens):
        return folding.weigh(scores, offset, scale, heads, dtype)
    out = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    _weigh_kernel[(triton.cdiv(pixels, _PIXELS), triton.cdiv(columns, _COLUMNS), frames)](
        scores, offset, out, pixels, columns, scale, TOKENS=tokens, PIXELS=_PIXELS, BLOCK=_COLUMNS, num_warps=4
    )
    return out


def _suits(size: int) -> bool:
    """Whether kernels take so many tokens of a frame, or channels of a head: a power of two, not too small."""
    return 16 <= size <= _COLUMNS and size & (size - 1) == 0
