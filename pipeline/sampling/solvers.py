"""Timestep schedules and the solvers that walk them.

The model predicts a velocity, noise minus clean latents, on the straight path
``x_t = (1 - t) * x_0 + t * noise``; a schedule is a falling list of noise levels t in [0, 1].
What is known of each solver without computing is in ``facts/solvers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch

from ..errors import InputError, in_short
from ..facts.solvers import SOLVERS
from ..facts.words import listed

TRAIN_TIMESTEPS = 1000
DISTILLED_LEVELS = (0.999, 0.75, 0.5, 0.25)


class Solver(Protocol):
    """Steps from noise to latents. ``levels`` has one entry more than there are steps, the last 0."""

    levels: np.ndarray

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor: ...


def shift_levels(levels: np.ndarray, shift: float) -> np.ndarray:
    """Move noise levels in [0, 1] towards noise: s t / (1 + (s - 1) t) (Esser et al. 2024, eq. 23)."""
    return shift * levels / (1 + (shift - 1) * levels)


def euler_levels(steps: int, shift: float) -> np.ndarray:
    """Upstream's schedule: evenly from 1000 to 1, shifted, then 0 (wan/multitalk.py). float32."""
    timesteps = np.append(np.linspace(TRAIN_TIMESTEPS, 1, steps, dtype=np.float32), np.float32(0))
    return shift_levels(timesteps / TRAIN_TIMESTEPS, shift)


def distilled_levels(shift: float) -> np.ndarray:
    """The four levels that step-distilled LoRAs were made for (Kijai's flowmatch_distill). float32."""
    return np.append(shift_levels(np.array(DISTILLED_LEVELS), shift), 0).astype(np.float32)


def make_solver(name: str, steps: int, shift: float, generator: torch.Generator) -> Solver:
    """The solver called ``name``; a new one for every window, since some remember past steps.

    Args:
        name: one of ``facts.solvers.SOLVERS``.
        steps: number of steps; for a solver that was made for one number, that.
        shift: shift of the schedule, above 0.
        generator: CPU generator for the noise that "lcm" adds between steps.

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
    return MAKERS[name](steps, shift, generator)


class EulerSolver:
    def __init__(self, levels: np.ndarray) -> None:
        self.levels = levels

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return latents - velocity * float(self.levels[index] - self.levels[index + 1])


class Scheduler(Protocol):
    """What is used of a scheduler of the diffusers library."""

    sigmas: torch.Tensor
    timesteps: torch.Tensor

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        *,
        return_dict: bool,
        **more: torch.Generator,
    ) -> tuple[torch.Tensor, ...]: ...


class DiffusersSolver:
    """A scheduler of the diffusers library, its timesteps set."""

    def __init__(self, scheduler: Scheduler, **step_arguments: torch.Generator) -> None:
        self.scheduler = scheduler
        self.levels = scheduler.sigmas.float().cpu().numpy()
        self._arguments = step_arguments

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        timestep = self.scheduler.timesteps[index]
        # The schedulers expect a batch dimension.
        result = self.scheduler.step(velocity[None], timestep, latents[None], return_dict=False, **self._arguments)
        return result[0][0]


def _euler(steps: int, shift: float, generator: torch.Generator) -> Solver:
    return EulerSolver(euler_levels(steps, shift))


def _flowmatch_distill(steps: int, shift: float, generator: torch.Generator) -> Solver:
    return EulerSolver(distilled_levels(shift))


def _unipc(steps: int, shift: float, generator: torch.Generator) -> Solver:
    scheduler = _diffusers_class("UniPCMultistepScheduler", "unipc")(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
    )
    scheduler.set_timesteps(steps)
    return DiffusersSolver(scheduler)


def _lcm(steps: int, shift: float, generator: torch.Generator) -> Solver:
    # The levels are shifted already; a shift of 1 keeps the scheduler from doing it again.
    scheduler = _diffusers_class("FlowMatchLCMScheduler", "lcm")(shift=1.0)
    scheduler.set_timesteps(sigmas=euler_levels(steps, shift)[:-1].tolist())
    return DiffusersSolver(scheduler, generator=generator)


def _diffusers_class(name: str, solver: str) -> type:
    try:
        import diffusers

        return getattr(diffusers, name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"--sample_solver {solver}: diffusers does not work here ({in_short(error)}). "
            "Install it anew, or use --sample_solver euler."
        ) from error


# how each solver is made from the number of steps, the shift and a generator
MAKERS: Mapping[str, Callable[[int, float, torch.Generator], Solver]] = {
    "euler": _euler,
    "flowmatch_distill": _flowmatch_distill,
    "unipc": _unipc,
    "lcm": _lcm,
}
