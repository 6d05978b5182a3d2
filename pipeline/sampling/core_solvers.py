"""ComfyUI's own samplers, a step at a time: the numbers of comfy/k_diffusion/sampling.py and extra_samplers/uni_pc.py.

Several count levels as if noise were added to clean latents rather than mixed in; that is how they are there, and so
here. Those that ask the model twice a step walk a schedule with the levels between (``calls``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .noise import drawn_like
from .schedules import TRAIN_TIMESTEPS, Schedule

_LEAST = 0.001  # where uni_pc ends instead of at 0


class _Steps:
    """What these samplers have in common: levels as numbers, and where the noise comes from."""

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        self.schedule = schedule
        self.generator = generator
        self.levels = [float(level) for level in schedule.levels]

    def clean(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        return latents - self.levels[index] * velocity

    def noise(self, latents: Tensor) -> Tensor:
        return drawn_like(latents, self.generator)


class EulerAncestral(_Steps):
    """Half of each step back to noise, mixed so that the level is right ("euler_ancestral")."""

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        level, following = self.levels[index : index + 2]
        if following == 0:
            return clean
        down = following * (following / level)
        left, kept = down / level, (1 - following) / (1 - down)
        new = (following**2 - down**2 * kept**2) ** 0.5
        return kept * (left * latents + (1 - left) * clean) + new * self.noise(latents)


class Lcm(_Steps):
    """To the clean latents and back to the next level with new noise; none is drawn for the last ("lcm")."""

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        following = self.levels[index + 1]
        return clean if following == 0 else following * self.noise(latents) + (1 - following) * clean


class Dpm2M(_Steps):
    """DPM-Solver++ of second order over the logarithm of the level ("dpmpp_2m")."""

    _previous: Tensor | None = None

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        previous, self._previous = self._previous, clean
        level, following = self.levels[index : index + 2]
        if following == 0:
            return clean
        towards = clean
        if previous is not None:
            half = math.log(level / following) / math.log(self.levels[index - 1] / level) / 2
            towards = (1 + half) * clean - half * previous
        left = following / level
        return left * latents + (1 - left) * towards


class Dpm2MSde(_Steps):
    """The same of the stochastic equation ("dpmpp_2m_sde"), or of third order ("dpmpp_3m_sde")."""

    order = 2

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        super().__init__(schedule, generator)
        self._added = BrownianNoise(schedule, generator)
        self._before: list[tuple[Tensor, float]] = []  # clean latents, and the step that followed them; last first

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        level, following = self.levels[index : index + 2]
        if following == 0:
            return clean
        length = _log_ratio(following) - _log_ratio(level)
        weight = (1 - following) * -math.expm1(-2 * length)
        moved = following / level * math.exp(-length) * latents + weight * clean
        moved = moved + self._higher(clean, length, 1 - following)
        self._before = [(clean, length), *self._before[: self.order - 2]]
        return moved + self._added(latents, level, following) * (following * math.sqrt(-math.expm1(-2 * length)))

    def _higher(self, clean: Tensor, length: float, scale: float) -> Tensor | float:
        """What earlier predictions add."""
        if not self._before:
            return 0.0
        previous, before = self._before[0]
        slope = (clean - previous) * (length / before)
        double = 2 * length
        if self.order == 2:
            return 0.5 * scale * -math.expm1(-double) * slope
        second = math.expm1(-double) / double + 1
        if len(self._before) == 1:
            return scale * second * slope
        earlier, first = self._before[1]
        r0, r1 = before / length, first / length
        older = (previous - earlier) / r1
        third = second / double - 0.5
        bent = (slope - older) / (r0 + r1)
        return scale * second * (slope + bent * r0) - scale * third * bent


class Dpm3MSde(Dpm2MSde):
    order = 3


class DpmSde(_Steps):
    """DPM-Solver++ of the stochastic equation, which asks the model in the middle of each step too ("dpmpp_sde")."""

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        levels = [float(level) for level in schedule.levels]
        between = [_middle(*pair) for pair in zip(levels[:-2], levels[1:-1], strict=True)]
        super().__init__(_with_calls_between(schedule, between), generator)
        self._added = BrownianNoise(schedule, generator)
        self._start: Tensor | None = None  # latents where the step began

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        level, following = self.levels[index : index + 2]
        if self._start is None:
            if following == 0:
                return clean
            self._start = latents
            return self._moved(latents, clean, level, following)
        began, self._start = self._start, None
        return self._moved(began, clean, self.levels[index - 1], following)  # with r = 1/2 only the second counts

    def _moved(self, latents: Tensor, clean: Tensor, level: float, following: float) -> Tensor:
        """From one level to another, part of it to noise and back.

        In float32, as there: little of a large difference is left where a step is long.
        """
        levels = torch.tensor([level, following])
        ratios = levels.logit().neg()
        (start, end), (kept, scale) = ratios.neg().exp(), levels * ratios.exp()
        up = torch.minimum(end, (end**2 * (start**2 - end**2) / start**2) ** 0.5)
        back = ((end**2 - up**2) ** 0.5).log() + ratios[0]
        moved = float(scale / kept * back.exp()) * latents - float(scale * back.expm1()) * clean
        return moved + float(scale * up) * self._added(latents, level, following)


class ResMultistep(_Steps):
    """The exponential integrator of second order over the logarithm of the level ("res_multistep")."""

    eta = 0.0

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        super().__init__(schedule, generator)
        self._previous: tuple[Tensor, float] | None = None  # clean latents, and the level that their step aimed at

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        level, following = self.levels[index : index + 2]
        up = min(following, self.eta * (following**2 * (level**2 - following**2) / level**2) ** 0.5)
        down = (following**2 - up**2) ** 0.5
        if down == 0 or self._previous is None:
            moved = latents + velocity * (down - level)
        else:
            moved = self._second_order(index, clean, latents, down)
        self._previous = clean, down
        return moved + self.noise(latents) * up if up else moved

    def _second_order(self, index: int, clean: Tensor, latents: Tensor, down: float) -> Tensor:
        assert self._previous is not None
        previous, aimed = self._previous
        level = self.levels[index]
        length = math.log(level / down)
        back = math.log(aimed / self.levels[index - 1]) / length
        phi1 = -math.expm1(-length) / length
        phi2 = (1 - phi1) / length
        of_previous = phi2 / back if back else 0.0
        of_clean = phi1 - of_previous if back else 0.0
        return down / level * latents + length * (of_clean * clean + of_previous * previous)


class ResMultistepAncestral(ResMultistep):
    eta = 1.0


class GradientEstimation(_Steps):
    """Euler, led by how the direction changed ("gradient_estimation"; Permenter and Yuan 2023, arXiv 2306.04848)."""

    _previous: Tensor | None = None

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        previous, self._previous = self._previous, velocity
        level, following = self.levels[index : index + 2]
        if following == 0:
            return self.clean(index, velocity, latents)
        led = velocity if previous is None else 2 * velocity - previous
        return latents + led * (following - level)


class Ipndm(_Steps):
    """Adams-Bashforth of up to fourth order, as if steps were equal ("ipndm"; Zhang and Chen 2022)."""

    _WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        super().__init__(schedule, generator)
        self._found: list[Tensor] = []  # velocities, the last first

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        self._found = [velocity, *self._found[:3]]
        level, following = self.levels[index : index + 2]
        if following == 0:
            return self.clean(index, velocity, latents)
        weights = self._WEIGHTS[len(self._found) - 1]
        return latents + (following - level) * _sum(weights, self._found)


class Heun(_Steps):
    """The trapezoid rule: the model is asked at both ends of a step ("heun"; Karras et al. 2022)."""

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        super().__init__(_with_calls_between(schedule, [float(level) for level in schedule.levels[1:-1]]), generator)
        self._start: tuple[Tensor, Tensor] | None = None  # latents and velocity where the step began

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        level, following = self.levels[index : index + 2]
        if self._start is None:
            if following:
                self._start = latents, velocity
            return latents + velocity * (following - level)
        (began, first), self._start = self._start, None
        return began + (first + velocity) / 2 * (level - self.levels[index - 1])


class ErSde(_Steps):
    """The extended reverse-time equation, of third order ("er_sde"; Cui et al. 2023, arXiv 2309.06169)."""

    _POINTS = 200

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        super().__init__(schedule, generator)
        self._before: list[tuple[Tensor, Tensor | None]] = []  # clean latents and their slope, the last first
        with np.errstate(divide="ignore"):
            self._ratios = [level / (1 - level) for level in self.levels]

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        following = self.levels[index + 1]
        if following == 0:
            return clean
        start, end = self._ratios[index : index + 2]
        kept, scale = _er_scaled(end) / _er_scaled(start), 1 - following
        moved = scale / (1 - self.levels[index]) * kept * latents + scale * (1 - kept) * clean
        slope = None
        if self._before:
            length = (start - end) / self._POINTS
            points = end + np.arange(self._POINTS) * length
            of_points = _er_scaled(points)
            slope = (clean - self._before[0][0]) / (start - self._ratios[index - 1])
            moved = moved + scale * (end - start + np.sum(1 / of_points) * length * _er_scaled(end)) * slope
            older = self._before[0][1]
            if older is not None:
                bent = (slope - older) / ((start - self._ratios[index - 2]) / 2)
                part = np.sum((points - start) / of_points) * length * _er_scaled(end)
                moved = moved + scale * ((end - start) ** 2 / 2 + part) * bent
        self._before = [(clean, slope)]
        return moved + scale * self.noise(latents) * max(end**2 - start**2 * kept**2, 0.0) ** 0.5


class UniPc(_Steps):
    """UniPC of up to third order ("uni_pc", "uni_pc_bh2"; Zhao et al. 2023, arXiv 2302.04867).

    There it takes the path for one on which noise is added and both are scaled down, ends at level 0.001, and divides
    by what is left of the scale at that level.

    Args:
        variant: 1 or 2: which B(h) it has.
    """

    def __init__(self, schedule: Schedule, generator: torch.Generator, variant: int) -> None:
        super().__init__(schedule, generator)
        self._variant = variant
        self._scales, self._spreads, self._times = _scaled_path(torch.tensor([*self.levels[:-1], _LEAST]))
        self._order = min(3, len(self.levels) - 2)
        self._corrected: Tensor | None = None  # scaled down, at the level before
        self._found: list[Tensor] = []  # clean latents at the levels so far, the last first; as many as are used

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        clean = self.clean(index, velocity, latents)
        if self._corrected is None:
            self._corrected = latents * self._scales[0]
        else:
            self._corrected = self._towards(index, self._corrected, clean)
        self._found = [clean, *self._found[: self._order - 1]]
        predicted = self._towards(index + 1, self._corrected, None)
        following = predicted / self._scales[index + 1]
        return following if index + 2 < len(self._scales) else following / (1 - _LEAST)

    def _order_at(self, index: int) -> int:
        return index if index < self._order else min(self._order, len(self._scales) - index)

    def _towards(self, index: int, latents: Tensor, clean: Tensor | None) -> Tensor:
        """The step to a level: predicted, or corrected by what the model said there."""
        order, length = self._order_at(index), self._times[index - 1] - self._times[index]  # below 0
        ratios = [(self._times[index - 1 - past] - self._times[index - 1]) / -length for past in range(1, order)]
        slopes = [(self._found[past] - self._found[0]) / ratios[past - 1] for past in range(1, order)]
        first = math.expm1(length)
        of_b = length if self._variant == 1 else first
        matrix, right = _uni_pc_system([*ratios, 1.0], length, of_b)
        scale = self._scales[index]
        moved = self._spreads[index] / self._spreads[index - 1] * latents - scale * first * self._found[0]
        if clean is None:
            weights = [] if order == 1 else [0.5] if order == 2 else np.linalg.solve(matrix[:-1, :-1], right[:-1])
            return moved - scale * of_b * _sum(weights, slopes) if slopes else moved
        weights = [0.5] if order == 1 else np.linalg.solve(matrix, right)
        return moved - scale * of_b * _sum(weights, [*slopes, clean - self._found[0]])


def _scaled_path(levels: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Scale, spread and the logarithm of their ratio at each level.

    In float32, as there: at the last level, where the scale is nearly 1, the spread is 2 % off.
    """
    log_scale = 0.5 * torch.log(1 / (levels * levels + 1))
    squared = 1 - torch.exp(2 * log_scale)
    return log_scale.exp().tolist(), squared.sqrt().tolist(), (log_scale - 0.5 * squared.log()).tolist()


