"""The transformer against upstream's WanModel, and what its speed-ups must not change."""

import json
from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.checkpoints.load import fill
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations
from infinitetalk.pipeline.models.transformer.blocks import TransformerBlocks
from infinitetalk.pipeline.models.transformer.few_keys import choose_few_keys
from infinitetalk.pipeline.models.transformer.files import open_transformer
from infinitetalk.pipeline.models.transformer.loading import load_transformer
from infinitetalk.pipeline.models.transformer.matrices import StorageRequest, plan_weights
from infinitetalk.pipeline.models.transformer.model import Context
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.quantisation.matmul import WEIGHT_ONLY
from infinitetalk.pipeline.residency import slab
from infinitetalk.pipeline.residency import streamer as residency
from infinitetalk.pipeline.residency.streamer import BlockStreamer
from infinitetalk.pipeline.sampling.teacache import COEFFICIENTS_480, COEFFICIENTS_720, TeaCache
from infinitetalk.tests.golden.recipe import random_state, read_golden
from infinitetalk.tests.golden.transformer import golden_inputs
from infinitetalk.tests.support.places import DATA
from safetensors.torch import save_file
from torch import nn

GOLDEN, NOTES = read_golden(DATA / "transformer.safetensors")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs():
    return golden_inputs(NOTES["inputs"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The golden weights as a single file with a config.json beside it."""
    folder = tmp_path_factory.mktemp("wan")
    save_file(random_state(NOTES["shapes"]), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(NOTES["config"]))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return loaded(open_transformer(folder / "model.safetensors", None))


def plain_operations(dtype):
    return Operations(choose_attention("sdpa", CPU, dtype), choose_pointwise("plain", CPU))


def loaded(tensors, dtype=torch.float32):
    streamer = TransformerBlocks(CPU, resident=99)
    operations = plain_operations(dtype)
    model = load_transformer(plan_weights(tensors, StorageRequest(dtype), operations.matmuls), operations, streamer)
    return model, streamer


def context(model, inputs, text="context", audio=None, blocks=None):
    return Context(
        model.encode_text(inputs[text], model.blocks if blocks is None else blocks.text),
        model.encode_image(inputs["clip"][0], model.blocks if blocks is None else blocks.image),
        model.embed_speech(inputs["audio"] if audio is None else audio),
    )


@torch.no_grad()
def predict(model_and_blocks, inputs, timestep, *contexts):
    model, blocks = model_and_blocks
    contexts = contexts or (context(model, inputs, blocks=blocks),)
    return model(inputs["x"], inputs["y"], timestep, contexts, blocks)


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("i", range(3))
def test_forward_equals_upstream(model, inputs, i, folded, monkeypatch):
    if folded:
        few_keys = choose_few_keys("plain", CPU, torch.float32)
        monkeypatch.setattr(model[0], "operations", replace(model[0].operations, few_keys=few_keys))
    (output,) = predict(model, inputs, NOTES["timesteps"][i])
    assert relative_error(output, GOLDEN[f"output.{i}"]) < 1e-5


def test_branches_walked_together_equal_upstreams_single_passes(model, inputs):
    silent = context(model[0], inputs, audio=torch.zeros_like(inputs["audio"]))
    textless = context(model[0], inputs, text="context_null")
    outputs = predict(model, inputs, NOTES["timesteps"][1], context(model[0], inputs), silent, textless)
    for output, name in zip(outputs, ("output.1", "null_audio", "null_text"), strict=True):
        assert relative_error(output, GOLDEN[name]) < 1e-5


def test_a_branch_is_the_same_alone_and_beside_others(model, inputs):
    """They share the first self-attention."""
    branches = [context(model[0], inputs), context(model[0], inputs, text="context_null")]
    together = predict(model, inputs, NOTES["timesteps"][1], *branches)
    for output, branch in zip(together, branches, strict=True):
        assert torch.equal(output, predict(model, inputs, NOTES["timesteps"][1], branch)[0])


def test_cached_keys_and_values_serve_later_steps(model, inputs):
    shared = context(model[0], inputs)
    predict(model, inputs, 900.0, shared)
    (output,) = predict(model, inputs, NOTES["timesteps"][1], shared)
    assert relative_error(output, GOLDEN["output.1"]) < 1e-5


def test_latents_are_left_as_they_are(model, inputs):
    before = inputs["x"].clone()
    predict(model, inputs, 500.0)
    assert torch.equal(inputs["x"], before)


def test_bfloat16_is_close_and_keeps_sensitive_parts_in_float32(folder, inputs):
    model, blocks = loaded(open_transformer(folder / "model.safetensors", None), torch.bfloat16)
    (output,) = predict((model, blocks), inputs, NOTES["timesteps"][1])
    error = (output - GOLDEN["output.1"]).norm() / GOLDEN["output.1"].norm()
    assert output.dtype == torch.float32
    assert error < 2e-2
    assert model.blocks[0].modulation.dtype == model.head.head.weight.dtype == torch.float32
    assert model.blocks[0].ffn["0"].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("contexts_stay", [True, False])
@pytest.mark.parametrize(("resident", "offload"), [(0, False), (1, False), (2, True), (0, True), (99, False)])
def test_residency_never_changes_a_bit(folder, model, inputs, resident, offload, contexts_stay):
    streamer = TransformerBlocks(CPU, resident, contexts_stay, offload)
    weights = plan_weights(
        open_transformer(folder / "model.safetensors", None), StorageRequest(torch.float32), WEIGHT_ONLY
    )
    swapped = load_transformer(weights, model[0].operations, streamer)
    (expected,) = predict(model, inputs, 700.0)
    for _ in range(2):
        streamer.to_device()
        (output,) = predict((swapped, streamer), inputs, 700.0)
        assert torch.equal(output, expected)
        streamer.to_host()


@pytest.mark.parametrize("available", [0, None])
@pytest.mark.parametrize("quant", [None, "int8"])
def test_blocks_stay_in_their_file_where_host_memory_is_short(folder, model, inputs, monkeypatch, available, quant):
    tensors = open_transformer(folder / "model.safetensors", None)
    whole = TransformerBlocks(CPU, resident=99)
    weights = plan_weights(tensors, StorageRequest(torch.float32, quant), WEIGHT_ONLY)
    expected = load_transformer(weights, model[0].operations, whole), whole
    monkeypatch.setattr(slab, "available_host_memory", lambda: available)
    blocks = TransformerBlocks(CPU, 1, contexts_stay=False)
    swapped = load_transformer(weights, model[0].operations, blocks)
    assert {part.in_file for part in (blocks._steps._slabs | blocks.text._slabs).values()} == {available == 0}
    blocks.to_device()
    for timestep in (700.0, 300.0):
        (output,) = predict((swapped, blocks), inputs, timestep)
        assert torch.equal(output, predict(expected, inputs, timestep)[0])


def test_what_stays_in_a_file_takes_no_memory(tmp_path, monkeypatch):
    save_file({"weight": torch.randn(64, 64), "bias": torch.randn(64)}, tmp_path / "layer.safetensors")
    monkeypatch.setattr(slab, "available_host_memory", lambda: 0)
    tensors = open_tensors(tmp_path / "layer.safetensors", "a layer")
    with torch.device("meta"):
        block = nn.Linear(64, 64)
    fill(block, tensors, "a layer")
    places = {block.weight.data_ptr(), block.bias.data_ptr()}
    streamer = BlockStreamer(CPU, 0)
    streamer.add(block)
    assert {source.data_ptr() for source in streamer._slabs[0]._sources} == places
    assert block.weight.numel() == 0
    for block in streamer:
        assert torch.equal(block.weight, tensors["weight"]) and torch.equal(block.bias, tensors["bias"])


def test_fewer_blocks_stay_when_told():
    made = [nn.Linear(3, 5) for _ in range(4)]
    weights = [block.weight.detach().clone() for block in made]
    streamer = BlockStreamer(CPU, 3)
    for block in made:
        streamer.add(block)
    streamer.to_device()
    for resident in (3, 1, 0):
        streamer.place(resident)
        for _ in range(2):
            assert all(torch.equal(block.weight, weights[index]) for index, block in enumerate(streamer))
        assert [block.weight.numel() > 0 for block in made] == [index < resident for index in range(4)]
    with pytest.raises(ValueError, match="cannot become resident"):
        streamer.place(2)


# Private slots are looked into here: results do not tell which copy was made when, nor what has been let go.


def test_a_single_walk_copies_each_block_once_and_gives_the_room_back(monkeypatch):
    made = [nn.Linear(3, 5) for _ in range(4)]
    weights = [block.weight.detach().clone() for block in made]
    streamer = BlockStreamer(CPU, 0, again=False)
    for block in made:
        streamer.add(block)
    copied, receive = [], residency._Slot.receive
    monkeypatch.setattr(residency._Slot, "receive", lambda slot, part: (copied.append(part), receive(slot, part)))
    assert all(torch.equal(block.weight, weights[index]) for index, block in enumerate(streamer))
    assert len(copied) == len(set(copied)) == 4 and streamer._slots == []


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("resident", [0, 1])
def test_blocks_are_copied_ahead_and_once_a_walk_at_most(monkeypatch, blocks, resident):
    made = [nn.Linear(3, 5) for _ in range(blocks)]
    weights = [block.weight.detach().clone() for block in made]
    streamer = BlockStreamer(CPU, resident)
    for block in made:
        streamer.add(block)
    streamer.to_device()
    copied, receive = [], residency._Slot.receive
    monkeypatch.setattr(residency._Slot, "receive", lambda slot, part: (copied.append(slot), receive(slot, part)))
    for walk in range(3):
        for index, block in enumerate(streamer):
            assert torch.equal(block.weight, weights[index])
            waits_next = resident <= index < blocks - 1
            assert not waits_next or index + 1 in [slot.holds for slot in streamer._slots]
        assert len(copied) <= (walk + 1) * (blocks - resident) + 2
    if blocks - resident <= 2:
        assert len(copied) == blocks - resident


def test_a_walk_that_is_broken_off_leaves_the_next_one_right():
    made = [nn.Linear(3, 5) for _ in range(5)]
    weights = [block.weight.detach().clone() for block in made]
    streamer = BlockStreamer(CPU, 1)
    for block in made:
        streamer.add(block)
    streamer.to_device()
    for broken_at in range(5):
        for index, _ in enumerate(streamer):
            if index == broken_at:
                break
        assert all(torch.equal(block.weight, weights[index]) for index, block in enumerate(streamer))


def split_weights():
    """The golden weights as a base and InfiniteTalk's own."""
    weights = random_state(NOTES["shapes"])
    audio = {k: v for k, v in weights.items() if "audio" in k or "norm_x" in k}
    return {k: v for k, v in weights.items() if k not in audio}, audio


def test_official_shards_and_separate_audio_weights(tmp_path, model, inputs):
    base, audio = split_weights()
    names = list(base)
    for i in range(3):
        shard = {name: base[name] for name in names[i::3]}
        save_file(shard, tmp_path / f"diffusion_pytorch_model-0000{i + 1}-of-00003.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(NOTES["config"]))
    save_file(audio, tmp_path / "infinitetalk.safetensors")
    other = loaded(open_transformer(tmp_path, tmp_path / "infinitetalk.safetensors"))
    assert relative_error(predict(other, inputs, 300.0)[0], predict(model, inputs, 300.0)[0]) < 1e-6

    (tmp_path / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match="00002-of-00003"):
        open_transformer(tmp_path, None)


def test_prefixed_pth_file(tmp_path, model, inputs):
    weights = {f"model.diffusion_model.{k}": v for k, v in random_state(NOTES["shapes"]).items()}
    torch.save({"state_dict": weights}, tmp_path / "whole.pth")
    (tmp_path / "config.json").write_text(json.dumps(NOTES["config"]))
    other = loaded(open_transformer(tmp_path / "whole.pth", None))
    assert relative_error(predict(other, inputs, 300.0)[0], predict(model, inputs, 300.0)[0]) < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("blocks.1.ffn.0.bias"), r"lacks blocks\.1\.ffn\.0\.bias"),
        (lambda w: w.update({"blocks.1.ffn.0.bias": torch.zeros(7)}), r"blocks\.1\.ffn\.0\.bias of shape \[7\]"),
        (lambda w: [w.pop(k) for k in list(w) if "k_img" in k], "text-to-video"),
        (lambda w: [w.pop(k) for k in list(w) if "audio_proj" in k], "infinitetalk_dir"),
        (lambda w: w.update({"blocks.0.ffn.0.weight_scale_2": torch.ones(1)}), "not read here"),
        (lambda w: w.clear() or w.update({"hello": torch.zeros(1)}), "no Wan transformer"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, message):
    weights = random_state(NOTES["shapes"])
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(NOTES["config"]))
    with pytest.raises(InputError, match=message):
        loaded(open_transformer(tmp_path / "model.safetensors", None))


def test_number_of_heads_needs_config_for_unusual_widths(tmp_path):
    save_file(random_state(NOTES["shapes"]), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="config.json"):
        loaded(open_transformer(tmp_path / "model.safetensors", None))


def test_attention_that_cannot_run_is_refused():
    with pytest.raises(InputError, match="--attention flash needs a CUDA card"):
        choose_attention("flash", CPU, torch.bfloat16)
    assert choose_attention("auto", CPU, torch.float32).name == "sdpa"


SAMPLING, SAMPLING_NOTES = read_golden(DATA / "sampling.safetensors")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory):
    """The transformer whose timesteps change little from step to step."""
    folder = tmp_path_factory.mktemp("slow")
    weights = random_state(SAMPLING_NOTES["shapes"])
    weights["time_embedding.0.weight"] *= SAMPLING_NOTES["time_embedding_scale"]
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SAMPLING_NOTES["config"]))
    return loaded(open_transformer(folder / "model.safetensors", None))


