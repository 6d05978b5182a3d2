"""Schedules of ComfyUI's own samplers: noise levels picked from a thousand shifted ones, or spaced between their ends.

What is known of each without computing is in ``facts/solvers.py``, by the same names. Formulas are those of
comfy/samplers.py and comfy/k_diffusion/sampling.py; the thousand are its ModelSamplingDiscreteFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from .schedules import TRAIN_TIMESTEPS, Schedule, shift_levels

_SECOND = 0.9999  # of the path: what takes the place of pure noise where a logarithm is taken
_FIRST_PART = 0.025  # of linear_quadratic: how far its even first half goes
_RHO = 7.0  # of Karras et al. (2022)


def core_schedule(
    name: str, steps: int, shift: float, drops_last: bool = False, starts_below: bool = False
) -> Schedule:
    """The levels that one of ComfyUI's samplers walks.

    Args:
        name: one of ``facts.solvers.SCHEDULES``.
        drops_last: make one step more, and leave out the last level above 0.
        starts_below: the first level is a little below pure noise, which stays what it starts from.
    """
    levels = _SPACINGS[name](steps + drops_last, shift)
    levels = np.append(levels[:-1] if drops_last else levels, np.float32(0))
    start = float(levels[0])
    if starts_below and start >= 1:
        levels[0] = shift_levels(np.array(_SECOND), shift)
    return Schedule(levels, start=start)


def _thousand(shift: float) -> np.ndarray:
    """The levels that it picks from, rising."""
    levels = np.arange(1, TRAIN_TIMESTEPS + 1, dtype=np.float32) / np.float32(TRAIN_TIMESTEPS)
    return shift_levels(levels, shift)


def _simple(steps: int, shift: float) -> np.ndarray:
    levels = _thousand(shift)
    return levels[[-(1 + int(step * (TRAIN_TIMESTEPS / steps))) for step in range(steps)]]


def _normal(steps: int, shift: float) -> np.ndarray:
    return shift_levels(np.linspace(*_ends(shift), steps, dtype=np.float32), shift)


def _sgm_uniform(steps: int, shift: float) -> np.ndarray:
    return shift_levels(np.linspace(*_ends(shift), steps + 1, dtype=np.float32)[:-1], shift)


def _ddim_uniform(steps: int, shift: float) -> np.ndarray:
    return _thousand(shift)[1 :: max(TRAIN_TIMESTEPS // steps, 1)][::-1]


def _beta(steps: int, shift: float) -> np.ndarray:
    """At quantiles of a Beta distribution (Lee et al. 2024, arXiv 2407.12173)."""
    from scipy.special import betaincinv

    quantiles = betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, steps, endpoint=False))
    picked = np.rint(quantiles * (TRAIN_TIMESTEPS - 1)).astype(int)
    return _thousand(shift)[picked]


def _linear_quadratic(steps: int, shift: float) -> np.ndarray:
    """Evenly to 0.025 below noise, then with growing steps, as Mochi does; the shift does not move them."""
    if steps == 1:
        return np.ones(1, np.float32)
    even = steps // 2
    curved = steps - even
    lacking = even - _FIRST_PART * steps
    quadratic = lacking / (even * curved**2)
    linear = _FIRST_PART / even - 2 * lacking / curved**2
    below = [step * _FIRST_PART / even for step in range(even)]
    below += [quadratic * step**2 + linear * step + quadratic * even**2 for step in range(even, steps)]
    return np.array([1 - level for level in below], np.float32)


def _kl_optimal(steps: int, shift: float) -> np.ndarray:
    """Evenly in the angle (Sabour et al. 2024, arXiv 2404.14507)."""
    most, least = _ends(shift)
    part = np.arange(steps, dtype=np.float32) / np.float32(steps - 1)
    return np.tan(part * math.atan(least) + (1 - part) * math.atan(most)).astype(np.float32)


def _karras(steps: int, shift: float) -> np.ndarray:
    most, least = (end ** (1 / _RHO) for end in _ends(shift))
    return ((most + np.linspace(0, 1, steps, dtype=np.float32) * (least - most)) ** _RHO).astype(np.float32)


def _exponential(steps: int, shift: float) -> np.ndarray:
    most, least = (math.log(end) for end in _ends(shift))
    return np.exp(np.linspace(most, least, steps, dtype=np.float32))


def _ends(shift: float) -> tuple[float, float]:
    """The largest and the smallest of the thousand."""
    levels = _thousand(shift)
    return float(levels[-1]), float(levels[0])


# of the number of steps and the shift: float32 [steps], falling, without the 0 at the end
_SPACINGS: Mapping[str, Callable[[int, float], np.ndarray]] = {
    "simple": _simple,
    "sgm_uniform": _sgm_uniform,
    "karras": _karras,
    "exponential": _exponential,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
    "normal": _normal,
    "linear_quadratic": _linear_quadratic,
    "kl_optimal": _kl_optimal,
}
CORE_SPACINGS = tuple(_SPACINGS)
