"""Resampling by a windowed sinc, block by block: the numbers of torchaudio's ``functional.resample``.

What other packs resample with. Hann window, six zero crossings, cut off at 0.99 of the lower rate (J. O. Smith,
"Digital Audio Resampling"). Knows nothing of what the sound is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

_CROSSINGS = 6
_ROLLOFF = 0.99


def resampled_length(num_samples: int, rate: int, target: int) -> int:
    """Samples after resampling: rounded up."""
    shared = math.gcd(rate, target)
    return math.ceil((target // shared) * num_samples / (rate // shared))


def resample(blocks: Iterable[np.ndarray], rate: int, target: int, exact_kernel: bool = False) -> Iterator[np.ndarray]:
    """Sound at another rate.

    Args:
        blocks: float32 [channels, n], one after the other.
        exact_kernel: make the filter in float64 and round it, as torchaudio's ``transforms.Resample`` does, rather
            than in float32, as ``functional.resample`` does.

    Yields:
        float32 [channels, m], in all ``resampled_length`` samples of a channel.
    """
    if rate == target:
        yield from blocks
        return
    shared = math.gcd(rate, target)
    old, new = rate // shared, target // shared
    kernel, width = _kernel(old, new, torch.float64 if exact_kernel else torch.float32)
    pending: torch.Tensor | None = None
    heard = made = 0
    for block in blocks:
        fresh = torch.from_numpy(np.ascontiguousarray(block, np.float32))
        heard += fresh.shape[1]
        pending = F.pad(fresh, (width, 0)) if pending is None else torch.cat([pending, fresh], dim=1)
        steps = (pending.shape[1] - kernel.shape[2]) // old + 1
        if steps > 0:
            yield _filtered(pending[:, : (steps - 1) * old + kernel.shape[2]], kernel, old)
            pending = pending[:, steps * old :]
            made += steps * new
    if pending is None:
        return
    missing = math.ceil(new * heard / old) - made
    if missing > 0:
        steps = -(-missing // new)
        needed = (steps - 1) * old + kernel.shape[2]
        rest = F.pad(pending, (0, max(0, needed - pending.shape[1])))[:, :needed]
        yield _filtered(rest, kernel, old)[:, :missing]


def _kernel(old: int, new: int, dtype: torch.dtype) -> tuple[torch.Tensor, int]:
    """The filters [new, 1, taps] of one period in float32, and how far they reach back."""
    cut = min(old, new) * _ROLLOFF
    width = math.ceil(_CROSSINGS * old / cut)
    places = torch.arange(-width, width + old, dtype=dtype)[None, None] / old
    times = torch.arange(0, -new, -1, dtype=torch.float32)[:, None, None] / new + places  # in float32 there as well
    times = (times * cut).clamp(-_CROSSINGS, _CROSSINGS)
    window = torch.cos(times * math.pi / _CROSSINGS / 2) ** 2
    times = times * math.pi
    sinc = torch.where(times == 0, torch.ones((), dtype=dtype), times.sin() / times)
    return (sinc * (window * (cut / old))).float(), width


def _filtered(samples: torch.Tensor, kernel: torch.Tensor, step: int) -> np.ndarray:
    periods = F.conv1d(samples[:, None], kernel, stride=step)  # [channels, new, steps]
    return periods.transpose(1, 2).reshape(samples.shape[0], -1).numpy()
