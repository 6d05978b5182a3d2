"""Distils the transformer's twenty steps into four, as a LoRA in the form that lightx2v publishes.

The teacher walks from noise to latents in small steps; the student, the same network with a LoRA, learns
to go from one of its few noise levels to the next in a single step, to where the teacher came. Since
the paths belong to their noise, what is chance (head, blinks, gaze) stays chance. Needs no new data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...pipeline.models.transformer import TransformerConfig
from ...pipeline.sampling.solvers import distilled_levels, euler_levels
from ..lora_files import Layer, comfy
from .training import Clock, Optimizer, graphed_if_possible
from .transformer import Sampler
from .transformer_network import CONFIG, Conditions, Network, Parameters

FILE = "lora.safetensors"
RANK, SHIFT, RATE = 16, 5.0, 1e-3
_MODULES = re.compile(
    r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qo]|ffn\.[02]|audio_cross_attn\.(q_linear|kv_linear|proj))\.weight$"
)
_BETWEEN = 3  # the teacher's steps between two levels of the student


def schedules() -> list[list[float]]:
    """The student's noise levels: those of the two solvers that take four steps."""
    return [distilled_levels(SHIFT).tolist(), euler_levels(4, SHIFT).tolist()]


@dataclass(frozen=True)
class Paths:
    """Where the teacher came: ``points`` float16 [paths, levels, 16, T, h, w], from noise to latents."""

    points: torch.Tensor
    levels: list[float]
    held: torch.Tensor
    given: Conditions


@torch.no_grad()
def walk(network: Network, sampler: Sampler, batches: int) -> Paths:
    """The teacher's paths, ``batches`` times the sampler's batch."""
    levels = sorted({level for schedule in schedules() for level in schedule}, reverse=True)
    points, held, given = [], [], []
    for _ in range(batches):
        _, conditions, known, kept, _ = sampler.draw()
        mask = kept[:, None, :, None, None]
        x = torch.where(mask, known, torch.randn_like(known))
        reached = [x.half()]
        for start, stop in zip(levels, levels[1:], strict=False):
            step = (start - stop) / _BETWEEN
            for k in range(_BETWEEN):
                timesteps = torch.full((len(x),), (start - k * step) * 1000, device=x.device)
                x = torch.where(mask, known, x - step * network(x, timesteps, conditions))
            reached.append(x.half())
        points.append(torch.stack(reached, dim=1))
        held.append(kept)
        given.append([getattr(conditions, field.name).half() for field in fields(Conditions)])
    joined = Conditions(*(torch.cat(column) for column in zip(*given, strict=True)))
    return Paths(torch.cat(points), levels, torch.cat(held), joined)


def with_lora(parameters: Parameters, factors: Parameters) -> Parameters:
    """The network's parameters with the LoRA's products added."""
    result = dict(parameters)
    for name, up in factors.items():
        if name.endswith(".up"):
            weight = name.removesuffix(".up")
            result[weight] = parameters[weight] + up @ factors[f"{weight}.down"]
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
    paths = walk(Network(config, parameters, dtype), sampler, batches)
    print(f"lora: {len(paths.points)} paths at {clock.elapsed():.0f} s", flush=True)
    pairs = [pair for schedule in schedules() for pair in zip(schedule, schedule[1:], strict=False)]
    starts, stops = (torch.tensor([paths.levels.index(pair[k]) for pair in pairs], device=device) for k in (0, 1))
    levels = torch.tensor(paths.levels, device=device)
    factors = initial_factors(parameters)
    optimizer = Optimizer([], list(factors.values()), RATE, average=0.995)
    for factor in factors.values():
        factor.grad = torch.zeros_like(factor)

    def step() -> torch.Tensor:
        torch._foreach_zero_([factor.grad for factor in factors.values()])
        row = torch.randint(len(paths.points), (sampler.count,), device=device)
        pair = torch.randint(len(pairs), (sampler.count,), device=device)
        here, there = (paths.points[row, ends[pair]].float() for ends in (starts, stops))
        level, following = levels[starts[pair]], levels[stops[pair]]
        given = Conditions(*(getattr(paths.given, field.name)[row].float() for field in fields(Conditions)))
        wanted = (here - there) / (level - following).view(-1, 1, 1, 1, 1)
        velocity = Network(config, with_lora(parameters, factors), dtype)(here, level * 1000, given)
        free = (~paths.held[row]).float()[:, None, :, None, None]
        loss = ((velocity - wanted).square() * free).mean() / free.mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    run, number, last_print = None, 0, time.monotonic()
    while clock.part() < 1:
        optimizer.scale.fill_(clock.rate(number))
        run = run or graphed_if_possible(step, graph and device.type == "cuda")
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
