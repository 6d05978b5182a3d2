"""Golden data for voice separation: Kijai's ComfyUI-MelBandRoFormer, its network and its node, in fp32.

Made with ``--upstream`` a clone of that pack, and the packages rotary_embedding_torch and einops. Of the outputs every
197th sample is kept. See ``tests/models/test_voice.py``.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

from ..support.voice_files import mel_band_state
from .recipe import write_golden
from .speech import speech_like

EVERY = 197
# seconds, rate, channels: shorter than half a window, than a window, and long enough to be mirrored at its ends
SOUNDS = ((3.0, 16_000, 1), (6.0, 44_100, 2), (9.0, 48_000, 2), (17.3, 44_100, 1))


def mix(seconds: float, rate: int, channels: int) -> np.ndarray:
    """float32 [channels, n]."""
    return np.stack([speech_like(seconds, rate, seed) for seed in range(channels)]).astype(np.float32)


def simple(sound: torch.Tensor) -> torch.Tensor:
    """In place of a network, so that only the node's own work is compared: [..., n] -> the same shape."""
    return 0.7 * sound.roll(3000, -1) + 0.01 * sound.abs().max()


class _Simple(torch.nn.Module):
    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return simple(sound)


def make(upstream: Path, out: Path) -> None:
    """Write ``voice.safetensors`` into ``out``."""
    cpu = torch.device("cpu")
    management = types.SimpleNamespace(get_torch_device=lambda: cpu, unet_offload_device=lambda: cpu)
    bar = lambda count: types.SimpleNamespace(update=lambda more: None)  # noqa: E731
    utils = types.SimpleNamespace(load_torch_file=torch.load, ProgressBar=bar)
    for name, module in {
        "comfy": types.SimpleNamespace(model_management=management, utils=utils),
        "comfy.utils": utils,
        "folder_paths": types.SimpleNamespace(),
    }.items():
        sys.modules[name] = module  # type: ignore[assignment]
    sys.path.insert(0, str(upstream.parent))
    nodes = importlib.import_module(f"{upstream.name}.nodes")
    network = nodes.MelBandRoformer(
        **{"dim": 16, "depth": 2, "stereo": True, "time_transformer_depth": 1, "freq_transformer_depth": 1},
        **{"heads": 2, "stft_hop_length": 441, "mask_estimator_depth": 2},
    ).eval()
    network.load_state_dict(mel_band_state())
    with torch.no_grad():
        sound = torch.from_numpy(mix(2.0, 44_100, 2))
        tensors = {"network": network(sound[None])[0, :, ::EVERY]}
        for number, (seconds, rate, channels) in enumerate(SOUNDS):
            audio = {"waveform": torch.from_numpy(mix(seconds, rate, channels))[None], "sample_rate": rate}
            voice = nodes.MelBandRoFormerSampler().process(_Simple(), audio)[0]["waveform"][0]
            tensors[f"sound {number}"] = voice[:, ::EVERY]
    write_golden(out / "voice.safetensors", tensors)
