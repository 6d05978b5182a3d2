"""Samplers and schedulers of ComfyUI's own nodes -> core_samplers.safetensors.

python -m infinitetalk.tests.golden.core_samplers COMFYUI [OUT]

COMFYUI is a ComfyUI at Comfy-Org's 6db4fa2f or later, whose packages are installed. Its ``KSampler`` runs with its
start noise; the model is ``velocity``, and what it sees of the first latent frame is overwritten, as core's
InfiniteTalk node does.

Tensors, for case "{sampler}.{scheduler}.{steps}.{shift}":
    {case}.levels, {case}.timesteps     what it walks, and what the model is told in every call
    {case}.latents                      [calls, *SHAPE] the latents that the model is asked about, as they were before
                                        they were overwritten
    {case}.last                         [*SHAPE] what it ends with
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from pathlib import Path

import torch

from .recipe import random_tensor, write_golden
from .wrapper_schedulers import velocity

SHAPE, HELD, SEED = [4, 2, 3, 4], [4, 1, 3, 4], 2**40 + 7
SCHEDULES = ("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic")
SAMPLERS = ("euler_ancestral", "heun", "dpmpp_2m", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "lcm", "ipndm", "ddim")
MORE_SAMPLERS = ("res_multistep", "res_multistep_ancestral", "gradient_estimation", "er_sde", "uni_pc", "uni_pc_bh2")
CASES = (
    *(
        ("euler", schedule, steps, shift)
        for schedule in (*SCHEDULES, "kl_optimal")
        for steps, shift in ((5, 8), (20, 3))
    ),
    *((sampler, "simple", steps, 5) for sampler in (*SAMPLERS, *MORE_SAMPLERS) for steps in (2, 4, 10)),
    *((sampler, "beta", 6, 11) for sampler in (*SAMPLERS, *MORE_SAMPLERS)),
    *((sampler, "ddim_uniform", 10, 8) for sampler in ("lcm", "dpmpp_2m_sde", "dpmpp_sde", "er_sde")),
    *((sampler, "normal", 1, 8) for sampler in ("euler", "dpmpp_sde", "heun", "dpmpp_2m")),
)


def make(core: Path, out: Path) -> None:
    """Write core_samplers.safetensors."""
    import_core(core)
    samplers = importlib.import_module("comfy.samplers")
    tensors: dict[str, torch.Tensor] = {}
    for case in CASES:
        for part, tensor in _walked(samplers, *case).items():
            tensors[f"{'.'.join(map(str, case))}.{part}"] = tensor
    write_golden(out / "core_samplers.safetensors", tensors, cases=CASES, shape=SHAPE, held=HELD, seed=SEED)


def _walked(samplers: types.ModuleType, sampler: str, schedule: str, steps: int, shift: int) -> dict[str, torch.Tensor]:
    held = random_tensor("held", HELD)[None]
    seen, told = [], []
    sampling = _sampling(shift)

    class Guider:
        """What a sampler sees of core's guider."""

        inner_model = types.SimpleNamespace(model_sampling=sampling)
        model_patcher = types.SimpleNamespace(
            model=None, get_model_object=lambda name: sampling, model_options={}, load_device=torch.device("cpu")
        )
        cfg = 1.0

        def __call__(self, latents, sigma, **options):
            seen.append(latents[0].clone())
            told.append(float(sampling.timestep(sigma).float()))
            shown = latents.clone()
            shown[:, :, : HELD[1]] = held
            output = velocity(shown[0], told[-1])[None]
            return sampling.calculate_denoised(sigma, output, shown)

    guider = Guider()
    chosen = samplers.KSampler(guider.model_patcher, steps, torch.device("cpu"), sampler, schedule, 1.0)
    noise = importlib.import_module("comfy.sample").prepare_noise(_Empty(torch.zeros([1, *SHAPE])), SEED)
    arguments = {"model_options": {}, "seed": SEED}
    levels = chosen.sigmas.clone()
    last = samplers.sampler_object(sampler).sample(
        guider, chosen.sigmas, arguments, None, noise, torch.zeros([1, *SHAPE]), None, True
    )
    return {
        "levels": levels,
        "timesteps": torch.tensor(told),
        "latents": torch.stack(seen),
        "last": last[0].clone(),
    }


class _Empty:
    """Empty latents, as core asks about them."""

    is_nested = False

    def __init__(self, latents: torch.Tensor) -> None:
        self.size, self.layout, self.dtype = latents.size, latents.layout, latents.dtype


def _sampling(shift: int) -> torch.nn.Module:
    """Wan's: a straight path between clean latents and noise, on levels that are shifted."""
    from comfy.model_sampling import CONST, ModelSamplingDiscreteFlow  # type: ignore[import-not-found]

    class Sampling(ModelSamplingDiscreteFlow, CONST):
        pass

    sampling = Sampling()
    sampling.set_parameters(shift=float(shift), multiplier=1000)
    return sampling


def import_core(core: Path) -> None:
    """Make a ComfyUI's modules importable, on the CPU."""
    sys.path.insert(0, str(core))
    importlib.import_module("comfy.options")
    importlib.import_module("comfy.cli_args").args.cpu = True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infinitetalk.tests.golden.core_samplers")
    parser.add_argument("core", type=Path, help="the folder of a ComfyUI")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parents[1] / "data")
    given = parser.parse_args()
    torch.set_num_threads(1)
    make(given.core, given.out)


if __name__ == "__main__":
    main()
