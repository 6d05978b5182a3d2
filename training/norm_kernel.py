"""The VAE's norm and SiLU with room for the past before it, one Triton kernel each way.

Only worth it for training: plain PyTorch reads and writes these large features many times. Knows nothing
of convolutions.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _forward(x_ptr, gamma_ptr, y_ptr, rows, per_video, before, scale, C: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, C)
    inside = (row < rows)[:, None]
    x = tl.load(x_ptr + row[:, None] * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + channel).to(tl.float32)[None, :] * scale
    length = tl.sqrt(tl.sum(x * x, axis=1) + 1e-6)[:, None]
    z = x / length * gamma
    y = z * tl.sigmoid(z)
    target = row + (row // per_video + 1) * before
    tl.store(y_ptr + target[:, None] * C + channel[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    x_ptr, gamma_ptr, dy_ptr, dx_ptr, dgamma_ptr, rows, per_video, before, scale, C: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, C)
    inside = (row < rows)[:, None]
    x = tl.load(x_ptr + row[:, None] * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + channel).to(tl.float32)[None, :] * scale
    source = row + (row // per_video + 1) * before
    dy = tl.load(dy_ptr + source[:, None] * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(x * x, axis=1) + 1e-6)[:, None]
    unit = x * inverse
    z = unit * gamma
    gate = tl.sigmoid(z)
    dz = dy * gate * (1 + z * (1 - gate))
    tl.store(dgamma_ptr + tl.program_id(0) * C + channel, tl.sum(dz * unit, axis=0) * scale)
    dunit = dz * gamma
    dx = (dunit - unit * tl.sum(dunit * unit, axis=1)[:, None]) * inverse
    tl.store(dx_ptr + row[:, None] * C + channel[None, :], dx.to(dx_ptr.dtype.element_ty), mask=inside)


class NormSilu(torch.autograd.Function):
    """``silu(x / |x| sqrt(C) gamma)`` of x [videos, rows, C], with ``before`` rows of zeros before each video."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor, gamma: torch.Tensor, before: int) -> torch.Tensor:
        x = x.contiguous()
        videos, rows, channels = x.shape
        y = x.new_empty(videos, before + rows, channels)
        y[:, :before].zero_()
        block = max(1, 4096 // channels)
        grid = (triton.cdiv(videos * rows, block),)
        _forward[grid](x, gamma, y, videos * rows, rows, before, channels**0.5, channels, block)
        ctx.save_for_backward(x, gamma)
        ctx.before = before
        return y

    @staticmethod
    def backward(ctx: object, dy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, gamma = ctx.saved_tensors
        dy = dy.contiguous()
        videos, rows, channels = x.shape
        block = max(1, 4096 // channels)
        grid = (triton.cdiv(videos * rows, block),)
        dx = torch.empty_like(x)
        dgamma = torch.empty(grid[0], channels, device=x.device)
        _backward[grid](x, gamma, dy, dx, dgamma, videos * rows, rows, ctx.before, channels**0.5, channels, block)
        return dx, dgamma.sum(dim=0).to(gamma.dtype), None