@pytest.mark.parametrize("threshold", [0.2, 0.5])
@pytest.mark.parametrize(
    ("size", "coefficients"),
    [("infinitetalk-480", COEFFICIENTS_480), ("infinitetalk-720", COEFFICIENTS_720)],
)
@torch.no_grad()
def test_teacache_decides_as_upstream_over_40_steps_of_three_passes(slow_model, size, coefficients, threshold):
    model, blocks = slow_model
    inputs = golden_inputs(SAMPLING_NOTES["teacache_inputs"])
    silence = torch.zeros_like(inputs["audio"])
    contexts = [
        context(model, inputs),
        context(model, inputs, "context_null"),
        context(model, inputs, "context_null", silence),
    ]
    cache = TeaCache(threshold, coefficients)
    ran = []
    hook = model.blocks[0].register_forward_hook(lambda *_: ran.append(True))
    timesteps = SAMPLING[f"euler.40.{SAMPLING_NOTES['teacache_shifts'][size]}"][:-1].tolist()
    name = f"teacache.{size}.{threshold}"
    decisions = []
    for step, timestep in enumerate(timesteps):
        ran.clear()
        outputs = model(inputs["x"], inputs["y"], timestep, contexts, blocks, cache)
        decisions += [bool(ran)] * 3
        for branch, output in enumerate(outputs):
            if 3 * step + branch in SAMPLING_NOTES["teacache_calls"]:
                assert relative_error(output, SAMPLING[f"{name}.output.{3 * step + branch}"]) < 1e-5
    hook.remove()
    assert decisions == SAMPLING[f"{name}.ran"].tolist()
    assert 15 < sum(decisions) < 120


@pytest.mark.parametrize("passes", [[1] * 40, [2] * 40, [2] * 9 + [1] * 31, [2] * 10 + [1] * 30])
@torch.no_grad()
def test_teacache_keeps_a_residual_for_each_of_fewer_passes(slow_model, passes):
    """With fewer passes every branch gives what it gives among three, also where a step drops one."""
    model, blocks = slow_model
    inputs = golden_inputs(SAMPLING_NOTES["teacache_inputs"])
    kinds = [context(model, inputs), context(model, inputs, "context_null")]
    size, threshold = "infinitetalk-480", 0.2
    cache = TeaCache(threshold, COEFFICIENTS_480)
    for step, timestep in enumerate(SAMPLING["euler.40.7"][:-1].tolist()):
        outputs = model(inputs["x"], inputs["y"], timestep, kinds[: passes[step]], blocks, cache)
        assert len(outputs) == passes[step]
        for branch, output in enumerate(outputs):
            golden = SAMPLING.get(f"teacache.{size}.{threshold}.output.{3 * step + branch}")
            if golden is not None:
                assert relative_error(output, golden) < 1e-5
