"""Schedules, guidance and TeaCache against upstream's numbers; solvers of diffusers by what they must do."""

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.sampling.denoise import Conditions, denoise
from infinitetalk.pipeline.sampling.guidance import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    branches_of_steps,
    guidance_branches,
)
from infinitetalk.pipeline.sampling.schedules import TRAIN_TIMESTEPS
from infinitetalk.pipeline.sampling.solvers import make_solver
from infinitetalk.tests.golden.recipe import random_tensor, read_golden
from infinitetalk.tests.support.places import DATA

GOLDEN, NOTES = read_golden(DATA / "sampling.safetensors")
TEXT, AUDIO = NOTES["scales"]
KINDS = ("cond", "drop_text", "drop_audio", "uncond")


def solver(name, steps, shift):
    return make_solver(name, steps, shift, torch.Generator().manual_seed(1))


def predictions(call):
    return {kind: random_tensor(f"{kind}.{call}", NOTES["prediction_shape"]) for kind in KINDS}


@pytest.mark.parametrize("steps", [1, 4, 8, 40])
@pytest.mark.parametrize("shift", [2, 5, 7, 11])
def test_euler_schedule_equals_upstream(steps, shift):
    levels = solver("euler", steps, shift).schedule.levels
    np.testing.assert_allclose(levels * TRAIN_TIMESTEPS, GOLDEN[f"euler.{steps}.{shift}"], rtol=1e-6)


@pytest.mark.parametrize("shift", [2, 5, 8, 11])
def test_distilled_schedule(shift):
    levels = solver("flowmatch_distill", 4, shift).schedule.levels
    np.testing.assert_allclose(levels * TRAIN_TIMESTEPS, GOLDEN[f"distill.{shift}"], rtol=1e-6)


def test_distilled_schedule_has_four_steps():
    with pytest.raises(InputError, match="--sample_steps is 8"):
        solver("flowmatch_distill", 8, 11)


