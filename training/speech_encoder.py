"""Trains the wav2vec2: features of every layer from which a line can read the mouth's curves and the spectrum.

The engine interpolates between convolutions and transformer, so the training does too. Noise and music
are mixed in, and the targets are of the speech alone. Knows nothing of pictures.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from ..pipeline.evaluation.opening import RATE, _spectrum, mouth_curves
from .clips import _coloured, _music
from .training import Averaged, Clock, Optimizer, graphed, save_weights

FILE = "speech_encoder.safetensors"
LAYERS, HIDDEN = 4, 96
_BANDS = 16
_HOP = RATE // 25
_CROP = 8 * 25  # frames

CONFIG = {
    "architectures": ["Wav2Vec2Model"],
    "model_type": "wav2vec2",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
    "conv_bias": False,
    "conv_dim": [64] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_feat_extract_layers": 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 8,
    "layer_norm_eps": 1e-05,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    **dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout"), 0.0
    ),
    "layerdrop": 0.0,
}


def build() -> Wav2Vec2Model:
    return Wav2Vec2Model(Wav2Vec2Config.from_dict(CONFIG))


def layer_features(model: Wav2Vec2Model, samples: torch.Tensor, frames: int) -> list[torch.Tensor]:
    """Every layer's features [sounds, frames, channels], as the engine makes them, of sounds [sounds, n] at 16 kHz."""
    mean = samples.mean(dim=1, keepdim=True)
    variance = samples.var(dim=1, keepdim=True, correction=0)
    convolved = model.feature_extractor((samples - mean) / (variance + 1e-7).sqrt())
    convolved = F.interpolate(convolved, size=frames, mode="linear", align_corners=True)
    hidden, _ = model.feature_projection(convolved.transpose(1, 2))
    encoder = model.encoder
    hidden = encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden))
    states = []
    for layer in encoder.layers:
        hidden = layer(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        states.append(hidden)
    return states


@torch.no_grad()
def encode(model: Wav2Vec2Model, samples: torch.Tensor) -> torch.Tensor:
    """Features [sounds, frames, layers, channels]."""
    return torch.stack(layer_features(model, samples, int(samples.shape[1] / RATE * 25)), dim=2)


class _Data:
    """Speech with its targets, and sounds that are no speech, all on the device."""

    def __init__(self, speech: torch.Tensor) -> None:
        import numpy as np

        self.speech = speech
        opening, width = mouth_curves(speech)
        self.targets = torch.cat([opening[..., None], width[..., None], _log_bands(speech)], dim=-1)
        chance = np.random.default_rng(3)
        generator = torch.Generator().manual_seed(3)
        length = _CROP * _HOP
        noises = [_coloured(torch.randn(length, generator=generator), chance.uniform(-0.95, 0.6)) for _ in range(24)]
        noises += [_music(chance, length) for _ in range(24)]
        noise = torch.stack(noises).to(speech.device)
        self.noise = noise / noise.square().mean(dim=1, keepdim=True).sqrt()

    def batch(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sounds [count, n] and targets [count, frames, 2 + bands]."""
        device = self.speech.device
        clip = torch.randint(len(self.speech), (count, 1), device=device)
        start = torch.randint(self.speech.shape[1] // _HOP - _CROP + 1, (count, 1), device=device)
        at = start * _HOP + torch.arange(_CROP * _HOP, device=device)
        sound, targets = self.speech[clip, at], self.targets[clip, start + torch.arange(_CROP, device=device)]
        # a silent stretch
        begin = torch.randint(_CROP, (count, 1), device=device)
        length = torch.randint(10, 60, (count, 1), device=device) * (torch.rand(count, 1, device=device) < 0.25)
        frame = torch.arange(_CROP, device=device)
        silent = (frame >= begin) & (frame < begin + length)
        nothing = torch.rand(count, 1, device=device) < 0.06  # noise or music alone
        silent = silent | nothing
        sound = sound * (~silent).float().repeat_interleave(_HOP, dim=1)
        inner = silent & (F.pad(silent[:, :-2].float(), (2, 0)) > 0)
        rest = torch.zeros_like(targets)
        rest[..., 1] = 0.45
        rest[..., 2:] = self.targets[..., 2:].amin(dim=(0, 1))
        targets = torch.where((inner | nothing)[..., None], rest, targets)
        tilt = (torch.rand(count, 1, device=device) - 0.5) * (torch.rand(count, 1, device=device) < 0.5)
        sound = sound - tilt * F.pad(sound, (1, 0))[:, :-1]
        noise = self.noise[torch.randint(len(self.noise), (count,), device=device)]
        loud = 0.08 * 10 ** (-(8 + 40 * torch.rand(count, 1, device=device)) / 20)
        loud = loud * ((torch.rand(count, 1, device=device) < 0.6) | nothing)
        return sound + noise * loud, targets


def _log_bands(speech: torch.Tensor) -> torch.Tensor:
    """Log energies in bands, about -1 to 1: [sounds, frames, bands]."""
    spectrum = _spectrum(speech, int(speech.shape[1] / RATE * 25))
    edges = torch.logspace(2.0, 3.85, _BANDS + 1, device=speech.device)
    bins = torch.arange(spectrum.shape[2], device=speech.device) * (RATE / 1024)
    inside = ((bins[:, None] >= edges[:-1]) & (bins[:, None] < edges[1:])).float()
    return ((spectrum @ inside + 1e-8).log10() + 5.5) / 2.5


def train(
    speech: torch.Tensor, held_out: torch.Tensor, out: Path, seconds: float, graph: bool = True, count: int = 32
) -> None:
    """Train for so many seconds and write ``speech_encoder.safetensors``."""
    device = speech.device
    clock = Clock(seconds, flat=0.4)
    torch.manual_seed(1)
    model = build().to(device).train()
    heads = nn.ModuleList(nn.Linear(HIDDEN, 2 + _BANDS) for _ in range(LAYERS)).to(device)
    parameters = [p for n, p in model.named_parameters() if "masked_spec_embed" not in n]
    parameters += list(heads.parameters())
    optimizer = Optimizer([], parameters, 1.5e-3, average=0.995)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    data = _Data(speech)
    sounds, targets = (tensor.clone() for tensor in data.batch(count))
    weight = torch.tensor([4.0, 1.0] + [0.15] * _BANDS, device=device)

    def step() -> torch.Tensor:
        torch._foreach_zero_([p.grad for p in parameters])
        states = layer_features(model, sounds, _CROP)
        errors = [((head(state) - targets).square() * weight).mean() for head, state in zip(heads, states, strict=True)]
        loss = torch.stack(errors).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    run, number, last_print = None, 0, time.monotonic()
    while clock.part() < 1:
        fresh = data.batch(count)
        sounds.copy_(fresh[0])
        targets.copy_(fresh[1])
        optimizer.scale.fill_(clock.rate(number))
        run = run or graphed(step, graph and device.type == "cuda")
        loss = run()
        number += 1
        if time.monotonic() - last_print > max(5.0, seconds / 10):
            last_print = time.monotonic()
            print(f"speech encoder: {clock.elapsed():.0f} s, {number} steps, loss {float(loss):.4f}", flush=True)
    optimizer.load_average()
    save_weights(model, out / FILE, steps=number)
    report(model, heads, held_out)


@torch.no_grad()
def report(model: Wav2Vec2Model, heads: nn.ModuleList, held_out: torch.Tensor) -> None:
    """How well each layer tells the curves of speech never trained on, and what it makes of noise and music."""
    opening, width = mouth_curves(held_out)
    features = encode(model, held_out)
    for layer, head in enumerate(heads):
        told = head(features[:, :, layer])
        values = [correlation(told[..., k], curve) for k, curve in enumerate((opening, width))]
        print(f"speech encoder: layer {layer}: held out r {values[0]:.3f} opening, {values[1]:.3f} width")
    noise = torch.randn(1, 64_000, generator=torch.Generator().manual_seed(1)).to(held_out) * 0.03
    silence = torch.zeros_like(noise)
    told = [float(heads[-1](encode(model, x)[:, :, -1])[..., 0].mean()) for x in (noise, silence)]
    print(f"speech encoder: opening told in noise {told[0]:.3f}, in silence {told[1]:.3f}")


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson's r over all values."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def load(path: Path, device: torch.device) -> Wav2Vec2Model:
    model = build()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, strict=False)
    return model.to(device).eval()


def config_json() -> str:
    return json.dumps(CONFIG, indent=2) + "\n"


__all__ = ["Averaged", "CONFIG", "build", "config_json", "encode", "layer_features", "load", "train"]
