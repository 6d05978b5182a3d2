"""Schedulers of ComfyUI-WanVideoWrapper -> wrapper_schedulers.safetensors.

python -m infinitetalk.tests.golden.wrapper_schedulers PACK [OUT]

PACK is a checkout of starsFriday/ComfyUI-WanVideoWrapper-Enhanced-Infinitetalk at 9a4616c (or of Kijai's pack, whose
schedulers these are). Its ``get_scheduler`` is called in a loop as its sampler has it: one generator for the run, its
unused first draw, three windows, a schedule and a scheduler anew for each, the first latent frame held.

Tensors, for case "{scheduler}.{steps}.{shift}.{start}.{end}":
    {case}.levels, {case}.timesteps     what it walks, and what the model is told
    {case}.noise                        [3, *SHAPE] the start noise of each window
    {case}.latents                      [3, steps taken, *SHAPE] after every step

The model is ``velocity``; the held latents of window k are ``recipe.random_tensor(f"held.{k}", HELD)``.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch

from .recipe import random_tensor, write_golden

SHAPE, HELD, SEED, WINDOWS = [4, 2, 3, 4], [4, 1, 3, 4], 1234, 3
CASES = (
    *(("dpm++_sde", steps, shift, 0, -1) for steps, shift in ((1, 5), (4, 11), (6, 11), (8, 5), (20, 7))),
    ("dpm++_sde", 6, 11, 2, -1),
    ("dpm++_sde", 6, 11, 1, 5),
    *(("dpm++", steps, 11, 0, -1) for steps in (4, 20)),
    ("dpm++", 8, 5, 3, 6),
    *((name, 6, 8, 0, -1) for name in ("dpm++/beta", "dpm++_sde/beta", "unipc/beta", "euler/beta", "lcm/beta")),
    *((name, steps, 11, 0, -1) for name in ("unipc", "euler", "lcm", "res_multistep") for steps in (4, 10)),
    *((name, 6, 5, 2, 5) for name in ("unipc", "euler", "lcm", "res_multistep")),
    ("flowmatch_distill", 4, 11, 0, -1),
    ("flowmatch_distill", 4, 5, 1, -1),
    ("flowmatch_causvid", 6, 8, 0, -1),
)


def velocity(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """A stand-in for the model, which depends on all that it is told."""
    return torch.sin(latents + timestep / 300) + 0.3 * latents.roll(1, -1)


def make(pack: Path, out: Path) -> None:
    """Write wrapper_schedulers.safetensors."""
    get_scheduler = _schedulers(pack).get_scheduler
    tensors: dict[str, torch.Tensor] = {}
    for name, steps, shift, start, end in CASES:
        case = f"{name}.{steps}.{shift}.{start}.{end}"
        for part, tensor in _walked(get_scheduler, name, steps, float(shift), start, end).items():
            tensors[f"{case}.{part}"] = tensor
    write_golden(out / "wrapper_schedulers.safetensors", tensors, cases=CASES, shape=SHAPE, held=HELD, seed=SEED)


def _walked(
    get_scheduler: Callable, name: str, steps: int, shift: float, start: int, end: int
) -> dict[str, torch.Tensor]:
    generator = torch.Generator("cpu").manual_seed(SEED)
    torch.randn(SHAPE, generator=generator)  # of the branch for text alone, used by nothing
    noises, walks, found = [], [], {}
    for window in range(WINDOWS):
        noise = torch.randn(SHAPE, generator=generator)
        scheduler, timesteps, _, _ = get_scheduler(name, steps, start, end, shift, torch.device("cpu"))
        timesteps = [torch.tensor([float(t)]) for t in timesteps] + [torch.tensor([0.0])]
        takes = "generator" in inspect.signature(scheduler.step).parameters
        arguments = {"generator": generator} if takes else {}
        held = random_tensor(f"held.{window}", HELD)
        found = {"levels": scheduler.sigmas.clone().float(), "timesteps": torch.cat(timesteps)[:-1]}
        latents, walk = noise.clone(), []
        noises.append(noise)
        for timestep in timesteps[:-1]:
            latents[:, : HELD[1]] = held
            moved = velocity(latents, timestep.item())
            latents = scheduler.step(moved[None], timestep, latents[None], **arguments)[0].squeeze(0).clone()
            latents[:, : HELD[1]] = held
            walk.append(latents.clone())
        walks.append(torch.stack(walk))
    return found | {"noise": torch.stack(noises), "latents": torch.stack(walks)}


def _schedulers(pack: Path) -> types.ModuleType:
    """The pack's schedulers, without the rest of it."""
    for name, folder in (("wrapper", pack), ("wrapper.wanvideo", pack / "wanvideo")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]  # a package whose own code does not run
    sys.modules["wrapper.utils"] = types.ModuleType("wrapper.utils")
    sys.modules["wrapper.utils"].log = logging.getLogger("wrapper")
    return importlib.import_module("wrapper.wanvideo.schedulers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infinitetalk.tests.golden.wrapper_schedulers")
    parser.add_argument("pack", type=Path, help="a checkout of the pack")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parents[1] / "data")
    given = parser.parse_args()
    torch.set_num_threads(1)
    make(given.pack, given.out)


if __name__ == "__main__":
    main()