@pytest.mark.parametrize("name", ["euler", "unipc", "lcm"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_solvers_find_the_end_of_a_straight_path(name, steps):
    """On a straight path the velocity is noise minus data everywhere, and every solver is exact."""
    data, noise = random_tensor("data", [4, 3, 6, 8]), random_tensor("noise", [4, 3, 6, 8])
    walker = solver(name, steps, 7)
    assert walker.schedule.levels.shape == (steps + 1,)
    assert walker.schedule.levels[-1] == 0
    assert (np.diff(walker.schedule.levels) < 0).all()
    x = walker.schedule.levels[0] * noise + (1 - walker.schedule.levels[0]) * data
    for i in range(steps):
        level = walker.schedule.levels[i]
        velocity = (x - data) / float(level)  # points from the data through where we are
        x = walker.step(i, velocity, x)
    assert torch.allclose(x, data, atol=1e-3)


def test_lcm_draws_from_the_given_generator():
    x, v = random_tensor("x", [4, 3, 6, 8]), random_tensor("v", [4, 3, 6, 8])
    results = [solver("lcm", 4, 7).step(0, v, x) for _ in range(2)]
    assert torch.equal(*results)
    other = make_solver("lcm", 4, 7, torch.Generator().manual_seed(2)).step(0, v, x)
    assert not torch.allclose(other, results[0])


def test_missing_diffusers_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(InputError, match="pip install 'diffusers"):
        solver("unipc", 4, 7)


@pytest.mark.parametrize(
    ("text", "audio", "expected"),
    [
        (1, 1, ("cond",)),
        (1, 2, ("cond", "drop_audio")),
        (5, 1, ("cond", "drop_text")),
        (5, 4, ("cond", "drop_text", "uncond")),
        (1.0000000000000002, 1, ("cond",)),
    ],
)
def test_branches_that_cannot_matter_are_left_out(text, audio, expected):
    assert guidance_branches(text, audio) == expected


@pytest.mark.parametrize(
    ("text", "guided", "without"),
    [(1.0, ("cond", "drop_audio"), ("cond",)), (5.0, ("cond", "drop_text", "uncond"), ("cond", "drop_text"))],
)
def test_guidance_by_speech_may_end_after_some_steps(text, guided, without):
    assert branches_of_steps([text] * 4, 2.0) == branches_of_steps([text] * 4, 2.0, 4) == (guided,) * 4
    assert branches_of_steps([text] * 4, 2.0, 9) == (guided,) * 4
    assert branches_of_steps([text] * 4, 2.0, 1) == (guided, without, without, without)
    assert branches_of_steps([text] * 3, 1.0, 2) == (without,) * 3


def test_each_step_is_asked_for_its_own_branches():
    """The model hears of a branch while there is guidance by the speech, and the guide makes do without it."""
    asked, level = [], solver("euler", 3, 5).schedule.levels

    def model(latents, reference, timestep, contexts, blocks, cache):
        asked.append(contexts)
        return [torch.full_like(latents, float(value)) for value in contexts]

    branches = branches_of_steps([1.0] * 3, 3.0, 1)
    contexts = [{branch: {"cond": 1, "drop_audio": 2}[branch] for branch in step} for step in branches]
    noise = torch.zeros(1, 2, 1, 1)
    guide = ClassifierFreeGuidance(1.0, 3.0)
    found = denoise(model, [], noise, Conditions(noise, noise[:, :0], contexts, [guide] * 3), solver("euler", 3, 5))
    assert asked == [[1, 2], [1], [1]]
    guided, plain = 2 + 3 * (1 - 2), 1
    moved = guided * (level[0] - level[1]) + plain * (level[1] - level[3])
    assert torch.allclose(found, torch.full_like(found, -float(moved)))


@pytest.mark.parametrize(("text", "golden"), [(1.0, "cfg.two"), (TEXT, "cfg.three")])
def test_guidance_equals_upstream(text, golden):
    result = ClassifierFreeGuidance(text, AUDIO)(predictions(0))
    torch.testing.assert_close(result, GOLDEN[golden], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("text", [1.0, 5.0])
@pytest.mark.parametrize("kind", [ClassifierFreeGuidance, AdaptiveProjectedGuidance])
def test_left_out_branches_change_nothing(kind, text):
    """The full formula just beyond an audio scale of 1 gives what the short one gives at 1."""
    more = () if kind is ClassifierFreeGuidance else (-0.75, 55)
    p = predictions(0)
    short = kind(text, 1.0, *more)({branch: p[branch] for branch in guidance_branches(text, 1.0)})
    torch.testing.assert_close(short, kind(text, 1.0 + 1e-7, *more)(p), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", [1.0, TEXT])
def test_without_the_branch_of_silence_guides_are_those_of_no_guidance_by_speech(text):
    """Also after steps that had it."""
    few = {branch: predictions(1)[branch] for branch in guidance_branches(text, 1.0)}
    assert torch.equal(ClassifierFreeGuidance(text, AUDIO)(few), ClassifierFreeGuidance(text, 1.0)(few))
    both, alone = AdaptiveProjectedGuidance(text, AUDIO, -0.75, 55), AdaptiveProjectedGuidance(text, 1.0, -0.75, 55)
    both(predictions(0))
    alone({branch: predictions(0)[branch] for branch in guidance_branches(text, 1.0)})
    assert torch.equal(both(few), alone(few))


@pytest.mark.parametrize("threshold", [55, 5])
@pytest.mark.parametrize(("text", "name"), [(1.0, "two"), (TEXT, "three")])
def test_projected_guidance_over_three_calls_equals_upstream(text, name, threshold):
    guide = AdaptiveProjectedGuidance(text, AUDIO, NOTES["momentum"], threshold)
    for call in range(3):
        torch.testing.assert_close(
            guide(predictions(call)), GOLDEN[f"apg.{name}.{threshold}.{call}"], rtol=1e-6, atol=1e-6
        )
