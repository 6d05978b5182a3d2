"""The solvers that walk a schedule from noise to latents, and the table of them.

The model predicts a velocity, noise minus clean latents, on the straight path
``x_t = (1 - t) * x_0 + t * noise``. What is known of each solver without computing is in ``facts/solvers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..errors import InputError, in_short
from ..facts.solvers import SCHEDULES, SOLVERS
from ..facts.words import listed
from . import core_solvers, schedules
from .core_schedules import core_schedule
from .noise import drawn_like
from .schedules import Schedule, Spacing


class Solver(Protocol):
    """Steps from noise to latents; ``schedule`` is what it walks."""

    schedule: Schedule

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor: ...


def make_solver(
    name: str,
    steps: int,
    shift: float,
    generator: torch.Generator,
    taken: range | None = None,
    spacing: str | None = None,
) -> Solver:
    """The solver called ``name``; a new one for every window, since some remember past steps.

    Args:
        name: one of ``facts.solvers.SOLVERS``.
        steps: number of steps of the schedule; for a solver that was made for one number, that.
        shift: shift of the schedule, above 0.
        generator: for the noise that some add between steps.
        taken: those of the steps that are taken; None: all.
        spacing: for ComfyUI's own solvers, one of ``facts.solvers.SCHEDULES``; None: the first.

    Raises:
        InputError: a wrong number of steps, or a package that it needs is missing.
    """
    if name not in SOLVERS:
        raise InputError(f"--sample_solver {name} is unknown; choose {listed(tuple(SOLVERS), 'or')}.")
    facts = SOLVERS[name]
    facts.check()
    if facts.steps not in (None, steps):
        raise InputError(
            f"--sample_solver {name} was made for {facts.steps} steps; --sample_steps is {steps}. "
            f"Set --sample_steps {facts.steps}, or use --sample_solver euler."
        )
    maker = MAKERS[name]
    if facts.comfy:
        chosen = spacing or next(iter(SCHEDULES))
        schedule = core_schedule(chosen, steps, shift, facts.drops_last, facts.starts_below)
    else:
        schedule = maker.spacing(steps, shift)
    return maker.walk(schedule if taken is None else schedule.part(taken), generator)


class EulerSolver:
    """Straight on from level to level."""

    def __init__(self, schedule: Schedule, generator: torch.Generator | None = None) -> None:
        self.schedule = schedule

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        levels = self.schedule.levels
        return latents - velocity * float(levels[index] - levels[index + 1])


class LcmSolver:
    """To the clean latents and back to the next level, each time with new noise (Luo et al. 2023, arXiv 2310.04378)."""

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        self.schedule = schedule
        self._generator = generator

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        level, following = (float(level) for level in self.schedule.levels[index : index + 2])
        clean = latents - level * velocity
        return (1 - following) * clean + following * drawn_like(latents, self._generator)


class DpmSolver:
    """DPM-Solver++ of second order, of the ordinary or of the stochastic equation (Lu et al. 2022, arXiv 2211.01095).

    As Wan and ComfyUI-WanVideoWrapper have it: the first step and the last are of first order, and the stochastic one
    draws noise for every step, for the last too, where it counts nothing.

    Args:
        stochastic: whether noise is added.
    """

    def __init__(self, schedule: Schedule, generator: torch.Generator, stochastic: bool) -> None:
        self.schedule = schedule
        self._generator = generator
        self._stochastic = stochastic
        self._previous: torch.Tensor | None = None
        levels = schedule.levels.astype(np.float64)
        with np.errstate(divide="ignore"):  # the last level is 0
            self._log_ratios = np.log(1 - levels) - np.log(levels)

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        level, following = (float(level) for level in self.schedule.levels[index : index + 2])
        clean = latents - level * velocity
        towards = self._extrapolated(index, clean)
        self._previous = clean
        left = following * (1 - level) / ((1 - following) * level)  # exp of minus the step in the log of the ratio
        if not self._stochastic:
            return following / level * latents + (1 - following) * (1 - left) * towards
        noise = drawn_like(latents, self._generator)
        return (
            following / level * left * latents
            + (1 - following) * (1 - left**2) * towards
            + following * (1 - left**2) ** 0.5 * noise
        )

    def _extrapolated(self, index: int, clean: torch.Tensor) -> torch.Tensor:
        """Where the path leads to, from this prediction of the clean latents and the one before."""
        if self._previous is None or index == len(self.schedule.levels) - 2:
            return clean
        before, now, after = self._log_ratios[index - 1 : index + 2]
        return clean + float((after - now) / (now - before) / 2) * (clean - self._previous)


class ResMultistepSolver:
    """The second-order exponential integrator of ComfyUI-WanVideoWrapper's "res_multistep".

    Args:
        schedule: whose last step is taken straight, as the first.
    """

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        self.schedule = schedule
        self._previous: torch.Tensor | None = None

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        level, following = (float(level) for level in self.schedule.levels[index : index + 2])
        clean = latents - level * velocity
        previous, self._previous = self._previous, clean
        if previous is None or following == 0:
            return latents + velocity * (following - level)
        before = float(self.schedule.levels[index - 1])
        step = np.log(level / following)
        back = np.log(level / before) / step  # negative: where the last prediction was
        phi1 = -np.expm1(-step) / step
        phi2 = (1 - phi1) / step
        of_previous = phi2 / back
        return following / level * latents + float(step) * (
            float(phi1 - of_previous) * clean + float(of_previous) * previous
        )


class Scheduler(Protocol):
    """What is used of a scheduler of the diffusers library."""

    sigmas: torch.Tensor
    timesteps: torch.Tensor
    num_inference_steps: int

    def set_timesteps(self, num_inference_steps: int) -> None: ...

    def set_begin_index(self, begin_index: int) -> None: ...

    def step(
        self, model_output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, *, return_dict: bool
    ) -> tuple[torch.Tensor, ...]: ...


class UniPcSolver:
    """UniPC of second order, as the diffusers library has it (Zhao et al. 2023, arXiv 2302.04867)."""

    def __init__(self, schedule: Schedule, generator: torch.Generator) -> None:
        self.schedule = schedule
        self._scheduler = _unipc(1.0)
        self._scheduler.set_timesteps(len(schedule.levels) - 1)
        self._scheduler.sigmas = torch.from_numpy(schedule.levels)
        self._scheduler.set_begin_index(0)

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        timestep = self._scheduler.timesteps[index]
        # The schedulers expect a batch dimension.
        return self._scheduler.step(velocity[None], timestep, latents[None], return_dict=False)[0][0]


def _unipc_schedule(steps: int, shift: float) -> Schedule:
    """That of the diffusers library."""
    scheduler = _unipc(shift)
    scheduler.set_timesteps(steps)
    return Schedule(scheduler.sigmas.float().cpu().numpy())


def _unipc(shift: float) -> Scheduler:
    try:
        from diffusers import UniPCMultistepScheduler

        return UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"--sample_solver unipc: diffusers does not work here ({in_short(error)}). "
            "Install it anew, or use --sample_solver euler."
        ) from error


def _unspaced(steps: int, shift: float) -> Schedule:
    raise AssertionError("core_schedule spaces these")


def _uni_pc(variant: int) -> Callable[[Schedule, torch.Generator], Solver]:
    return lambda schedule, generator: core_solvers.UniPc(schedule, generator, variant)


def _dpm(schedule: Schedule, generator: torch.Generator) -> Solver:
    return DpmSolver(schedule, generator, stochastic=False)


def _dpm_sde(schedule: Schedule, generator: torch.Generator) -> Solver:
    return DpmSolver(schedule, generator, stochastic=True)


@dataclass(frozen=True)
class Maker:
    """How a solver is made: its schedule from the number of steps and the shift, and what walks it."""

    spacing: Spacing
    walk: Callable[[Schedule, torch.Generator], Solver]


MAKERS: Mapping[str, Maker] = {
    "euler": Maker(schedules.upstream_schedule, EulerSolver),
    "flowmatch_distill": Maker(schedules.distilled_schedule, EulerSolver),
    "unipc": Maker(_unipc_schedule, UniPcSolver),
    "lcm": Maker(schedules.upstream_schedule, LcmSolver),
    "dpm++": Maker(schedules.solver_schedule, _dpm),
    "dpm++_sde": Maker(schedules.solver_schedule, _dpm_sde),
    "dpm++/beta": Maker(schedules.solver_beta_schedule, _dpm),
    "dpm++_sde/beta": Maker(schedules.solver_beta_schedule, _dpm_sde),
    "flowmatch_causvid": Maker(schedules.causvid_schedule, EulerSolver),
    "kijai:euler": Maker(schedules.flow_schedule, EulerSolver),
    "kijai:euler/beta": Maker(schedules.flow_beta_schedule, EulerSolver),
    "kijai:unipc": Maker(schedules.solver_schedule, UniPcSolver),
    "kijai:unipc/beta": Maker(schedules.solver_beta_schedule, UniPcSolver),
    "kijai:lcm": Maker(schedules.flow_schedule, LcmSolver),
    "kijai:lcm/beta": Maker(schedules.flow_beta_schedule, LcmSolver),
    "kijai:res_multistep": Maker(schedules.thousand_schedule, ResMultistepSolver),
    "comfy:euler": Maker(_unspaced, EulerSolver),
    "comfy:euler_ancestral": Maker(_unspaced, core_solvers.EulerAncestral),
    "comfy:heun": Maker(_unspaced, core_solvers.Heun),
    "comfy:dpmpp_2m": Maker(_unspaced, core_solvers.Dpm2M),
    "comfy:dpmpp_sde": Maker(_unspaced, core_solvers.DpmSde),
    "comfy:dpmpp_2m_sde": Maker(_unspaced, core_solvers.Dpm2MSde),
    "comfy:dpmpp_3m_sde": Maker(_unspaced, core_solvers.Dpm3MSde),
    "comfy:lcm": Maker(_unspaced, core_solvers.Lcm),
    "comfy:ipndm": Maker(_unspaced, core_solvers.Ipndm),
    "comfy:res_multistep": Maker(_unspaced, core_solvers.ResMultistep),
    "comfy:res_multistep_ancestral": Maker(_unspaced, core_solvers.ResMultistepAncestral),
    "comfy:gradient_estimation": Maker(_unspaced, core_solvers.GradientEstimation),
    "comfy:er_sde": Maker(_unspaced, core_solvers.ErSde),
    "comfy:uni_pc": Maker(_unspaced, _uni_pc(1)),
    "comfy:uni_pc_bh2": Maker(_unspaced, _uni_pc(2)),
}
