"""The denoising of one window: the loop over steps.

Knows neither where conditions come from nor what becomes of the latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..models.transformer.block import Block
from ..models.transformer.model import Context, StepCache
from .guidance import Branch
from .solvers import Solver


class Predictor(Protocol):
    """The transformer, on whatever cards."""

    def __call__(
        self,
        latents: torch.Tensor,
        reference: torch.Tensor,
        timestep: float,
        contexts: Sequence[Context],
        blocks: Iterable[Block],
        cache: StepCache | None = None,
    ) -> list[torch.Tensor]:
        """See ``WanTransformer.forward``."""
        ...


@dataclass(frozen=True)
class Conditions:
    """What a window is made by.

    Attributes:
        reference: mask and reference latents, [4 + z, T, h, w].
        held: clean latents [z, n, h, w] of the motion frames; the first n latents are held to them.
        contexts: what each guidance branch attends to, for every step.
        guides: combine the branches' velocities, one for every step.
        held_within: whether the first latents are held at every step, and so for the solver too, rather than only in
            what the model sees.
        held_at_end: whether they are held when all steps are done.
    """

    reference: torch.Tensor
    held: torch.Tensor
    contexts: Sequence[Mapping[Branch, Context]]
    guides: Sequence[Callable[[dict[Branch, torch.Tensor]], torch.Tensor]]
    held_within: bool = True
    held_at_end: bool = True


def denoise(
    model: Predictor,
    blocks: Iterable[Block],
    noise: torch.Tensor,
    conditions: Conditions,
    solver: Solver,
    cache: StepCache | None = None,
    on_step: Callable[[int, torch.Tensor], None] = lambda done, estimate: None,
) -> torch.Tensor:
    """From noise to clean latents.

    Args:
        noise: [z, T, h, w] float32 on the model's device.
        on_step: called after each step with the number of steps done, and the clean latents as the step's
            velocity tells them.

    Returns:
        [z, T, h, w] float32.
    """
    reference, held, schedule = conditions.reference, conditions.held, solver.schedule
    first = slice(held.shape[1])
    latents = noise.clone() if schedule.start == 1 else noise * schedule.start
    calls = schedule.calls or tuple(range(len(schedule.timesteps)))
    for index, (timestep, step) in enumerate(zip(schedule.timesteps, calls, strict=True)):
        branches, level = conditions.contexts[step], float(schedule.levels[index])
        aside = latents[:, first].clone()
        latents[:, first] = held
        velocities = model(latents, reference, timestep, list(branches.values()), blocks, cache)
        velocity = conditions.guides[step](dict(zip(branches, velocities, strict=True)))
        estimate = latents - level * velocity
        if not conditions.held_within:
            velocity[:, first] += (aside - held) / level  # leads from where the solver is to the same estimate
            latents[:, first] = aside
        latents = solver.step(index, velocity, latents)
        if conditions.held_within:
            latents[:, first] = held
        if index + 1 == len(calls) or calls[index + 1] != step:
            on_step(step + 1, estimate)
    if conditions.held_at_end:
        latents[:, first] = held
    return latents
