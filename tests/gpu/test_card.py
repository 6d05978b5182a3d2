"""What only a CUDA card shows: placement that changes no bit, and results near the CPU's."""

import gc
from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline import Generator, Job, Settings
from infinitetalk.pipeline.commands.timing import transformer_size
from infinitetalk.pipeline.facts.model_sizes import WAN_14B
from infinitetalk.pipeline.models.transformer.files import weight_dtype
from infinitetalk.pipeline.models.transformer.linear import Linear
from infinitetalk.pipeline.models.transformer.model import Context, WanTransformer
from infinitetalk.pipeline.planning import run_plan
from infinitetalk.pipeline.planning.machine import choose_operations
from infinitetalk.pipeline.planning.memory import Placement, Workload, estimate_memory, plan_memory
from infinitetalk.pipeline.planning.windows import tokens_per_window
from infinitetalk.pipeline.quantisation.codes import QUANTISERS, pack
from infinitetalk.pipeline.residency import slab
from infinitetalk.tests.support.places import PORTRAIT, SPEECH
from torch import nn

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
    pytest.mark.usefixtures("own_cache"),
]
JOB = Job(PORTRAIT, SPEECH, "A cat is talking to the camera.")
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
    monkeypatch.setattr(run_plan, "plan_memory", lambda *_: (placement, plan_memory(*_)[1]))
    monkeypatch.setattr(slab, "available_host_memory", lambda: host_memory)
    assert torch.equal(video(weights, quant=quant), expected)


def test_another_prompt_and_fewer_blocks_that_stay_in_one_generator(weights, monkeypatch):
    files = {"infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    made = Generator(Settings(ckpt_dir=weights.ckpt_dir, **files, **{**SMALL, "device": "cuda"}))
    other = Job(JOB.reference, JOB.speech, "Somebody else talks.")
    expected = [torch.cat([window.frames for window in made.windows(job)]) for job in (JOB, other)]
    monkeypatch.setattr(run_plan, "plan_memory", lambda *_: (Placement(0, False), plan_memory(*_)[1]))
    for job, frames in zip((other, JOB), reversed(expected), strict=True):
        assert torch.equal(torch.cat([window.frames for window in made.windows(job)]), frames)


@pytest.mark.parametrize("quant", [None, "fp8", "int8"])
@pytest.mark.parametrize("passes", [1, 2])
@torch.no_grad()
def test_a_forward_of_the_real_width_holds_no_more_than_is_planned(quant, passes):
    """Two blocks at 640x640; benchmarks/real_size.py has all forty."""
    card = torch.device("cuda")
    config, side = replace(WAN_14B, num_layers=2), 640
    operations = choose_operations(Settings(), card, torch.bfloat16)
    with torch.device("meta"):
        model = WanTransformer(config, operations).bfloat16()
    model = model.to_empty(device=card).requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.normal_(std=0.02)
        parameter.data = parameter.data.to(weight_dtype(torch.bfloat16, name))
    for layer in model.modules():
        if quant is not None and isinstance(layer, Linear):
            packed = pack(QUANTISERS[quant], layer.weight.data)
            layer.store(packed, operations.matmuls.of(packed.storage))
    shape = 21, side // 8, side // 8
    latents, reference = torch.randn(16, *shape, device=card), torch.randn(20, *shape, device=card)
    keys = (
        model.encode_text(torch.randn(9, config.text_dim), model.blocks),
        model.encode_image(torch.randn(257, config.image_dim), model.blocks),
    )
    contexts = [Context(*keys, model.embed_speech(torch.randn(81, 5, 12, 768))) for _ in range(passes)]
    model(latents, reference, 500.0, contexts, model.blocks)  # kernels are compiled, the rotation's table is made
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model(latents, reference, 500.0, contexts, model.blocks)
    size = transformer_size(config, quant is not None, itemsize=2)
    planned = estimate_memory(
        size, Placement(2, True), Workload(tokens_per_window(81, side, side), passes, side**2, itemsize=2)
    )
    taken = torch.cuda.max_memory_allocated() - before
    assert 0.6 * planned.activations < taken <= planned.activations


def test_the_peak_is_told_beside_the_plan(weights, tmp_path):
    heard = []
    files = {"infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    settings = Settings(ckpt_dir=weights.ckpt_dir, **files, **{**SMALL, "device": "cuda", "max_frame_num": 17})
    Generator(settings, heard.append).save(JOB, tmp_path / "video.mp4")
    assert any(
        "at its peak: " in event.text and ", planned " in event.text for event in heard if hasattr(event, "text")
    )


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


def module_on(device):
    module = nn.Sequential(nn.Conv3d(8, 16, 3), nn.BatchNorm1d(5)).requires_grad_(False)
    module[0].weight.data = module[0].weight.data.contiguous(memory_format=torch.channels_last_3d)
    return module.to(device)


@pytest.mark.parametrize("born", ["cpu", "cuda"])
@pytest.mark.parametrize("free", [2**50, 0])
def test_weights_travel_to_the_card_and_are_dropped_there(monkeypatch, born, free):
    monkeypatch.setattr(slab, "available_host_memory", lambda: free)
    module, weights = module_on(born), slab.HostWeights()
    expected = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
    before = torch.cuda.memory_allocated()
    weights.move([module], "cpu")
    weights.move([module], "cuda")
    on_card, waiting = torch.cuda.memory_allocated(), weights._slab._sources
    for name, tensor in module.state_dict().items():
        assert tensor.is_cuda and torch.equal(tensor.cpu(), expected[name]), name
        assert tensor.stride() == expected[name].stride()
    module[0].weight.zero_()  # what is only on the card is lost
    weights.move([module], "cpu")
    for name, tensor in module.state_dict().items():
        assert tensor.device.type == "cpu" and torch.equal(tensor, expected[name]), name
    assert {tensor.data_ptr() for tensor in module.state_dict().values()} == {part.data_ptr() for part in waiting}
    assert torch.cuda.memory_allocated() < min(on_card, before + 1)


def test_a_copy_to_the_card_does_not_wait_for_it():
    big = nn.Linear(8192, 8192, bias=False).requires_grad_(False)
    expected, weights, card = big.weight.data.clone(), slab.HostWeights(), torch.device("cuda")
    for _ in range(2):  # the first time host memory is pinned
        weights.move([big], card)
        weights.move([big], "cpu")
    torch.cuda._sleep(10**9)  # cycles: about half a second
    weights.move([big], card)
    assert not torch.cuda.current_stream().query()
    assert torch.equal(big.weight.cpu(), expected)


def test_a_generator_gives_the_card_back_and_makes_the_same_again(weights):
    files = {"infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    made = Generator(Settings(ckpt_dir=weights.ckpt_dir, **files, **{**SMALL, "device": "cuda"}), keep_models=True)
    videos, left = [], []
    for _ in range(3):
        videos.append(torch.cat([window.frames for window in made.windows(JOB)]))
        made.release()
        gc.collect()
        left.append(torch.cuda.memory_allocated())
    assert torch.equal(videos[1], videos[0]) and torch.equal(videos[2], videos[0])
    assert left[1] == left[2] <= left[0]
    models = made.models.image_encoder.model, made.models.vae, made.models.speech_encoder.model
    assert all(tensor.device.type == "cpu" for model in models for tensor in (*model.parameters(), *model.buffers()))
