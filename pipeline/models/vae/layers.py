"""Layers of the Wan VAE that work on a video piece by piece, and what they carry from piece to piece.

Every layer maps features ``[b, c, t, h, w]`` to features and takes the ``Stream`` it works for, so that one
module serves several videos at once. A video is fed as its first frame alone, then as pieces of any fixed
number of latent frames; the outputs joined over time equal those for the whole video.

Features and kernels are channels-last in memory: frames are then views, the norm over channels reads
neighbours, and convolutions need no reordering. For inference only: activations are changed in place.
Every layer also tells which rows and columns of its input an output depends on, for ``vae_tiles``.
Knows nothing about files, latents' statistics or how the layers are put together.

Parameter names and arithmetic are those of the Wan 2.1 VAE (arXiv 2503.20314, section 4.1; upstream's
``wan/modules/vae.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from .kernels import VaeKernels, end_of, frames_of, rms_norm, room_behind, video_of

Span = tuple[int, int]  # first row (or column) and the one behind the last


@dataclass
class Stream:
    """What one encoding or decoding carries from one piece of its video to the next.

    Attributes:
        kernels: what computes between the convolutions.
        first: whether the piece at hand is the first (one frame, which is never resampled over time).
        past: the last input frames of each convolution over time.
        repeats: how many pieces before the one at hand were the same as it, without a break; ``run`` then leaves
            out what would be computed again.
        settled: how many steps give from now on what they gave last as long as pieces repeat, from which number
            of repeats on, and what they gave.
    """

    kernels: VaeKernels
    first: bool = True
    past: dict[nn.Module, torch.Tensor] = field(default_factory=dict)
    repeats: int = 0
    settled: tuple[int, int, torch.Tensor] | None = None


class Layer(nn.Module):
    """What all layers tell about the frames, and the rows (or columns), that an output depends on.

    Attributes:
        reach: frames before.
        margin: rows on either side.
    """

    reach = 0
    margin = 0

    def covers(self, rows: Span) -> Span:
        """The output rows that these input rows give."""
        return rows

    def needs(self, rows: Span, size: int) -> Span:
        """The input rows, of ``size`` that there are, on which these output rows depend."""
        return max(rows[0] - self.margin, 0), min(rows[1] + self.margin, size)


class CausalConv3d(nn.Conv3d, Layer):
    """Convolution that sees the present and the past: zeros before the stream's first frame.

    Args:
        in_dim, out_dim: channels.
        kernel: extent over (time, height, width); space is padded to keep its size.
        time_stride: step over time.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, int, int], time_stride: int = 1) -> None:
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_dim, out_dim, kernel, stride=(time_stride, 1, 1), padding=padding)
        self.margin = kernel[1] // 2
        self.reach = kernel[0] - time_stride  # frames of the past that the next output needs

    def forward(self, x: torch.Tensor, stream: Stream, bias: bool = True) -> torch.Tensor:
        """Args: bias: whether to add it."""
        joined = room_behind(stream.past.get(self), x, self.reach)
        joined[:, :, self.reach :] = x
        stream.past[self] = end_of(joined, self.reach)
        return self.convolve(joined, stream.kernels, bias)

    def convolve(self, joined: torch.Tensor, kernels: VaeKernels, bias: bool = True) -> torch.Tensor:
        """Convolve a piece with its past before it."""
        return kernels.convolve(joined, self.weight, self.bias if bias else None, self.stride[0])


class RMSNorm(nn.Module):
    """``rms_norm`` with its weights.

    Args:
        dim: channels.
        axes: axes behind the channels, as the checkpoint stores gamma: 3 for videos, 2 for frames.
    """

    def __init__(self, dim: int, axes: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * axes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.gamma, self.scale)


def _norm_silu_conv(
    norm: RMSNorm,
    conv: CausalConv3d,
    x: torch.Tensor,
    stream: Stream,
    before: torch.Tensor | None = None,
    bias: bool = True,
) -> torch.Tensor:
    """``conv(silu(norm(x + before)))``, the activations written right behind the past, which saves joining them."""
    past = stream.past.get(conv)
    joined, stream.past[conv] = stream.kernels.norm_silu(x, before, norm.gamma, past, conv.reach)
    return conv.convolve(joined, stream.kernels, bias)


