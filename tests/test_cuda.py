"""What only a CUDA card shows: placement that changes no bit, and results near the CPU's."""

from pathlib import Path

import pytest
import torch
from infinitetalk.pipeline import Generator, Job, Settings, generator
from infinitetalk.pipeline.memory import Placement
from infinitetalk.pipeline.plan import plan_memory
from infinitetalk.pipeline.weights import residency
from infinitetalk.tools import random_checkpoint

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
    pytest.mark.usefixtures("own_cache"),
]
ASSETS = Path(random_checkpoint.__file__).parent.parent / "assets"
JOB = Job(ASSETS / "portrait.png", ASSETS / "speech.wav", "A cat is talking to the camera.")
SMALL = {"size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 2, "max_frame_num": 40}


def video(weights, **changes):
    files = {"infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    made = Generator(Settings(ckpt_dir=weights.ckpt_dir, **files, **{**SMALL, "device": "cuda", **changes}))
    return torch.cat([window.frames for window in made.windows(JOB)])


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks_to_swap": 1},
        {"num_persistent_param_in_dit": 0},
        {"offload_model": True},
        {"offload_model": True, "blocks_to_swap": 2},
    ],
)
def test_placement_never_changes_a_bit(weights, changes):
    assert torch.equal(video(weights, **changes), video(weights))


@pytest.mark.parametrize("quant", [None, "fp8", "int8"])
@pytest.mark.parametrize("placement", [Placement(99, False), Placement(1, False), Placement(0, False)])
@pytest.mark.parametrize("host_memory", [2**50, 0])
def test_neither_do_contexts_that_are_copied_in_and_blocks_read_from_their_file(
    weights, monkeypatch, quant, placement, host_memory
):
    expected = video(weights, quant=quant)
    monkeypatch.setattr(generator, "plan_memory", lambda *_: (placement, plan_memory(*_)[1]))
    monkeypatch.setattr(residency, "available_host_memory", lambda: host_memory)
    assert torch.equal(video(weights, quant=quant), expected)


def test_another_prompt_and_fewer_blocks_that_stay_in_one_generator(weights, monkeypatch):
    files = {"infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    made = Generator(Settings(ckpt_dir=weights.ckpt_dir, **files, **{**SMALL, "device": "cuda"}))
    other = Job(JOB.reference, JOB.speech, "Somebody else talks.")
    expected = [torch.cat([window.frames for window in made.windows(job)]) for job in (JOB, other)]
    monkeypatch.setattr(generator, "plan_memory", lambda *_: (Placement(0, False), plan_memory(*_)[1]))
    for job, frames in zip((other, JOB), reversed(expected), strict=True):
        assert torch.equal(torch.cat([window.frames for window in made.windows(job)]), frames)


def test_float32_on_the_card_is_near_the_cpu(weights):
    card, cpu = (video(weights, device=device, dtype="fp32", kernels="auto").float() for device in ("cuda", "cpu"))
    assert (card - cpu).abs().mean() < 2


def test_device_memory_does_not_grow_with_the_windows(weights):
    files = {"infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    settings = Settings(ckpt_dir=weights.ckpt_dir, **files, **{**SMALL, "device": "cuda", "max_frame_num": None})
    used = []
    for _ in Generator(settings).windows(JOB):
        used.append(torch.cuda.memory_reserved())
    assert len(used) > 8
    assert used[-1] <= 1.02 * used[2]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_sixteen_bits_are_near_float32(weights, dtype):
    half, full = video(weights, dtype=dtype).float(), video(weights, dtype="fp32").float()
    assert (half - full).abs().mean() < 6


@pytest.mark.parametrize("attention", ["sdpa", "cudnn"])
@pytest.mark.parametrize("kernels", ["plain", "triton"])
def test_every_backend_agrees_with_plain_pytorch(weights, attention, kernels):
    plain = video(weights, attention="sdpa", kernels="plain").float()
    assert (video(weights, attention=attention, kernels=kernels).float() - plain).abs().mean() < 6
