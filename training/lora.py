"""Distils the transformer's twenty steps into four, as a LoRA in the form that lightx2v publishes.

The teacher walks from noise to latents in small steps; the student, the same network with a LoRA, learns
to go from one of its few noise levels to the next in a single step, to where the teacher came: first
from where the teacher was, later from where it came itself. Since the paths belong to their noise, what
is chance (head, blinks, gaze) stays chance. Needs no new data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ..pipeline.lora.reading import read_lora
from ..pipeline.models.transformer.block import TransformerConfig
from ..pipeline.sampling.schedules import distilled_schedule, shift_levels, upstream_schedule
from ..tests.support.lora_files import Layer, comfy
from .training import Clock, Optimizer
from .transformer import Sampler, fastest
from .transformer_network import CONFIG, Conditions, Network, Parameters

FILE = "lora.safetensors"
RANK, SHIFT, RATE = 16, 5.0, 1e-3
_MODULES = re.compile(
    r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qo]|ffn\.[02]|audio_cross_attn\.(q_linear|kv_linear|proj))\.weight$"
)
_TEACHER = 20  # steps from noise to latents, spaced as the engine's are
_SHORT = 0.02  # a step over less noise than this is the teacher's own
_ALONE = 0.5  # part of the training after which the student learns from where it came itself


def schedules() -> list[list[float]]:
    """The student's noise levels: those of the two solvers that take four steps."""
    return [spacing(4, SHIFT).levels.tolist() for spacing in (distilled_schedule, upstream_schedule)]


@dataclass(frozen=True)
class Paths:
    """Where the teacher came.

    Attributes:
        points: float16 [paths, levels, 16, T, h, w], from noise to latents.
        held: latents that are known, [paths, T]; every point has them.
        weight: of the loss, [paths, T, h, w].
    """

    points: torch.Tensor
    levels: list[float]
    held: torch.Tensor
    weight: torch.Tensor
    given: Conditions

    def conditions(self, rows: torch.Tensor | slice) -> Conditions:
        return Conditions(*(getattr(self.given, field.name)[rows].float() for field in fields(Conditions)))


@torch.no_grad()
def walk(network: Network, sampler: Sampler, batches: int) -> Paths:
    """The teacher's paths, ``batches`` times the sampler's batch."""
    levels = sorted({level for schedule in schedules() for level in schedule}, reverse=True)
    points, held, weights, given = [], [], [], []
    for _ in range(batches):
        _, conditions, known, kept, weight = sampler.draw()
        x = torch.where(kept[:, None, :, None, None], known, torch.randn_like(known))
        reached = [x.half()]
        for start, stop in zip(levels, levels[1:], strict=False):
            between = _between(start, stop)
            for level, following in zip(between, between[1:], strict=False):
                x = _step(network, x, level, following, kept, conditions)
            reached.append(x.half())
        points.append(torch.stack(reached, dim=1))
        held.append(kept)
        weights.append(weight)
        given.append([getattr(conditions, field.name).half() for field in fields(Conditions)])
    joined = Conditions(*(torch.cat(column) for column in zip(*given, strict=True)))
    return Paths(torch.cat(points), levels, torch.cat(held), torch.cat(weights), joined)


def _between(start: float, stop: float) -> list[float]:
    """The teacher's levels from one to another, evenly spaced before the schedule's shift."""
    first, last = (level / (SHIFT - (SHIFT - 1) * level) for level in (start, stop))
    steps = max(1, round(_TEACHER * (first - last)))
    return [start, *shift_levels(np.linspace(first, last, steps + 1)[1:-1], SHIFT).tolist(), stop]


def _step(
    network: Network, x: torch.Tensor, level: float, following: float, held: torch.Tensor, given: Conditions
) -> torch.Tensor:
    """One Euler step that leaves the held latents as they are."""
    velocity = network(x, torch.full((len(x),), level * 1000, device=x.device), given)
    return torch.where(held[:, None, :, None, None], x, x - velocity * (level - following))


@torch.no_grad()
def walk_alone(
    network: Network, paths: Paths, seen: torch.Tensor, pairs: list[tuple[float, float]], count: int
) -> None:
    """Put into ``seen`` [paths, pairs, ...] where the student comes by its own steps."""
    for begin in range(0, len(seen), count):
        rows = slice(begin, begin + count)
        given = paths.conditions(rows)
        for schedule in schedules():
            x = paths.points[rows, 0].float()
            for pair in zip(schedule, schedule[1:], strict=False):
                if pair in pairs:
                    seen[rows, pairs.index(pair)] = x.half()
                x = _step(network, x, *pair, paths.held[rows], given)


def with_lora(parameters: Parameters, factors: Parameters) -> Parameters:
    """The network's parameters with the LoRA's products added."""
    result = dict(parameters)
    for name, up in factors.items():
        if name.endswith(".up"):
            weight = name.removesuffix(".up")
            result[weight] = parameters[weight] + up @ factors[f"{weight}.down"]
    return result


