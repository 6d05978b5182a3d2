"""The sizes that a transformer has, and those of the published models; all else is read off the files."""

from __future__ import annotations

from dataclasses import dataclass

AUDIO_WINDOW = 5  # frames of speech features around a video frame


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer; all but ``num_heads`` can be read off the tensors' shapes."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_channels: int
    out_channels: int
    patch_size: tuple[int, int, int]
    freq_dim: int
    text_dim: int
    image_dim: int
    audio_dim: int
    audio_hidden: int
    audio_tokens: int
    audio_features: int
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


# Wan 2.1 I2V with the layers that InfiniteTalk adds
WAN_14B = TransformerConfig(
    dim=5120,
    ffn_dim=13824,
    num_heads=40,
    num_layers=40,
    in_channels=36,
    out_channels=16,
    patch_size=(1, 2, 2),
    freq_dim=256,
    text_dim=4096,
    image_dim=1280,
    audio_dim=768,
    audio_hidden=512,
    audio_tokens=32,
    audio_features=12 * 768,
)
VAE_WIDTH = 96  # channels of the Wan 2.1 VAE's finest features
