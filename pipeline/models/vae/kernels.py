"""What a VAE layer computes: convolutions over time, norm and SiLU behind the past, residual sums, doubling pixels.

Two implementations of the same functions: plain PyTorch, which always works, and fused Triton kernels for CUDA
cards, which read and write each tensor once and also add the convolutions' biases (PyTorch gives those a pass
over the data of their own), and one for the widest of the convolutions. They agree to rounding; the fused ones
compute in float32 and round once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F

from ...errors import Unavailable
from ...quantisation.triton_probe import triton_kernels

EPS = 1e-12  # of torch.nn.functional.normalize


class VaeKernels(Protocol):
    """Features are ``[1, c, t, h, w]`` in channels-last memory, or a view of such that leaves out borders.

    Attributes:
        adds_bias: whether the biases of the convolutions before are left to these functions.
    """

    name: str
    reason: str
    adds_bias: bool

    def norm_silu(
        self, x: torch.Tensor, bias: torch.Tensor | None, gamma: torch.Tensor, past: torch.Tensor | None, reach: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``silu(rms_norm(x + bias))`` behind the past.

        Args:
            bias: [c], of the convolution that made x; None where it is in x.
            gamma: [c, 1, ...].
            past: the frames before, [1, c, reach, h, w], None for zeros; may be overwritten.

        Returns:
            [1, c, reach + t, h, w], and its last ``reach`` frames as memory of their own: the past of what comes next.
        """
        ...

    def convolve(
        self, joined: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, time_stride: int
    ) -> torch.Tensor:
        """Convolve a piece with its past before it; space is padded to keep its size.

        Args:
            joined: [1, c, t, h, w], no view that leaves out borders.
            weight: [c', c, over time, over height, over width], channels-last.

        Returns:
            [1, c', 1 + (t - over time) // time_stride, h, w].
        """
        ...

    def add(self, h: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        """``h + bias + x``; ``h`` may be overwritten."""
        ...

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention among the pixels of each frame: [frames, 1, pixels, c] each, and so is what comes."""
        ...

    def double(self, x: torch.Tensor, bias: torch.Tensor | None, copies: int) -> torch.Tensor:
        """``x + bias`` with every pixel as a 2x2 square (nearest neighbour).

        Args:
            x: [1, copies * c, t, h, w], the copies of each frame one after the other in the channels.

        Returns:
            [t * copies, c, 2 h, 2 w], the copies of each frame one after the other in time.
        """
        ...


def choose_vae_kernels(name: str, device: torch.device) -> VaeKernels:
    """The implementation called "plain" or "triton", or for "auto" the fastest that works here.

    Triton where it does not work counts as "auto": ``choose_pointwise`` is what refuses it, in a sentence.
    """
    if name == "plain":
        return PlainVaeKernels("asked for")
    fused = triton_kernels(device)
    if isinstance(fused, Unavailable):
        return PlainVaeKernels(fused.reason)
    from .kernels_triton import TritonVaeKernels, attend_wide

    return TritonVaeKernels(
        "asked for" if name == "triton" else "a CUDA card with Triton",
        own_convolution=torch.cuda.get_device_capability(device)[0] == 9,
        wide_attention=_agrees(attend_wide, device),
    )


def _agrees(attend: Callable[..., torch.Tensor], device: torch.device) -> bool:
    """Whether this attention works here and is PyTorch's up to rounding, on heads as wide as the VAE's."""
    generator = torch.Generator(device).manual_seed(0)
    qkv = torch.randn(2, 1, 70, 3 * 384, generator=generator, device=device).half().chunk(3, dim=-1)
    expected = F.scaled_dot_product_attention(*(x.float() for x in qkv))
    try:  # torch.bmm has had ``out_dtype`` since 2.8
        found = attend(*qkv).float()
    except torch.OutOfMemoryError:  # what happens to be free must not choose another way
        raise
    except (TypeError, RuntimeError):
        return False
    return bool((found - expected).norm() < 0.01 * expected.norm())


class PlainVaeKernels:
    """PyTorch's own operations."""

    name = "plain"
    adds_bias = False

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def norm_silu(
        self, x: torch.Tensor, bias: torch.Tensor | None, gamma: torch.Tensor, past: torch.Tensor | None, reach: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = x if bias is None else x + channels(bias)
        joined = room_behind(past, x, reach)
        F.silu(rms_norm(x, gamma, x.shape[1] ** 0.5, joined[:, :, reach:]), inplace=True)
        return joined, end_of(joined, reach)

    def convolve(
        self, joined: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, time_stride: int
    ) -> torch.Tensor:
        return convolve(joined, weight, bias, time_stride)

    def add(self, h: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        return (h if bias is None else h.add_(channels(bias))).add_(x)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def double(self, x: torch.Tensor, bias: torch.Tensor | None, copies: int) -> torch.Tensor:
        x = x if bias is None else x + channels(bias)
        pixels = x.unflatten(1, (copies, -1)).permute(0, 3, 1, 4, 5, 2)
        b, t, _, h, w, c = pixels.shape
        pixels = pixels[..., :, None, :, None, :].expand(b, t, copies, h, 2, w, 2, c)
        return pixels.reshape(b * t * copies, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


def rms_norm(x: torch.Tensor, gamma: torch.Tensor, scale: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """``x / |x| * scale * gamma``, with the length |x| over the channels (axis 1) in at least float32."""
    out = torch.empty_like(x) if out is None else out
    accurate = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=accurate).clamp_min_(EPS)
    return torch.div(x, length, out=out).mul_(gamma * scale)  # no float32 copy of a 16-bit x


def convolve(joined: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, time_stride: int) -> torch.Tensor:
    """``VaeKernels.convolve`` by PyTorch."""
    taps, padding = weight.shape[2], (weight.shape[3] // 2, weight.shape[4] // 2)
    if joined.is_cuda:
        return F.conv3d(joined, weight, bias, (time_stride, 1, 1), (0, *padding))
    # As a 2D convolution of frames that carry their neighbours in their channels: PyTorch's 3D convolution
    # on a CPU leaves oneDNN for a plain loop where features are small.
    frames = joined.shape[2] - taps + 1
    seen = torch.cat([joined[:, :, k : k + frames : time_stride] for k in range(taps)], dim=1)
    kernel = weight.transpose(1, 2).flatten(1, 2)
    return video_of(F.conv2d(frames_of(seen), kernel, bias, padding=padding), joined.shape[0])


def frames_of(x: torch.Tensor) -> torch.Tensor:
    """``[b, c, t, h, w]`` as ``[b * t, c, h, w]`` (a view of channels-last memory)."""
    return x.transpose(1, 2).flatten(0, 1)


def video_of(frames: torch.Tensor, batch: int) -> torch.Tensor:
    """The inverse of ``frames_of``."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)


def room_behind(past: torch.Tensor | None, x: torch.Tensor, reach: int) -> torch.Tensor:
    """Room for ``x`` with its past before it: ``[b, c, reach + t, h, w]``, the last t frames yet to be written."""
    b, c, t, h, w = x.shape
    shape = b, c, reach + t, h, w
    joined = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    joined[:, :, :reach] = 0 if past is None else past
    return joined


def end_of(x: torch.Tensor, frames: int) -> torch.Tensor:
    """The last frames of ``x`` as memory of their own: a view would keep all of x alive."""
    return x[:, :, -frames:].clone()


def channels(bias: torch.Tensor) -> torch.Tensor:
    """[c] as it goes with features."""
    return bias.view(-1, 1, 1, 1)
