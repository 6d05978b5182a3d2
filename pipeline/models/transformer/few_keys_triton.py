"""The fused Triton kernels behind ``few_keys``. Import only where Triton is installed."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from . import few_keys

_COLUMNS = 128  # of scores that a program weighs: whole heads
_PIXELS = 64
_CHANNELS = 256  # of a matrix that a program folds into _FRAMES frames
_FRAMES = 7
_FEW = 320  # keys: with more, cuDNN's two attentions are faster on an H200


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


@triton.jit
def _attend_steps(
    q, k_ptr, v_ptr, first, keys, token, scale, last_counts, total, largest, weight,
    STEPS: tl.constexpr, STEP: tl.constexpr, MASKED: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    channel = tl.arange(0, WIDTH)
    for index in range(STEPS):
        key = first + index * STEP + tl.arange(0, STEP)
        inside = key < keys
        k, v = k_ptr + key[None, :] * token + channel[:, None], v_ptr + key[:, None] * token + channel[None, :]
        if MASKED:
            values = tl.load(v, mask=inside[:, None], other=0.0)
            scores = tl.dot(q, tl.load(k, mask=inside[None, :], other=0.0)) * scale
            scores += tl.where(key == keys - 1, last_counts, 0.0)[None, :]
            scores = tl.where(inside[None, :], scores, -float("inf"))
        else:
            values = tl.load(v)
            scores = tl.dot(q, tl.load(k)) * scale
        larger = tl.maximum(largest, tl.max(scores, 1))
        p = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        weight = weight * shrink + tl.sum(p, 1)
        total = tl.dot(p.to(values.dtype), values, total * shrink[:, None])
        largest = larger
    return total, largest, weight


@triton.jit
def _attend(
    q, k_ptr, v_ptr, keys, token, scale, last_counts,
    LARGE: tl.constexpr, SMALL: tl.constexpr, PIXELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((PIXELS, WIDTH), tl.float32)
    largest, weight = tl.full((PIXELS,), -float("inf"), tl.float32), tl.zeros((PIXELS,), tl.float32)
    total, largest, weight = _attend_steps(
        q, k_ptr, v_ptr, 0, keys, token, scale, last_counts, total, largest, weight, LARGE, 64, False, WIDTH
    )
    total, largest, weight = _attend_steps(
        q, k_ptr, v_ptr, LARGE * 64, keys, token, scale, last_counts, total, largest, weight, SMALL, 16, True, WIDTH
    )
    return total / weight[:, None]


@triton.jit
def _sum_of_two_kernel(
    q_ptr, first_ptr, second_ptr, out_ptr, tokens, first_keys, second_keys, scale, last_counts,
    LARGE_1: tl.constexpr, SMALL_1: tl.constexpr, LARGE_2: tl.constexpr, SMALL_2: tl.constexpr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) * WIDTH
    row = (tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)).to(tl.int64)
    place = row[:, None] * CHANNELS + head + tl.arange(0, WIDTH)[None, :]
    inside = (row < tokens)[:, None]
    q = tl.load(q_ptr + place, mask=inside, other=0.0)
    k, v = first_ptr + head, first_ptr + first_keys * CHANNELS + head
    total = _attend(q, k, v, first_keys, CHANNELS, scale, last_counts, LARGE_1, SMALL_1, PIXELS, WIDTH)
    k, v = second_ptr + head, second_ptr + second_keys * CHANNELS + head
    total += _attend(q, k, v, second_keys, CHANNELS, scale, 0.0, LARGE_2, SMALL_2, PIXELS, WIDTH)
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=inside)


def fold(kv: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """See ``few_keys.FewKeys.fold``."""
    (frames, tokens, heads, width), channels = kv.shape, matrix.shape[-1]
    if not _suits(tokens, most=32) or not _suits(width):
        return few_keys.fold(kv, matrix)
    out = kv.new_empty(frames, heads * tokens, channels)
    _fold_kernel[(triton.cdiv(channels, _CHANNELS), heads, triton.cdiv(frames, _FRAMES))](
        kv, matrix, out, frames, channels, *kv.stride()[:3], *matrix.stride()[1:],
        HEADS=heads, TOKENS=tokens, WIDTH=width, FRAMES=_FRAMES, BLOCK=_CHANNELS, num_warps=4,
    )  # fmt: skip
    return out


def weigh(scores: torch.Tensor, offset: torch.Tensor, scale: float, heads: int, dtype: torch.dtype) -> torch.Tensor:
    """See ``few_keys.FewKeys.weigh``."""
    frames, pixels, columns = scores.shape
    tokens = columns // heads
    if not _suits(tokens):
        return few_keys.weigh(scores, offset, scale, heads, dtype)
    out = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    _weigh_kernel[(triton.cdiv(pixels, _PIXELS), triton.cdiv(columns, _COLUMNS), frames)](
        scores, offset, out, pixels, columns, scale, TOKENS=tokens, PIXELS=_PIXELS, BLOCK=_COLUMNS, num_warps=4
    )
    return out


def sum_of_two(q: torch.Tensor, first: torch.Tensor, last_counts: int, second: torch.Tensor) -> torch.Tensor | None:
    """See ``few_keys.FewKeys.sum_of_two``."""
    tokens, heads, width = q.shape
    if not _suits(width) or first.shape[1] > _FEW:
        return None
    out = torch.empty_like(q)
    _sum_of_two_kernel[(heads, triton.cdiv(tokens, _PIXELS))](
        q, first, second, out, tokens, first.shape[1], second.shape[1], width**-0.5 * math.log2(math.e),
        math.log2(last_counts), *_steps(first.shape[1]), *_steps(second.shape[1]),
        CHANNELS=heads * width, WIDTH=width, PIXELS=_PIXELS, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


def _steps(keys: int) -> tuple[int, int]:
    """So many keys in large steps of 64 and small ones of 16, the last of which is in a small one."""
    large = (keys - 1) // 64
    return large, triton.cdiv(keys - large * 64, 16)


def _suits(size: int, most: int = _COLUMNS) -> bool:
    """Whether kernels take so many tokens of a frame, or channels of a head: a power of two, not too small."""
    return 16 <= size <= most and size & (size - 1) == 0
