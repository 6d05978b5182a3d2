"""Layers of the Wan VAE that work on a video piece by piece, and what they carry from piece to piece.

Every layer maps features ``[b, c, t, h, w]`` to features and takes the ``Stream`` it works for, so that one
module serves several videos at once. A video is fed as its first frame alone, then as pieces of any fixed
number of latent frames; the outputs joined over time equal those for the whole video.

Features and kernels are channels-last in memory: frames are then views, the norm over channels reads
neighbours, and convolutions need no reordering. For inference only: activations are changed in place.
Knows nothing about files, latents' statistics or how the layers are put together.

Parameter names and arithmetic are those of the Wan 2.1 VAE (arXiv 2503.20314, section 4.1; upstream's
``wan/modules/vae.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Stream:
    """What one encoding or decoding carries from one piece of its video to the next.

    Attributes:
        first: whether the piece at hand is the first (one frame, which is never resampled over time).
        past: the last input frames of each convolution over time.
    """

    first: bool = True
    past: dict[nn.Module, torch.Tensor] = field(default_factory=dict)


class CausalConv3d(nn.Conv3d):
    """Convolution that sees the present and the past: zeros before the stream's first frame.

    Args:
        in_dim, out_dim: channels.
        kernel: extent over (time, height, width); space is padded to keep its size.
        time_stride: step over time.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, int, int], time_stride: int = 1) -> None:
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_dim, out_dim, kernel, stride=(time_stride, 1, 1), padding=padding)
        self.reach = kernel[0] - time_stride  # frames of the past that the next output needs

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        joined = self.behind_past(x, stream)
        joined[:, :, self.reach :] = x
        return self.convolve(joined, stream)

    def behind_past(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        """Room for ``x`` with the past before it: ``[b, c, reach + t, h, w]``, the last t frames yet to be written."""
        b, c, t, h, w = x.shape
        joined = torch.empty(
            (b, c, self.reach + t, h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d
        )
        joined[:, :, : self.reach] = stream.past.get(self, 0)
        return joined

    def convolve(self, joined: torch.Tensor, stream: Stream) -> torch.Tensor:
        """Convolve a piece with its past before it."""
        self.remember(joined, stream)
        return super().forward(joined) if joined.is_cuda else self._convolve_frames(joined)

    def _convolve_frames(self, joined: torch.Tensor) -> torch.Tensor:
        """The same as a 2D convolution of frames that carry their neighbours in their channels.

        PyTorch's 3D convolution on a CPU leaves oneDNN for a plain loop where features are small.
        """
        frames, step, taps = joined.shape[2] - self.kernel_size[0] + 1, self.stride[0], self.kernel_size[0]
        seen = torch.cat([joined[:, :, k : k + frames : step] for k in range(taps)], dim=1)
        kernel = self.weight.transpose(1, 2).flatten(1, 2)
        return _video(F.conv2d(_frames(seen), kernel, self.bias, padding=self.padding[1:]), joined.shape[0])

    def remember(self, x: torch.Tensor, stream: Stream) -> None:
        """Keep the end of ``x`` as the past of the next piece."""
        stream.past[self] = x[:, :, -self.reach :].clone()  # a view would keep all of x alive


class RMSNorm(nn.Module):
    """``x / |x| * sqrt(dim) * gamma``, with the length |x| over the channels in at least float32.

    Args:
        dim: channels.
        axes: axes behind the channels, as the checkpoint stores gamma: 3 for videos, 2 for frames.
    """

    EPS = 1e-12  # of torch.nn.functional.normalize

    def __init__(self, dim: int, axes: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * axes))

    def forward(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        out = torch.empty_like(x) if out is None else out
        accurate = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=accurate).clamp_min_(self.EPS)
        return torch.div(x, length, out=out).mul_(self.gamma * self.scale)  # no float32 copy of a 16-bit x


def norm_silu_conv(norm: RMSNorm, conv: CausalConv3d, x: torch.Tensor, stream: Stream) -> torch.Tensor:
    """``conv(silu(norm(x)))``, the activations written right behind the past, which saves joining them."""
    joined = conv.behind_past(x, stream)
    F.silu(norm(x, out=joined[:, :, conv.reach :]), inplace=True)
    return conv.convolve(joined, stream)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3x3 convolution, twice, added to the input (through a 1x1x1 one where the width changes)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.residual = nn.ModuleDict(
            {
                "0": RMSNorm(in_dim, axes=3),
                "2": CausalConv3d(in_dim, out_dim, (3, 3, 3)),
                "3": RMSNorm(out_dim, axes=3),
                "6": CausalConv3d(out_dim, out_dim, (3, 3, 3)),
            }
        )
        self.shortcut = nn.Conv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        h = norm_silu_conv(self.residual["0"], self.residual["2"], x, stream)
        h = norm_silu_conv(self.residual["3"], self.residual["6"], h, stream)
        return h.add_(self.shortcut(x))


class AttentionBlock(nn.Module):
    """Single-head self-attention among the positions of each frame, added to the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_dim = self.out_dim = dim
        self.norm = RMSNorm(dim, axes=2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        frames = _frames(x)
        n, c, h, w = frames.shape
        qkv = self.to_qkv(self.norm(frames)).permute(0, 2, 3, 1).reshape(n, 1, h * w, 3 * c)
        attended = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        attended = attended.reshape(n, h, w, c).permute(0, 3, 1, 2)
        return _video(self.proj(attended).add_(frames), x.shape[0])


class Downsample(nn.Module):
    """Halves height and width and, if ``over_time``, the number of frames (the first one excepted)."""

    def __init__(self, in_dim: int, out_dim: int, over_time: bool) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.resample = nn.ModuleDict({"1": nn.Conv2d(in_dim, out_dim, 3, stride=2)})
        self.time_conv = CausalConv3d(out_dim, out_dim, (3, 1, 1), time_stride=2) if over_time else None

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        frames = F.pad(_frames(x), (0, 1, 0, 1))  # only right and below: the convolution's own padding is even
        x = _video(self.resample["1"](frames), x.shape[0])
        if self.time_conv is None:
            return x
        if stream.first:
            self.time_conv.remember(x, stream)
            return x
        return self.time_conv(x, stream)


class Upsample(nn.Module):
    """Doubles height and width and, if ``over_time``, the number of frames (the first one excepted)."""

    def __init__(self, in_dim: int, out_dim: int, over_time: bool) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.resample = nn.ModuleDict({"1": nn.Conv2d(in_dim, out_dim, 3, padding=1)})
        self.time_conv = CausalConv3d(in_dim, 2 * in_dim, (3, 1, 1)) if over_time else None

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        copies = 1
        if self.time_conv is not None and not stream.first:
            # The first frame never reaches time_conv, so for it the stream begins with the second.
            x, copies = self.time_conv(x, stream), 2
        # [b, copies * c, t, h, w]: each frame's copies lie one after the other in the channels. One copy puts
        # them one after the other in time and repeats every pixel in a 2x2 square (nearest neighbour).
        pixels = x.unflatten(1, (copies, -1)).permute(0, 3, 1, 4, 5, 2)
        b, t, _, h, w, c = pixels.shape
        pixels = pixels[..., :, None, :, None, :].expand(b, t, copies, h, 2, w, 2, c)
        frames = pixels.reshape(b * t * copies, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
        return _video(self.resample["1"](frames), b)


def _frames(x: torch.Tensor) -> torch.Tensor:
    """``[b, c, t, h, w]`` as ``[b * t, c, h, w]`` (a view of channels-last memory)."""
    return x.transpose(1, 2).flatten(0, 1)


def _video(frames: torch.Tensor, batch: int) -> torch.Tensor:
    """The inverse of ``_frames``."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)