def _uni_pc_system(ratios: list[float], length: float, of_b: float) -> tuple[np.ndarray, np.ndarray]:
    """What the weights solve."""
    rows, right = [], []
    phi, factorial = math.expm1(length) / length - 1, 1
    for number in range(1, len(ratios) + 1):
        rows.append(np.power(ratios, number - 1))
        right.append(phi * factorial / of_b)
        factorial *= number + 1
        phi = phi / length - 1 / factorial
    return np.stack(rows), np.array(right)


class BrownianNoise:
    """Noise of steps as increments of one Brownian path between the first level and the last above 0.

    So that the same seed gives the same path, however it is cut into steps. The path is torchsde's (Li et al. 2020,
    arXiv 2001.01328), on the CPU.
    """

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        above = schedule.levels[schedule.levels > 0]
        self._ends = float(above.min()), float(max(above.max(), schedule.start))
        self._seed = generator.initial_seed()
        self._path: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, latents: Tensor, level: float, following: float) -> Tensor:
        if self._path is None:
            self._path = self._grown(latents)
        low, high = torch.tensor(following), torch.tensor(level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it rounds its ends to six digits and then finds us beyond them
            moved = -self._path(low, high) / (high - low).sqrt()  # from high to low
        return moved[0].to(latents.device)

    def _grown(self, latents: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        import torchsde

        low, high = (torch.tensor(end) for end in self._ends)
        return torchsde.BrownianTree(low, torch.zeros((1, *latents.shape)), high, entropy=self._seed)


def _with_calls_between(schedule: Schedule, between: list[float]) -> Schedule:
    """The schedule with a level within each step but the last, at which the model is asked too."""
    levels, calls = [], []
    for step, level in enumerate(schedule.levels[:-1]):
        levels.append(level)
        calls.append(step)
        if step < len(between):
            levels.append(np.float32(between[step]))
            calls.append(step)
    walked = np.array([*levels, schedule.levels[-1]], np.float32)
    return Schedule(
        walked, tuple(float(level * TRAIN_TIMESTEPS) for level in walked[:-1]), schedule.start, tuple(calls)
    )


def _middle(level: float, following: float) -> float:
    """Half way in the logarithm of the ratio; in float32, as there, since the path is looked up by it."""
    begin, end = torch.tensor([level, following]).logit().neg()
    return float((begin + 0.5 * (end - begin)).neg().sigmoid())


def _log_ratio(level: float) -> float:
    """Of clean latents to noise."""
    return math.log((1 - level) / level)


def _er_scaled(ratio: float | np.ndarray) -> float | np.ndarray:
    return ratio * (np.exp(ratio**0.3) + 10.0)


def _sum(weights: Sequence[float] | np.ndarray, parts: list[Tensor]) -> Tensor:
    total = float(weights[0]) * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = total + float(weight) * part
    return total
