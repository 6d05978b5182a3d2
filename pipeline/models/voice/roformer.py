"""Mel-Band RoFormer (J.-C. Wang et al., 2023, arXiv 2310.01809): a network that masks the spectrum of a stereo mix.

The spectrum's bins go into overlapping bands of the mel scale, a token each; transformers attend along time and along
bands in turn; each band gives a complex mask, and a bin's mask is the mean over its bands. Parameters are named as in
the published checkpoints (K. Jensen's vocal model, and Kijai's copies of it); sizes are read off the file. Knows
nothing of how a sound is cut up.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 44_100
N_FFT, HOP = 2048, 441
_LINEAR_HZ, _LINEAR_MELS, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27  # Slaney's scale: linear, above 1 kHz a logarithm


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 * self.gamma


class _Rotary(nn.Module):
    """Positions as rotations of neighbouring pairs of channels; the angles are in the checkpoint."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.empty(head_dim // 2))

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)[:, None] * self.freqs
        angles = angles.repeat_interleave(2, dim=-1)
        first, second = x[..., 0::2], x[..., 1::2]
        turned = torch.stack([-second, first], dim=-1).flatten(-2)
        return x * angles.cos() + turned * angles.sin()


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = RMSNorm(dim)
        self.rotary_embed = _Rotary(head_dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_gates = nn.Linear(dim, heads)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(self.rotary_embed(q), self.rotary_embed(k), v)
        out = out * self.to_gates(x).transpose(1, 2)[..., None].sigmoid()
        return self.to_out(out.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            RMSNorm(dim), nn.Linear(dim, inner), nn.GELU(), nn.Identity(), nn.Linear(inner, dim), nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Transformer(nn.Module):
    def __init__(self, dim: int, inner: int, heads: int, head_dim: int, depth: int) -> None:
        super().__init__()
        pairs = ([_Attention(dim, heads, head_dim), _FeedForward(dim, inner)] for _ in range(depth))
        self.layers = nn.ModuleList(nn.ModuleList(pair) for pair in pairs)
        self.norm = RMSNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        for attention, feed_forward in self.layers:
            x = attention(x) + x
            x = feed_forward(x) + x
        return self.norm(x)


class _BandSplit(nn.Module):
    def __init__(self, dim: int, widths: list[int]) -> None:
        super().__init__()
        self.widths = widths
        self.to_features = nn.ModuleList(nn.Sequential(RMSNorm(width), nn.Linear(width, dim)) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.widths, dim=-1)
        return torch.stack([embed(part) for embed, part in zip(self.to_features, parts, strict=True)], dim=-2)


class _MaskEstimator(nn.Module):
    def __init__(self, dim: int, inner: int, widths: list[int]) -> None:
        super().__init__()
        self.to_freqs = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(
                    nn.Linear(dim, inner), nn.Tanh(), nn.Linear(inner, inner), nn.Tanh(), nn.Linear(inner, 2 * width)
                ),
                nn.GLU(dim=-1),
            )
            for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([make(band) for make, band in zip(self.to_freqs, x.unbind(dim=-2), strict=True)], dim=-1)


class MelBandRoformer(nn.Module):
    """Sound in, the voice out.

    Args:
        dim: of a token.
        depth: pairs of transformers, along time and along bands.
        bands: of the mel scale.
        inner: width inside a feed-forward layer.
        mask_inner: width inside a mask's layers.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, head_dim: int, inner: int, mask_inner: int, bands: int
    ) -> None:
        super().__init__()
        members = mel_bands(bands)  # [bands, bins]
        widths = [4 * int(count) for count in members.sum(axis=1)]  # two channels, real and imaginary
        self.layers = nn.ModuleList(
            nn.ModuleList(_Transformer(dim, inner, heads, head_dim, 1) for _ in range(2)) for _ in range(depth)
        )
        self.band_split = _BandSplit(dim, widths)
        self.mask_estimators = nn.ModuleList([_MaskEstimator(dim, mask_inner, widths)])
        self._bins = np.nonzero(members)[1]  # of every band, one band after the other
        self._shared = members.sum(axis=0)  # bands of a bin

    def forward(self, sound: Tensor) -> Tensor:
        """float32 [2, n] at 44.1 kHz -> the same of the voice; n a multiple of 441."""
        window = torch.hann_window(N_FFT, device=sound.device)
        spectrum = torch.stft(sound, N_FFT, HOP, window=window, return_complex=True)  # [2, bins, frames]
        bins = torch.from_numpy(self._bins).to(sound.device)
        banded = torch.view_as_real(spectrum[:, bins])  # [2, members, frames, 2]
        x = self.band_split(banded.permute(2, 1, 0, 3).flatten(1))  # [frames, bands, dim]
        for along_time, along_bands in self.layers:
            x = along_time(x.transpose(0, 1)).transpose(0, 1)
            x = along_bands(x)
        masks = self.mask_estimators[0](x).unflatten(1, (-1, 2, 2)).permute(2, 1, 0, 3)  # [2, members, frames, 2]
        summed = torch.zeros_like(spectrum).index_add_(1, bins, torch.view_as_complex(masks.contiguous()))
        shared = torch.from_numpy(self._shared).to(sound.device, torch.float32)
        return torch.istft(spectrum * (summed / shared[:, None]), N_FFT, HOP, window=window)


def mel_bands(count: int) -> np.ndarray:
    """Which bins of the spectrum belong to which band: bool [bands, bins], as librosa's filters are above zero.

    The lowest bin is of the first band, the highest of the last.
    """
    highest = _LINEAR_MELS + np.log(SAMPLE_RATE / 2 / _LINEAR_HZ) / _LOG_STEP
    mels = np.linspace(0, highest, count + 2)
    linear = mels * _LINEAR_HZ / _LINEAR_MELS
    edges = np.where(mels < _LINEAR_MELS, linear, _LINEAR_HZ * np.exp(_LOG_STEP * (mels - _LINEAR_MELS)))
    bins = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    members = (bins > edges[:-2, None]) & (bins < edges[2:, None])
    members[0, 0] = members[-1, -1] = True
    return members
