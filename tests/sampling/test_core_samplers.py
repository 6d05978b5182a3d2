"""Samplers, schedules and noise of ComfyUI's own nodes against its code: draws to the bit, every call of the model."""

import pytest
import torch
from infinitetalk.pipeline.facts.solvers import SCHEDULES, SOLVERS
from infinitetalk.pipeline.sampling.core_schedules import CORE_SPACINGS
from infinitetalk.pipeline.sampling.denoise import Conditions, denoise
from infinitetalk.pipeline.sampling.noise import NOISE_MAKERS, Draws
from infinitetalk.pipeline.sampling.solvers import make_solver
from infinitetalk.tests.golden.recipe import random_tensor, read_golden
from infinitetalk.tests.golden.wrapper_schedulers import velocity
from infinitetalk.tests.support.places import DATA

GOLDEN, NOTES = read_golden(DATA / "core_samplers.safetensors")
OURS = {theirs: row for row in SOLVERS.values() for theirs in row.comfy}
CPU = torch.device("cpu")


def test_all_that_is_offered_is_compared():
    assert {case[0] for case in NOTES["cases"]} == set(OURS)
    assert {case[1] for case in NOTES["cases"]} == set(SCHEDULES) == set(CORE_SPACINGS)


@pytest.mark.parametrize("case", NOTES["cases"], ids=lambda case: ".".join(map(str, case)))
def test_noise_and_every_call_are_cores(case):
    name, spacing, steps, shift = case
    row, held = OURS[name], random_tensor("held", NOTES["held"])
    expected = {
        part: GOLDEN[f"{'.'.join(map(str, case))}.{part}"] for part in ("levels", "timesteps", "latents", "last")
    }
    draws = Draws(tuple(NOTES["shape"]), NOTES["held"][1], steps, row.draws, row.by_seed)
    noise, generator = NOISE_MAKERS["comfy"](NOTES["seed"], CPU).begin(0, draws)
    solver = make_solver(row.name, steps, shift, generator, spacing=spacing)
    assert solver.schedule.timesteps == pytest.approx(expected["timesteps"].tolist(), rel=1e-6)
    before, done = [], []

    class Watched:
        schedule = solver.schedule

        def step(self, index, moved, latents):
            before.append(latents.clone())
            return solver.step(index, moved, latents)

    def model(latents, reference, timestep, contexts, blocks, cache):
        assert torch.equal(latents[:, : held.shape[1]], held)
        return [velocity(latents, timestep)]

    given = Conditions(
        held,
        held,
        [{"cond": None}] * steps,
        [lambda found: found["cond"]] * steps,
        held_within=False,
        held_at_end=False,
    )
    last = denoise(model, [], noise, given, Watched(), on_step=lambda step, estimate: done.append(step))
    assert done == list(range(1, steps + 1))
    if not name.startswith("uni_pc"):  # which scales its noise down and up again
        assert torch.equal(before[0], expected["latents"][0])
    for mine, theirs in zip([*before, last], [*expected["latents"], expected["last"]], strict=True):
        assert (mine - theirs).abs().max() / theirs.abs().max() < 2e-5