class Head(nn.ModuleDict, Layer):
    """Norm, SiLU, 3x3x3 convolution."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__({"0": RMSNorm(in_dim, axes=3), "2": CausalConv3d(in_dim, out_dim, (3, 3, 3))})
        self.reach, self.margin = self["2"].reach, self["2"].margin

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        return _norm_silu_conv(self["0"], self["2"], x, stream)


class ResidualBlock(Layer):
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
        self.reach, self.margin = (sum(getattr(self.residual[n], what) for n in "26") for what in ("reach", "margin"))
        self.shortcut = nn.Conv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        first, second = self.residual["2"], self.residual["6"]
        late = stream.kernels.adds_bias
        h = _norm_silu_conv(self.residual["0"], first, x, stream, bias=not late)
        h = _norm_silu_conv(self.residual["3"], second, h, stream, first.bias if late else None, bias=not late)
        return stream.kernels.add(h, second.bias if late else None, self.shortcut(x))


class AttentionBlock(Layer):
    """Single-head self-attention among the positions of each frame, added to the input. Needs all rows and columns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_dim = self.out_dim = dim
        self.norm = RMSNorm(dim, axes=2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        frames = frames_of(x)
        n, c, h, w = frames.shape
        qkv = self.to_qkv(self.norm(frames)).permute(0, 2, 3, 1).reshape(n, 1, h * w, 3 * c)
        attended = stream.kernels.attend(*qkv.chunk(3, dim=-1))
        attended = attended.reshape(n, h, w, c).permute(0, 3, 1, 2)
        return video_of(self.proj(attended).add_(frames), x.shape[0])


class Downsample(Layer):
    """Halves height and width and, if ``over_time``, the number of frames (the first one excepted)."""

    def __init__(self, in_dim: int, out_dim: int, over_time: bool) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.resample = nn.ModuleDict({"1": nn.Conv2d(in_dim, out_dim, 3, stride=2)})
        self.time_conv = CausalConv3d(out_dim, out_dim, (3, 1, 1), time_stride=2) if over_time else None
        self.reach = 0 if self.time_conv is None else self.time_conv.reach

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        frames = F.pad(frames_of(x), (0, 1, 0, 1))  # only right and below: the convolution's own padding is even
        x = video_of(self.resample["1"](frames), x.shape[0])
        if self.time_conv is None:
            return x
        if stream.first:
            stream.past[self.time_conv] = end_of(x, self.time_conv.reach)
            return x
        return self.time_conv(x, stream)

    def covers(self, rows: Span) -> Span:
        return rows[0] // 2, rows[0] // 2 + (rows[1] - rows[0]) // 2

    def needs(self, rows: Span, size: int) -> Span:
        return 2 * rows[0], min(2 * rows[1] + 1, size)


class Upsample(Layer):
    """Doubles height and width and, if ``over_time``, the number of frames (the first one excepted)."""

    def __init__(self, in_dim: int, out_dim: int, over_time: bool) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.resample = nn.ModuleDict({"1": nn.Conv2d(in_dim, out_dim, 3, padding=1)})
        self.time_conv = CausalConv3d(in_dim, 2 * in_dim, (3, 1, 1)) if over_time else None
        self.reach = 0 if self.time_conv is None else self.time_conv.reach

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        copies, bias = 1, None
        if self.time_conv is not None and not stream.first:
            # The first frame never reaches time_conv, so for it the stream begins with the second.
            late = stream.kernels.adds_bias
            x, copies = self.time_conv(x, stream, bias=not late), 2
            bias = self.time_conv.bias if late else None
        frames = stream.kernels.double(x, bias, copies)
        return video_of(self.resample["1"](frames), x.shape[0])

    def covers(self, rows: Span) -> Span:
        return 2 * rows[0], 2 * rows[1]

    def needs(self, rows: Span, size: int) -> Span:
        margin = self.resample["1"].padding[0]
        return max((rows[0] - margin) // 2, 0), min((rows[1] + margin + 1) // 2, size)


def run(
    steps: Sequence[Layer], x: torch.Tensor, stream: Stream, crops: Sequence[tuple[slice, slice]] | None = None
) -> torch.Tensor:
    """The next piece ``[1, c, t, h, w]`` of a stream through layers, one after the other; advances the stream.

    Args:
        crops: rows and columns that are left of what each layer gives.
    """
    if not stream.repeats:
        stream.settled = None
    start, age, x = stream.settled or (0, 1, x)
    for number in range(start, len(steps)):
        # A layer whose input is the same from some repeat on gives the same as soon as its past is the same, too.
        age += -(-steps[number].reach // x.shape[2])
        x = steps[number](x, stream)
        x = x if crops is None else x[..., crops[number][0], crops[number][1]]
        if stream.repeats + 1 >= age:
            stream.settled = number + 1, age, x
    stream.first = False
    return x
