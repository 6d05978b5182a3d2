"""The Triton kernels behind ``matmul``: activations to 8 bits, matrices back to floats, products of int8.

Import only where Triton is installed; chosen and probed in ``products`` and ``matmul``. Arithmetic is
float32, sums of int8 products are exact integers, so tile sizes never change a bit.
"""
# ruff: noqa: ANN001, ANN201 - Triton reads annotations of kernels as types of its own

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from .activations import LARGEST, SMALLEST, Quantised
from .storage import Parts

_SMALLEST = tl.constexpr(SMALLEST)
_LARGEST_FP8, _LARGEST_INT8 = tl.constexpr(LARGEST[torch.float8_e4m3fn]), tl.constexpr(LARGEST[torch.int8])
_FORMATS = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2", torch.int8: "int8"}


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def store_row(x, row, column, channels, values_ptr, scale_ptr):
    """Quantise a whole row in float32 registers, which has zeros in the columns beyond ``channels``, and store it."""
    INTEGER: tl.constexpr = values_ptr.dtype.element_ty == tl.int8
    largest = _LARGEST_INT8 if INTEGER else _LARGEST_FP8
    magnitude = _larger(tl.reduce(tl.abs(x), 0, _larger), _SMALLEST)
    tl.store(scale_ptr + row, magnitude / largest)
    x *= largest / magnitude
    if INTEGER:
        # Beyond 2^23 a float32 has no places after the point: adding rounds to nearest, halves to even.
        x = (x + 12582912.0) - 12582912.0
    tl.store(values_ptr + row * channels + column, x.to(values_ptr.dtype.element_ty), mask=column < channels)


@triton.jit
def _quantise_rows_kernel(x_ptr, values_ptr, scale_ptr, channels, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * channels + column, mask=column < channels, other=0.0).to(tl.float32)
    store_row(x, row, column, channels, values_ptr, scale_ptr)