def with_file(parameters: Parameters, path: Path) -> Parameters:
    """The network's parameters with a LoRA file's changes added."""
    changes = read_lora(path, {name: tuple(p.shape) for name, p in parameters.items()}).changes
    result = dict(parameters)
    for name, several in changes.items():
        p = parameters[name]
        result[name] = p + sum(change.dense(tuple(p.shape), p.device) for change in several)
    return result


def initial_factors(parameters: Parameters) -> Parameters:
    """Rank-``RANK`` factors of every matrix that the LoRA changes; they change nothing yet."""
    factors = {}
    for name, weight in parameters.items():
        if _MODULES.match(name):
            factors[f"{name}.up"] = torch.zeros(weight.shape[0], RANK, device=weight.device)
            factors[f"{name}.down"] = torch.randn(RANK, weight.shape[1], device=weight.device) * weight.shape[1] ** -0.5
    return {name: factor.requires_grad_() for name, factor in factors.items()}


def train(
    parameters: Parameters,
    sampler: Sampler,
    out: Path,
    seconds: float,
    look: Callable[[Parameters, str], None],
    batches: int = 48,
    graph: bool = True,
    compile_blocks: bool = True,
    config: TransformerConfig = CONFIG,
) -> None:
    """Walk, train for the rest of the time, and write ``lora.safetensors``.

    Args:
        parameters: the teacher's, float32.
        look: called with parameters and a name, before and after.
    """
    device = sampler.data.latents.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    clock = Clock(seconds, flat=0.4)
    parameters = {name: p.detach() for name, p in parameters.items()}
    look(parameters, "without LoRA")
    network = Network(config, parameters, dtype)
    paths = walk(network, sampler, batches)
    network = Network(config, parameters, dtype, compile_blocks and device.type == "cuda")
    print(f"lora: {len(paths.points)} paths at {clock.elapsed():.0f} s", flush=True)
    pairs = [pair for schedule in schedules() for pair in zip(schedule, schedule[1:], strict=False)]
    pairs = list(dict.fromkeys(pair for pair in pairs if pair[0] - pair[1] > _SHORT))
    seen = torch.stack([paths.points[:, paths.levels.index(start)] for start, _ in pairs], dim=1)
    stops = torch.tensor([paths.levels.index(stop) for _, stop in pairs], device=device)
    ends = torch.tensor(pairs, device=device)
    factors = initial_factors(parameters)
    optimizer = Optimizer([], list(factors.values()), RATE, average=0.995)
    for factor in factors.values():
        factor.grad = torch.zeros_like(factor)

    def step() -> torch.Tensor:
        torch._foreach_zero_([factor.grad for factor in factors.values()])
        row = torch.randint(len(paths.points), (sampler.count,), device=device)
        pair = torch.randint(len(pairs), (sampler.count,), device=device)
        here, there = seen[row, pair].float(), paths.points[row, stops[pair]].float()
        level, following = ends[pair].unbind(dim=1)
        wanted = (here - there) / (level - following).view(-1, 1, 1, 1, 1)
        network.use(with_lora(parameters, factors))
        velocity = network(here, level * 1000, paths.conditions(row))
        loss = ((velocity - wanted).square().mean(dim=1) * paths.weight[row]).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    run, number, last_print, alone = None, 0, time.monotonic(), False
    while clock.part() < 1:
        if not alone and clock.part() > _ALONE:
            alone = True
            network.use(with_lora(parameters, factors))
            walk_alone(network, paths, seen, pairs, sampler.count)
            print(f"lora: the student's own paths at {clock.elapsed():.0f} s", flush=True)
        optimizer.scale.fill_(clock.rate(number))
        if run is None:
            run = fastest(step, network, graph and device.type == "cuda")
            print(f"lora: steps ready at {clock.elapsed():.0f} s", flush=True)
        loss = run()
        number += 1
        if number % 20 == 0 and time.monotonic() - last_print > max(5.0, seconds / 10):
            last_print = time.monotonic()
            print(f"lora: {clock.elapsed():.0f} s, {number} steps, loss {float(loss):.4f}", flush=True)
            save(factors, out / FILE)
    optimizer.load_average()
    save(factors, out / FILE)
    print(f"lora: {number} steps", flush=True)
    look({name: p.detach() for name, p in with_lora(parameters, factors).items()}, "with LoRA")


def save(factors: Parameters, path: Path) -> None:
    """The factors with lightx2v's keys, bfloat16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = {}
    for name, up in factors.items():
        if name.endswith(".up"):
            weight = name.removesuffix(".up")
            halves = (factor.detach().cpu().bfloat16().contiguous() for factor in (up, factors[f"{weight}.down"]))
            layers[weight.removesuffix(".weight")] = Layer(*halves, alpha=float(RANK))
    tensors = {name: tensor.bfloat16() for name, tensor in comfy(layers).items()}
    save_file(tensors, path, {"steps": "4", "shift": str(SHIFT)})
