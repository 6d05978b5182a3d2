"""Schedules: falling lists of noise levels, as upstream and other packs space them.

A level t in [0, 1] stands on the straight path ``x_t = (1 - t) * x_0 + t * noise``. Knows nothing of how the steps
between levels are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

TRAIN_TIMESTEPS = 1000
DISTILLED_LEVELS = (0.999, 0.75, 0.5, 0.25)
CAUSVID_TIMESTEPS = (999, 934, 862, 756, 603, 410, 250, 140, 74)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels, and what the model is told of them.

    Attributes:
        levels: [steps + 1] float32, falling; the last is 0 unless the schedule ends early.
        told: the timestep that the model hears at each step, where that is not 1000 times the level.
        start: what the noise is multiplied by at first.
        calls: the step that each of these levels belongs to, where the model is asked more than once in a step.
    """

    levels: np.ndarray
    told: tuple[float, ...] | None = None
    start: float = 1.0
    calls: tuple[int, ...] | None = None

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        """What the model hears at each step."""
        return self.told or tuple(float(level * TRAIN_TIMESTEPS) for level in self.levels[:-1])

    def part(self, taken: range) -> Schedule:
        """Some of its steps, one after the other."""
        told = None if self.told is None else self.told[taken.start : taken.stop]
        return Schedule(self.levels[taken.start : taken.stop + 1], told, self.start)


def shift_levels(levels: np.ndarray, shift: float) -> np.ndarray:
    """Move noise levels in [0, 1] towards noise: s t / (1 + (s - 1) t) (Esser et al. 2024, eq. 23)."""
    return shift * levels / (1 + (shift - 1) * levels)


def upstream_schedule(steps: int, shift: float) -> Schedule:
    """Upstream's: evenly from 1000 to 1, shifted, then 0 (wan/multitalk.py)."""
    timesteps = np.append(np.linspace(TRAIN_TIMESTEPS, 1, steps, dtype=np.float32), np.float32(0))
    return Schedule(shift_levels(timesteps / TRAIN_TIMESTEPS, shift))


def distilled_schedule(steps: int, shift: float) -> Schedule:
    """The four levels that step-distilled LoRAs were made for (flowmatch_distill of ComfyUI-WanVideoWrapper)."""
    return Schedule(np.append(shift_levels(np.array(DISTILLED_LEVELS), shift), 0).astype(np.float32))


def causvid_schedule(steps: int, shift: float) -> Schedule:
    """The fixed timesteps of CausVid's LoRA (flowmatch_causvid of that pack); the shift does not move them."""
    timesteps = np.append(np.array(CAUSVID_TIMESTEPS[:steps]), 0)
    return Schedule((timesteps / TRAIN_TIMESTEPS).astype(np.float32))


def solver_schedule(steps: int, shift: float) -> Schedule:
    """That of dpm++ and unipc in that pack: Wan's own, whose largest level is shifted twice, and whose timesteps are
    cut to whole numbers (wan/utils/fm_solvers.py)."""
    return _cut_to_whole(_twice_shifted(steps, shift))


def solver_beta_schedule(steps: int, shift: float) -> Schedule:
    """The same, spaced by quantiles of a Beta distribution ("…/beta")."""
    return _cut_to_whole(_by_beta(_twice_shifted(steps, shift)))


def flow_schedule(steps: int, shift: float) -> Schedule:
    """That of euler and lcm in that pack: the diffusers library's, whose smallest level is shifted twice."""
    return _ended(_flow_levels(steps, shift))


def flow_beta_schedule(steps: int, shift: float) -> Schedule:
    """The same, spaced by quantiles of a Beta distribution ("…/beta")."""
    return _ended(_by_beta(_flow_levels(steps, shift)))


def thousand_schedule(steps: int, shift: float) -> Schedule:
    """That of res_multistep in that pack: every so many of a thousand levels from 1 to 0.003."""
    every = np.linspace(1, 0.003 / 1.002, TRAIN_TIMESTEPS, dtype=np.float32)
    levels = every[[round(step * TRAIN_TIMESTEPS / steps) for step in range(steps)]]
    return Schedule(shift_levels(np.append(levels, np.float32(0)), shift).astype(np.float32))


def _twice_shifted(steps: int, shift: float) -> np.ndarray:
    return shift_levels(np.linspace(_rounded_shift(1 - 1 / TRAIN_TIMESTEPS, shift), 0, steps + 1)[:-1], shift)


def _flow_levels(steps: int, shift: float) -> np.ndarray:
    smallest = _rounded_shift(1 / TRAIN_TIMESTEPS, shift)
    return shift_levels(np.linspace(TRAIN_TIMESTEPS, smallest * TRAIN_TIMESTEPS, steps) / TRAIN_TIMESTEPS, shift)


def _rounded_shift(level: float, shift: float) -> float:
    """A level that was shifted once already, in float32."""
    return float(shift_levels(np.array(level, dtype=np.float32), shift).astype(np.float32))


def _by_beta(levels: np.ndarray) -> np.ndarray:
    """As many levels between the same ends (Lee et al. 2024, arXiv 2407.12173)."""
    from scipy.special import betaincinv

    quantiles = betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, len(levels)))
    return levels[-1] + quantiles * (levels[0] - levels[-1])


def _cut_to_whole(levels: np.ndarray) -> Schedule:
    return Schedule(
        np.append(levels, 0).astype(np.float32), tuple(float(int(level * TRAIN_TIMESTEPS)) for level in levels)
    )


def _ended(levels: np.ndarray) -> Schedule:
    return Schedule(np.append(levels, 0).astype(np.float32))


Spacing = Callable[[int, float], Schedule]  # of the number of steps and the shift
