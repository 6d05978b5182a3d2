"""How far a mouth should be open, and how wide, from the sound alone: the demo's drawn faces move by this rule.

At every video frame the energy between 200 and 4000 Hz in dB, against the loud parts of the same sound;
it opens the mouth at once and lets it close over a few frames. Width follows the spectrum's centre. Only
the neighbouring three frames count, so the rule can be heard in a window of speech features. Knows
nothing of pictures.
"""

from __future__ import annotations

import math

import torch

RATE, FPS = 16_000, 25
_FFT = 1024
_BAND = (200.0, 4000.0)
_LOUD = 0.92  # quantile of a sound's frames that counts as loud
_FLOOR_DB = -45.0  # what is quieter than this is no speech to begin with
_REACH_DB, _HEADROOM_DB = 24.0, 26.0
_RELEASE = 0.45
_CENTRES = (500.0, 2200.0)
REST_WIDTH = 0.45


def mouth_curves(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Opening and width in [0, 1] for every video frame, [sounds, frames] each.

    Args:
        samples: float32 [sounds, n] at 16 kHz in [-1, 1], mono.
    """
    frames = int(samples.shape[1] / RATE * FPS)
    spectrum = _spectrum(samples, frames)
    bins = torch.arange(spectrum.shape[2], device=samples.device) * (RATE / _FFT)
    band = spectrum * ((bins >= _BAND[0]) & (bins <= _BAND[1]))
    energy = band.sum(dim=2)
    level = 10 * torch.log10(energy + 1e-10)
    loud = torch.quantile(level, _LOUD, dim=1, keepdim=True).clamp(min=_FLOOR_DB)
    raw = ((level - loud + _REACH_DB) / _HEADROOM_DB).clamp(0, 1).pow(1.5)
    opening = _smooth(_released(raw))
    centre = (band * bins).sum(dim=2) / (energy + 1e-8)
    low, high = (math.log(value) for value in _CENTRES)
    width = ((centre.clamp(min=1).log() - low) / (high - low)).clamp(0, 1)
    heard = (raw * 4).clamp(0, 1)
    return opening, _smooth(_smooth(REST_WIDTH + (width - REST_WIDTH) * heard))


def _spectrum(samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Power [sounds, frames, bins] around the middle of every video frame."""
    hop = RATE // FPS
    padded = torch.nn.functional.pad(samples, (_FFT // 2, _FFT))
    pieces = padded.unfold(1, _FFT, hop)  # piece i is centred on sample i * hop
    shifted = padded[:, hop // 2 :].unfold(1, _FFT, hop) if hop // 2 else pieces
    window = torch.hann_window(_FFT, device=samples.device)
    return torch.fft.rfft(shifted[:, :frames] * window).abs().square() / window.sum() ** 2 * 4


def _released(raw: torch.Tensor) -> torch.Tensor:
    """Opens at once, closes by a factor a frame."""
    result = [raw[:, 0]]
    for column in raw.unbind(1)[1:]:
        result.append(torch.maximum(column, _RELEASE * result[-1]))
    return torch.stack(result, dim=1)


def _smooth(curve: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(curve[:, None], (1, 1), mode="replicate")[:, 0]
    return 0.2 * padded[:, :-2] + 0.6 * padded[:, 1:-1] + 0.2 * padded[:, 2:]
