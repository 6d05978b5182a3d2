"""The demo's VAE: built from the engine's own layers, with a differentiable pass over whole videos.

The engine works piece by piece and in place; training needs a whole video at once. Both use the same
modules, so the weights fit by construction, and a test compares the results. Knows no data.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..pipeline.models.vae.layers import AttentionBlock, CausalConv3d, Downsample, ResidualBlock, RMSNorm, Upsample
from ..pipeline.models.vae.model import LATENT_MEAN, LATENT_STD, Coder, WanVAE

Z = 16


def build(width: int = 16) -> WanVAE:
    """A Wan VAE of this width with one residual block a level in the encoder and two in the decoder, unfilled."""
    one, two, four = width, 2 * width, 4 * width
    down = [
        ResidualBlock(one, one),
        Downsample(one, one, False),
        ResidualBlock(one, two),
        Downsample(two, two, True),
        ResidualBlock(two, four),
        Downsample(four, four, True),
        ResidualBlock(four, four),
    ]
    up = [
        *(ResidualBlock(four, four), ResidualBlock(four, four), Upsample(four, two, True)),
        *(ResidualBlock(two, four), ResidualBlock(four, four), Upsample(four, two, True)),
        *(ResidualBlock(two, two), ResidualBlock(two, two), Upsample(two, one, False)),
        *(ResidualBlock(one, one), ResidualBlock(one, one)),
    ]
    encoder = Coder(3, 2 * Z, {"downsamples": down, "middle": _middle(four)})
    decoder = Coder(Z, 3, {"middle": _middle(four), "upsamples": up})
    return WanVAE(encoder, decoder, Z)


def _middle(width: int) -> list[nn.Module]:
    return [ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width)]


@torch.no_grad()
def initialise(vae: WanVAE, seed: int = 0) -> None:
    """Kernels that keep the size of what they see, in the present frame only; latents that begin almost exact.

    Biases are not zero, since norms have no slope to speak of where a still is followed by grey (zeros).
    """
    generator = torch.Generator().manual_seed(seed)
    for module in vae.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            weight = module.weight
            last = weight[:, :, -1:] if weight.dim() == 5 else weight
            std = last[0].numel() ** -0.5
            weight.zero_()
            last.copy_(torch.randn(last.shape, generator=generator) * std)
            module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
        elif isinstance(module, RMSNorm):
            module.gamma.fill_(1.0)
    # without this the latents' noise drowns them, and training stays grey for long
    vae.conv1.weight[Z:] *= 0.1
    vae.conv1.bias[Z:] = -5.0


class Whole:
    """A VAE over whole videos [videos, channels, frames, h, w], differentiable.

    Args:
        dtype: of the convolutions (weights stay as they are).
        fused: use the Triton kernel, on a CUDA card.
        statistics: mean and deviation of its latents, [16] each; Wan's, if it is folded.
    """

    def __init__(
        self,
        vae: WanVAE,
        dtype: torch.dtype = torch.float32,
        fused: bool = False,
        statistics: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        self.vae, self.dtype, self.fused = vae, dtype, fused
        self.mean, self.std = wan_statistics(vae.conv1.weight.device)  # once: a CUDA graph cannot hold their making
        if statistics is not None:
            self.mean, self.std = (one.view(-1, 1, 1, 1) for one in statistics)

    def moments(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels [videos, 3, 1 + 4n, H, W] in [-1, 1] -> mean and log variance of latents, float32."""
        x = self._coder(self.vae.encoder, video)
        both = self._conv3d(self.vae.conv1, x).float()
        return both[:, :Z], both[:, Z:]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [videos, 16, 1 + n, h, w] -> pixels, float32, not clamped."""
        return self._coder(self.vae.decoder, self._conv3d(self.vae.conv2, latents)).float()

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents as the engine's ``encode`` gives them: normalised by Wan's statistics."""
        return (self.moments(video)[0] - self.mean) / self.std

    def frames(self, latents: torch.Tensor) -> torch.Tensor:
        """The opposite, as the engine's ``decode`` gives it: pixels in [-1, 1]."""
        return self.decode(latents * self.std + self.mean).clamp(-1, 1)

    def _coder(self, coder: Coder, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last_3d)
        x = self._causal(coder.conv1, x)
        for layer in coder.layers:
            if isinstance(layer, ResidualBlock):
                x = self._residual(layer, x)
            elif isinstance(layer, AttentionBlock):
                x = self._attention(layer, x)
            elif isinstance(layer, Downsample):
                x = self._down(layer, x)
            else:
                x = self._up(layer, x)
        return self._norm_conv(coder.head["0"], coder.head["2"], x)

    def _residual(self, block: ResidualBlock, x: torch.Tensor) -> torch.Tensor:
        h = self._norm_conv(block.residual["0"], block.residual["2"], x)
        h = self._norm_conv(block.residual["3"], block.residual["6"], h)
        short = x if isinstance(block.shortcut, nn.Identity) else self._conv3d(block.shortcut, x)
        return short + h

    def _norm_conv(self, norm: RMSNorm, conv: CausalConv3d, x: torch.Tensor) -> torch.Tensor:
        b, c, t, h, w = x.shape
        if self.fused:
            from .norm_kernel import NormSilu

            rows = x.permute(0, 2, 3, 4, 1).reshape(b, t * h * w, c)
            y = NormSilu.apply(rows, norm.gamma.flatten(), conv.reach * h * w)
            y = y.view(b, t + conv.reach, h, w, c).permute(0, 4, 1, 2, 3)
        else:
            length = x.float().square().sum(dim=1, keepdim=True).add(1e-6).sqrt()
            y = F.silu(x.float() / length * (norm.gamma * norm.scale)).to(x.dtype)
            y = F.pad(y, (0, 0, 0, 0, conv.reach, 0))
        return self._conv3d(conv, y)

    def _causal(self, conv: CausalConv3d, x: torch.Tensor) -> torch.Tensor:
        return self._conv3d(conv, F.pad(x, (0, 0, 0, 0, conv.reach, 0)))

    def _conv3d(self, conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
        x, weight, bias = x.to(self.dtype), conv.weight.to(self.dtype), conv.bias.to(self.dtype)
        if x.is_cuda:
            weight = weight.contiguous(memory_format=torch.channels_last_3d)
            return F.conv3d(x, weight, bias, conv.stride, conv.padding)
        # On a CPU as the engine does it: frames carry their neighbours in their channels.
        taps, step = conv.kernel_size[0], conv.stride[0]
        frames = x.shape[2] - taps + 1
        seen = torch.cat([x[:, :, k : k + frames : step] for k in range(taps)], dim=1)
        kernel = weight.transpose(1, 2).flatten(1, 2)
        return _video(F.conv2d(_frames(seen), kernel, bias, padding=conv.padding[1:]), x.shape[0])

    def _conv2d(self, conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        weight = conv.weight.to(self.dtype).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, conv.bias.to(self.dtype), conv.stride, conv.padding)

    def _attention(self, block: AttentionBlock, x: torch.Tensor) -> torch.Tensor:
        frames = _frames(x)
        n, c, h, w = frames.shape
        length = frames.float().square().sum(dim=1, keepdim=True).add(1e-6).sqrt()
        normed = (frames.float() / length * (block.norm.gamma * block.norm.scale)).to(self.dtype)
        qkv = self._conv2d(block.to_qkv, normed).permute(0, 2, 3, 1).reshape(n, 1, h * w, 3 * c)
        q, k, v = (part.contiguous() for part in qkv.chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(q, k, v).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return _video(self._conv2d(block.proj, attended) + frames, x.shape[0])

    def _down(self, layer: Downsample, x: torch.Tensor) -> torch.Tensor:
        frames = F.pad(_frames(x), (0, 1, 0, 1))
        x = _video(self._conv2d(layer.resample["1"], frames), x.shape[0])
        if layer.time_conv is None or x.shape[2] == 1:
            return x
        return torch.cat([x[:, :, :1], self._conv3d(layer.time_conv, x)], dim=2)

    def _up(self, layer: Upsample, x: torch.Tensor) -> torch.Tensor:
        if layer.time_conv is not None and x.shape[2] > 1:
            later = self._causal(layer.time_conv, x[:, :, 1:])
            later = later.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
            x = torch.cat([x[:, :, :1], later], dim=2).contiguous(memory_format=torch.channels_last_3d)
        frames = F.interpolate(_frames(x), scale_factor=2, mode="nearest")
        return _video(self._conv2d(layer.resample["1"], frames), x.shape[0])


def _frames(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def _video(frames: torch.Tensor, videos: int) -> torch.Tensor:
    return frames.unflatten(0, (videos, -1)).transpose(1, 2)


def wan_statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = torch.tensor([LATENT_MEAN, LATENT_STD], device=device)
    return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


@torch.no_grad()
def fold(vae: WanVAE, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Make Wan's statistics right for latents that have ``mean`` and ``std`` [16]: same pixels, scaled latents."""
    wan_mean, wan_std = (one.flatten() for one in wan_statistics(vae.conv1.weight.device))
    _rescale(vae, mean, std, wan_mean, wan_std)


@torch.no_grad()
def unfold(vae: WanVAE) -> None:
    """The opposite: latents that fit Wan's statistics get mean 0 and deviation 1, as training likes them."""
    wan_mean, wan_std = (one.flatten() for one in wan_statistics(vae.conv1.weight.device))
    _rescale(vae, wan_mean, wan_std, torch.zeros_like(wan_mean), torch.ones_like(wan_std))


def _rescale(vae: WanVAE, mean: torch.Tensor, std: torch.Tensor, new_mean: torch.Tensor, new_std: torch.Tensor) -> None:
    factor = new_std / std
    vae.conv1.weight[:Z] *= factor.view(-1, 1, 1, 1, 1)
    vae.conv1.bias[:Z] = (vae.conv1.bias[:Z] - mean) * factor + new_mean
    vae.conv1.bias[Z:] += 2 * factor.log()
    into = vae.conv2.weight[:, :, 0, 0, 0]
    vae.conv2.bias += into @ (mean - new_mean / factor)
    vae.conv2.weight /= factor.view(1, -1, 1, 1, 1)
