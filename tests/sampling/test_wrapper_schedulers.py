"""Solvers and noise of ComfyUI-WanVideoWrapper against that pack's: draws to the bit, steps of three windows."""

import pytest
import torch
from infinitetalk.pipeline.facts.solvers import SOLVERS
from infinitetalk.pipeline.sampling.denoise import Conditions, denoise
from infinitetalk.pipeline.sampling.noise import NOISE_MAKERS, Draws
from infinitetalk.pipeline.sampling.solvers import make_solver
from infinitetalk.tests.golden.recipe import random_tensor, read_golden
from infinitetalk.tests.golden.wrapper_schedulers import velocity
from infinitetalk.tests.support.places import DATA

GOLDEN, NOTES = read_golden(DATA / "wrapper_schedulers.safetensors")
OURS = {theirs: row for row in SOLVERS.values() for theirs in row.kijai}
CPU = torch.device("cpu")


class Watched:
    """A solver, and the latents before each of its steps."""

    def __init__(self, solver):
        self.solver, self.schedule, self.before = solver, solver.schedule, []

    def step(self, index, moved, latents):
        self.before.append(latents.clone())
        return self.solver.step(index, moved, latents)


def model(latents, reference, timestep, contexts, blocks, cache):
    return [velocity(latents, timestep)]


def test_every_scheduler_that_is_offered_is_compared():
    assert {case[0] for case in NOTES["cases"]} == {name for name in OURS if name != "multitalk"}


@pytest.mark.parametrize("case", NOTES["cases"], ids=lambda case: ".".join(map(str, case)))
def test_noise_and_every_step_are_that_packs(case):
    name, steps, shift, start, end = case
    row = OURS[name]
    expected = {
        part: GOLDEN[f"{'.'.join(map(str, case))}.{part}"] for part in ("levels", "timesteps", "noise", "latents")
    }
    taken = range(start, steps if end == -1 else end)
    noises = NOISE_MAKERS["kijai"](NOTES["seed"], CPU)
    for window in range(len(expected["noise"])):
        draws = Draws(tuple(NOTES["shape"]), NOTES["held"][1], len(taken), row.draws)
        noise, generator = noises.begin(window, draws)
        assert torch.equal(noise, expected["noise"][window])
        solver = make_solver(row.name, steps, shift, generator, taken)
        assert torch.allclose(torch.from_numpy(solver.schedule.levels), expected["levels"][: len(taken) + 1], atol=1e-6)
        told = expected["timesteps"][: len(taken)].tolist()
        assert solver.schedule.timesteps == pytest.approx(told, rel=1e-6)
        watched = Watched(solver)
        held = random_tensor(f"held.{window}", NOTES["held"])
        guides = [lambda found: found["cond"]] * len(taken)
        given = Conditions(held, held, [{"cond": None}] * len(taken), guides)
        last = denoise(model, [], noise, given, watched)
        scale = expected["latents"][window].abs().max()
        for mine, theirs in zip([*watched.before[1:], last], expected["latents"][window][: len(taken)], strict=True):
            assert (mine - theirs).abs().max() / scale < 1e-5


@pytest.mark.parametrize("name", ["kijai", "upstream"])
def test_windows_that_are_skipped_draw_what_they_would_have_drawn(name):
    draws = Draws((4, 2, 3, 4), 1, 3, for_steps=name == "kijai")

    def window(noises, number):
        noise, generator = noises.begin(number, draws)
        return torch.stack(
            [noise, *(torch.randn(draws.shape, generator=generator) for _ in range(3 * draws.for_steps))]
        )

    whole, skipping, resumed = (NOISE_MAKERS[name](7, CPU) for _ in range(3))
    for number in range(3):
        state, found = whole.state(), window(whole, number)
    assert torch.equal(window(skipping, 2), found)
    resumed.restore(2, state)
    assert torch.equal(window(resumed, 2), found)


def test_noise_of_core_is_what_its_samplers_draw():
    """comfy.sample.prepare_noise: the CPU's own generator, seeded, a batch of one."""
    before = torch.random.get_rng_state()
    torch.manual_seed(2**40 + 1)
    expected = torch.randn([1, 4, 2, 3, 4], dtype=torch.float32, device="cpu")
    torch.random.set_rng_state(before)
    noises = NOISE_MAKERS["comfy"](2**40 + 1, CPU)
    for window in (0, 3):
        assert torch.equal(noises.begin(window, Draws((4, 2, 3, 4), 1, 3, False))[0], expected[0])
