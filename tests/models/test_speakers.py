"""Two speakers against upstream's WanModel: forwards, the reference map, positions; and voices in regions."""

import json
from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.models.transformer import block, speakers
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations
from infinitetalk.pipeline.models.transformer.blocks import TransformerBlocks
from infinitetalk.pipeline.models.transformer.few_keys import choose_few_keys
from infinitetalk.pipeline.models.transformer.files import open_transformer
from infinitetalk.pipeline.models.transformer.loading import load_transformer
from infinitetalk.pipeline.models.transformer.matrices import StorageRequest, plan_weights
from infinitetalk.pipeline.models.transformer.model import Context
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.models.transformer.speakers import Placed, bound
from infinitetalk.tests.golden.recipe import random_state, random_tensor, read_golden
from infinitetalk.tests.golden.speakers import AUDIO
from infinitetalk.tests.golden.transformer import golden_inputs
from infinitetalk.tests.support.places import DATA
from safetensors.torch import save_file

BASE = read_golden(DATA / "transformer.safetensors")[1]
GOLDEN, NOTES = read_golden(DATA / "speakers.safetensors")
CPU = torch.device("cpu")
MASKS = torch.tensor(NOTES["masks"])[:, ::2, ::2].flatten(1)  # of tokens
VOICES = random_tensor("two voices", AUDIO)


@pytest.fixture(scope="module")
def inputs():
    return golden_inputs(BASE["inputs"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    save_file(random_state(BASE["shapes"]), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(BASE["config"]))
    return folder


def loaded(folder, dtype=torch.float32, quant=None, resident=99):
    blocks = TransformerBlocks(CPU, resident=resident)
    operations = Operations(choose_attention("sdpa", CPU, dtype), choose_pointwise("plain", CPU))
    weights = plan_weights(
        open_transformer(folder / "model.safetensors", None), StorageRequest(dtype, quant), operations.matmuls
    )
    model = load_transformer(weights, operations, blocks)
    blocks.to_device()
    return model, blocks


@pytest.fixture(scope="module")
def model(folder):
    return loaded(folder)


def contexts(model, inputs, *speech):
    text = model.encode_text(inputs["context"], model.blocks)
    image = model.encode_image(inputs["clip"][0], model.blocks)
    return [Context(text, image, one) for one in speech]


def two(model, voices=VOICES, masks=MASKS):
    return bound([model.embed_speech(voice) for voice in voices], masks)


@torch.no_grad()
def predict(model_and_blocks, inputs, timestep, *speech):
    model, blocks = model_and_blocks
    return model(inputs["x"], inputs["y"], timestep, contexts(model, inputs, *speech), blocks)


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("i", range(3))
def test_forward_of_two_speakers_equals_upstream(model, inputs, i):
    (output,) = predict(model, inputs, NOTES["timesteps"][i], two(model[0]))
    assert relative_error(output, GOLDEN[f"output.{i}"]) < 1e-5


def test_maps_and_positions_equal_upstream(model, inputs, monkeypatch):
    """Upstream tells tokens apart by the largest of three maps; where two are close, rounding may decide."""
    maps, places = [], []
    look, place = speakers.reference_map, speakers.positions
    monkeypatch.setattr(block, "reference_map", lambda *a: maps.append(look(*a)) or maps[-1])
    monkeypatch.setattr(block, "positions", lambda *a: places.append(place(*a)) or places[-1])
    predict(model, inputs, NOTES["timesteps"][1], two(model[0]))
    assert len(maps) == 3
    for index, (found, position) in enumerate(zip(maps, places, strict=True)):
        expected = GOLDEN[f"map.{index}"]
        assert relative_error(found, expected) < 1e-5
        first, second = expected.topk(2, dim=0).values
        clear = first - second > 1e-5 * expected.max()
        assert clear.float().mean() > 0.99 and (found.argmax(0) == expected.argmax(0))[clear].all()
        assert (position - GOLDEN[f"places.{index}"])[clear].abs().max() < 2e-3
        assert len(expected.argmax(0).unique()) > 1


def test_branches_beside_two_speakers_are_what_they_are_alone(model, inputs):
    """Also those that hear nothing, which upstream computes as of one speaker."""
    silent = model[0].embed_speech(torch.zeros_like(VOICES[0]))
    both = two(model[0])
    together = predict(model, inputs, 546.5, silent, both, silent)
    assert relative_error(together[1], GOLDEN["output.1"]) < 1e-5
    for found, speech in zip(together, (silent, both, silent), strict=True):
        assert torch.equal(found, predict(model, inputs, 546.5, speech)[0])


def test_streaming_of_blocks_never_changes_a_bit(folder, model, inputs):
    swapped = loaded(folder, resident=1)
    (expected,) = predict(model, inputs, 546.5, two(model[0]))
    for _ in range(2):
        assert torch.equal(predict(swapped, inputs, 546.5, two(model[0]))[0], expected)


@pytest.mark.parametrize(("dtype", "quant", "bound"), [(torch.bfloat16, None, 3e-2), (torch.float32, "int8", 6e-2)])
def test_low_precision_is_close(folder, inputs, dtype, quant, bound):
    other = loaded(folder, dtype, quant)
    (output,) = predict(other, inputs, 546.5, two(other[0]))
    assert (output - GOLDEN["output.1"]).norm() / GOLDEN["output.1"].norm() < bound


@pytest.mark.parametrize("folded", [False, True])
def test_a_voice_everywhere_is_a_voice(model, inputs, folded, monkeypatch):
    if folded:
        few_keys = choose_few_keys("plain", CPU, torch.float32)
        monkeypatch.setattr(model[0], "operations", replace(model[0].operations, few_keys=few_keys))
    voices = torch.stack([model[0].embed_speech(voice) for voice in VOICES])
    shares = torch.zeros(2, MASKS.shape[1])
    for whose in range(2):
        (expected,) = predict(model, inputs, 546.5, voices[whose])
        (output,) = predict(model, inputs, 546.5, Placed(voices, shares.index_fill(0, torch.tensor(whose), 1.0)))
        assert relative_error(output, expected) < 1e-5


def test_a_placed_voice_reaches_its_region_alone(model, inputs):
    """In the first block: later ones carry it on."""
    model = model[0]
    attention, operations = model.blocks[0].audio_cross_attn, model.operations
    voices = torch.stack([model.embed_speech(voice) for voice in VOICES])
    frames, inside = voices.shape[1], MASKS[0].bool()
    x = torch.randn(frames * len(inside), model.config.dim)

    def heard(speech):
        return attention(block.Activation(x.clone()), speech, operations).unflatten(0, (frames, -1))

    mixed = heard(Placed(voices, torch.stack([MASKS[0], 1 - MASKS[0]]).float()))
    for place, voice in ((inside, voices[0]), (~inside, voices[1])):
        torch.testing.assert_close(mixed[:, place], heard(voice)[:, place], rtol=1e-5, atol=1e-6)
