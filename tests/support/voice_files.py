"""Small voice separators in the real layouts: what torchaudio saves, and the names of published Mel-Band RoFormers."""

from __future__ import annotations

from pathlib import Path

import torch
from infinitetalk.tests.golden.recipe import random_state
from safetensors.torch import save_file

# bins of the spectrum in each of 60 bands, as published files have them
BAND_BINS = (
    *(7, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 9, 9, 9, 10, 10, 11),
    *(13, 13, 13, 15, 16, 17, 19, 20, 20, 22, 24, 26, 28, 29, 31, 33, 36, 39, 41, 44, 47, 50, 54, 57),
    *(61, 66, 71, 76, 80, 86, 93, 99, 105, 113, 122, 130),
)


def mel_band_shapes(dim: int = 16, heads: int = 2, depth: int = 2) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Mel-Band RoFormer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for band, bins in enumerate(BAND_BINS):
        split, mask = f"band_split.to_features.{band}", f"mask_estimators.0.to_freqs.{band}.0"
        shapes |= {f"{split}.0.gamma": (4 * bins,), f"{split}.1.weight": (dim, 4 * bins), f"{split}.1.bias": (dim,)}
        for place, sides in {0: (4 * dim, dim), 2: (4 * dim, 4 * dim), 4: (8 * bins, 4 * dim)}.items():
            shapes |= {f"{mask}.{place}.weight": sides, f"{mask}.{place}.bias": sides[:1]}
    for layer in (f"layers.{pair}.{axis}" for pair in range(depth) for axis in range(2)):
        attention, feed_forward = f"{layer}.layers.0.0", f"{layer}.layers.0.1.net"
        shapes |= {
            f"{attention}.rotary_embed.freqs": (32,),
            f"{attention}.norm.gamma": (dim,),
            f"{attention}.to_qkv.weight": (3 * 64 * heads, dim),
            f"{attention}.to_gates.weight": (heads, dim),
            f"{attention}.to_gates.bias": (heads,),
            f"{attention}.to_out.0.weight": (dim, 64 * heads),
            f"{feed_forward}.0.gamma": (dim,),
            f"{feed_forward}.1.weight": (4 * dim, dim),
            f"{feed_forward}.1.bias": (4 * dim,),
            f"{feed_forward}.4.weight": (dim, 4 * dim),
            f"{feed_forward}.4.bias": (dim,),
            f"{layer}.norm.gamma": (dim,),
        }
    return shapes


def mel_band_state() -> dict[str, torch.Tensor]:
    """Weights of a small one; the angles of rotations are those of the published files."""
    angles = 1 / 10_000 ** (torch.arange(0, 64, 2) / 64)
    state = random_state(mel_band_shapes())
    return {name: angles.clone() if name.endswith("rotary_embed.freqs") else value for name, value in state.items()}


def write_mel_band(path: Path) -> Path:
    """A file of half precision, as Kijai's."""
    save_file({name: tensor.half() for name, tensor in mel_band_state().items()}, path)
    return path


def write_demucs(path: Path) -> Path:
    """A file as torchaudio's ``hdemucs_high_trained.pt``: the state of a network, twelve times narrower."""
    from torchaudio.models import HDemucs

    torch.manual_seed(0)
    model = HDemucs(["drums", "bass", "other", "vocals"], channels=4, nfft=4096, depth=6)
    torch.save(model.state_dict(), path)
    return path