@triton.jit
def _unpack_kernel(byte_ptr, scale_ptr, out_ptr, channels, FORMAT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < channels
    byte = tl.load(byte_ptr + row * channels + column, mask=inside, other=0)
    scale = tl.load(scale_ptr + row)
    # fp8 is read through the bits of fp16, since cards before the RTX 40xx have no conversion.
    if FORMAT == "e4m3":
        bits = byte.to(tl.uint16)
        half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
        value = tl.where((bits & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)
    elif FORMAT == "e5m2":
        value = (byte.to(tl.uint16) << 8).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        value = byte.to(tl.int8, bitcast=True).to(tl.float32)
    tl.store(out_ptr + row * channels + column, (value * scale).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _rescale_kernel(
    total_ptr, row_scale_ptr, scale_ptr, bias_ptr, out_ptr, columns, BIAS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    out = tl.load(total_ptr + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    out *= tl.load(row_scale_ptr + row) * tl.load(scale_ptr + column, mask=inside, other=0.0)
    if BIAS:
        out += tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * columns + column, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _int8_product_kernel(
    a_ptr, row_scale_ptr, b_ptr, scale_ptr, bias_ptr, out_ptr, m, n,
    K: tl.constexpr, BIAS: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    # Programs that run together share rows of b: tiles are walked in bands of GROUP tiles along m.
    program = tl.program_id(0)
    band = GROUP * tl.cdiv(n, TILE_N)
    first = program // band * GROUP
    height = min(tl.cdiv(m, TILE_M) - first, GROUP)
    row = (first + program % band % height) * TILE_M + tl.arange(0, TILE_M)
    column = program % band // height * TILE_N + tl.arange(0, TILE_N)
    depth = tl.arange(0, TILE_K)
    # Rows and columns beyond the end read some other's numbers; their sums are not stored.
    a = a_ptr + (row % m).to(tl.int64)[:, None] * K + depth[None, :]
    b = b_ptr + (column % n).to(tl.int64)[None, :] * K + depth[:, None]
    total = tl.zeros((TILE_M, TILE_N), tl.int32)
    for start in range(0, K, TILE_K):
        if K % TILE_K == 0:
            total = tl.dot(tl.load(a), tl.load(b), total, out_dtype=tl.int32)
        else:
            inside = depth < K - start
            left = tl.load(a, mask=inside[None, :], other=0)
            total = tl.dot(left, tl.load(b, mask=inside[:, None], other=0), total, out_dtype=tl.int32)
        a += TILE_K
        b += TILE_K
    row_scale = tl.load(row_scale_ptr + row, mask=row < m, other=0.0)
    scale = tl.load(scale_ptr + column, mask=column < n, other=0.0)
    out = total.to(tl.float32) * (row_scale[:, None] * scale[None, :])
    if BIAS:
        out += tl.load(bias_ptr + column, mask=column < n, other=0.0).to(tl.float32)[None, :]
    target = out_ptr + row.to(tl.int64)[:, None] * n + column[None, :]
    tl.store(target, out.to(out_ptr.dtype.element_ty), mask=(row < m)[:, None] & (column < n)[None, :])


@dataclass(frozen=True)
class Tile:
    """How the int8 product is cut up: ``m`` x ``n`` results a program, ``k`` channels at once."""

    m: int
    n: int
    k: int
    stages: int
    warps: int
    group: int = 8


# By major compute capability. Cards of 8.6, 8.9 and 12.0 have 99 KiB of shared memory, which sets _USUAL.
_USUAL = Tile(128, 256, 64, stages=4, warps=8)
_TILES = {9: Tile(128, 256, 128, stages=4, warps=8)}


def quantise_rows(x: torch.Tensor, dtype: torch.dtype) -> Quantised:
    """See ``activations.quantise_rows``: the same in one read and one write. ``x`` is contiguous."""
    count, channels = x.shape
    quantised, block = Quantised.like(x, dtype), triton.next_power_of_2(channels)
    _quantise_rows_kernel[(count,)](x, *quantised, channels, BLOCK=block, num_warps=_warps(block))
    return quantised


def unpack(parts: Parts, dtype: torch.dtype) -> torch.Tensor:
    """A matrix [out, in] in fp8 or int8 with a scale for each row, read back into ``dtype`` and rounded once."""
    weight, scale = parts["weight"], parts["scale"]
    rows, channels = weight.shape
    out = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    block = min(4096, triton.next_power_of_2(channels))
    _unpack_kernel[(rows, triton.cdiv(channels, block))](
        weight.view(torch.uint8), scale, out, channels, FORMAT=_FORMATS[weight.dtype], BLOCK=block,
        num_warps=_warps(block),
    )  # fmt: skip
    return out


def rescale(
    total: torch.Tensor, row_scale: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> None:
    """``out = total * row_scale * scale + bias`` for [rows, columns]; ``out`` may be ``total``."""
    rows, columns = total.shape
    block = min(4096, triton.next_power_of_2(columns))
    _rescale_kernel[(rows, triton.cdiv(columns, block))](
        total, row_scale, scale, scale if bias is None else bias, out, columns,
        BIAS=bias is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def int8_product(
    quantised: Quantised,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    tile: Tile | None = None,
) -> torch.Tensor:
    """int8 activations [m, k] times int8 ``weight`` [n, k] in the shape [m, n] and ``dtype``.

    Scales and bias are applied to the sums while these are in registers.

    Args:
        scale: of the weight's rows, float32 [n].
        tile: None for the one that suits the card.
    """
    (m, k), n = quantised.values.shape, weight.shape[0]
    tile = tile or _tile(weight.device)
    out = torch.empty(m, n, dtype=dtype, device=weight.device)
    _int8_product_kernel[(triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n),)](
        quantised.values, quantised.scale, weight, scale, scale if bias is None else bias, out, m, n,
        K=k, BIAS=bias is not None, TILE_M=tile.m, TILE_N=tile.n, TILE_K=tile.k, GROUP=tile.group,
        num_stages=tile.stages, num_warps=tile.warps,
    )  # fmt: skip
    return out


def _tile(device: torch.device) -> Tile:
    major, _ = torch.cuda.get_device_capability(device)
    if major < 8:
        raise NotImplementedError("Triton's int8 products need a card of compute capability 8.0 or newer")
    return _TILES.get(major, _USUAL)


def _warps(block: int) -> int:
    return max(1, min(16, block // 512))
