"""LoRA files: every naming means the same change, the sums are right, and nothing is passed over in silence."""

import json

import pytest
import torch
from infinitetalk.pipeline.checkpoints.files import open_tensors, tensors_from_dict
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.lora import is_lora, lora_summary, open_loras
from infinitetalk.tests.support import lora_files, random_checkpoint
from infinitetalk.tests.support.lora_files import NAMINGS, Layer, random_layers
from safetensors.torch import save_file

CPU = torch.device("cpu")
FORTY = random_checkpoint.Sizes(dim=64, layers=40, ffn=96, text_dim=32, clip_dim=80)
SMALL = random_checkpoint.Sizes(dim=64, layers=2, ffn=96, text_dim=32, clip_dim=80)


def shapes_of(sizes):
    table = {**random_checkpoint.transformer_table(sizes), **random_checkpoint.infinitetalk_table(sizes)}
    return {name: spec.shape for name, spec in table.items()}


@pytest.fixture
def opened(tmp_path):
    """Opens LoRAs that are given as tensors."""

    def call(*files, scales=None, sizes=SMALL, ignore=False, metadata=None):
        paths = []
        for number, tensors in enumerate(files):
            paths.append(tmp_path / f"lora{number}.safetensors")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, paths[-1], metadata)
        return open_loras(paths, scales or [1.0] * len(files), shapes_of(sizes), ignore)

    return call


def expected_delta(layers, name, scale=1.0, sizes=SMALL):
    zeros = {other: torch.zeros(shape) for other, shape in shapes_of(sizes).items()}
    return lora_files.applied(zeros, layers, scale)[name]


EVERYWHERE = lora_files.IN_BLOCKS + r"|^(text_embedding|time_embedding|time_projection|img_emb|head)\."


@pytest.mark.parametrize(
    ("naming", "alpha"), [*((naming, 2.0) for naming in NAMINGS), *((naming, None) for naming in list(NAMINGS)[:3])]
)
def test_every_naming_is_the_same_change(opened, naming, alpha):
    layers = random_layers(SMALL, 4, EVERYWHERE, without="audio|norm_x", biases=True, norms=True, alpha=alpha)
    loras = opened(NAMINGS[naming](layers), scales=[0.7])
    changed = {name for name in shapes_of(SMALL) if loras.touches(name)}
    assert len(changed) == sum(
        (layer.up is not None or layer.weight is not None) + (layer.bias is not None) for layer in layers.values()
    )
    for name in changed:
        torch.testing.assert_close(loras.delta(name, CPU), expected_delta(layers, name, 0.7), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("naming", ["comfy", "bare", "peft", "kohya"])
def test_audio_layers_are_layers_like_others(opened, naming):
    layers = random_layers(
        SMALL, 4, r"audio", biases=True, norms=True, without=r"self_attn|\.cross_attn|ffn|norm3|img_emb"
    )
    loras = opened(NAMINGS[naming](layers))
    for name in ("blocks.1.audio_cross_attn.kv_linear.weight", "audio_proj.proj1.bias", "blocks.0.norm_x.weight"):
        torch.testing.assert_close(loras.delta(name, CPU), expected_delta(layers, name))


def test_attn1_is_the_self_attention(opened):
    up, down = torch.randn(64, 2), torch.randn(2, 64)
    for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn")):
        loras = opened({f"transformer.blocks.0.{theirs}.to_q.lora_{x}.weight": t for x, t in (("A", down), ("B", up))})
        assert loras.touches(f"blocks.0.{ours}.q.weight")


@pytest.mark.parametrize(
    "key", ["blocks.1.diff_m", "blocks.1.modulation.diff", "transformer.blocks.1.scale_shift_table.diff"]
)
@pytest.mark.parametrize("shape", [(1, 6, 64), (6, 64)])
def test_modulations(opened, key, shape):
    change = torch.randn(shape)
    loras = opened({key: change, "head.diff_m": torch.ones(1, 2, 64)}, scales=[-0.5])
    assert torch.equal(loras.delta("blocks.1.modulation", CPU), -0.5 * change.reshape(1, 6, 64))
    assert torch.equal(loras.delta("head.modulation", CPU), torch.full((1, 2, 64), -0.5))


def test_several_files_add_up_and_run_beside_the_layer(opened):
    first = random_layers(SMALL, 4, lora_files.IN_BLOCKS, without="audio", alpha=8.0, seed=1)
    second = random_layers(SMALL, 2, lora_files.IN_BLOCKS, without="audio", seed=2)
    loras = opened(lora_files.comfy(first), lora_files.kohya(second), scales=[0.8, -0.3])
    name = "blocks.0.ffn.2.weight"
    both = expected_delta(first, name, 0.8) + expected_delta(second, name, -0.3)
    torch.testing.assert_close(loras.delta(name, CPU), both, rtol=1e-5, atol=1e-7)
    assert not loras.has_dense(name) and loras.rank(name) == 6
    down, up = loras.branch(name, CPU, torch.float32)
    assert down.shape == (6, 96) and up.shape == (64, 6)
    torch.testing.assert_close(up @ down, both, rtol=1e-4, atol=1e-6)


def test_whole_differences_of_matrices(opened):
    loras = opened({"diffusion_model.blocks.0.ffn.0.diff": torch.ones(96, 64)})
    assert loras.has_dense("blocks.0.ffn.0.weight")
    assert torch.equal(loras.delta("blocks.0.ffn.0.weight", CPU), torch.ones(96, 64))


@pytest.mark.parametrize("mid", [False, True])
def test_the_patch_embedding_is_a_convolution(opened, mid):
    up, down = torch.randn(64, 4, 1, 1, 1), torch.randn(4, 36, *((1, 1, 1) if mid else (1, 2, 2)))
    parts = {"lora_up.weight": up, "lora_down.weight": down}
    expected = torch.einsum("or,r...->o...", up[:, :, 0, 0, 0], down)
    if mid:
        parts["lora_mid.weight"] = torch.randn(4, 4, 1, 2, 2)
        expected = torch.nn.functional.conv_transpose3d(
            down.transpose(0, 1), parts["lora_mid.weight"].transpose(0, 1)
        )  # [in, r, kernel]: the kernel spread over the inputs
        expected = torch.einsum("or,ir...->oi...", up[:, :, 0, 0, 0], expected)
    loras = opened({f"diffusion_model.patch_embedding.{part}": tensor for part, tensor in parts.items()})
    torch.testing.assert_close(loras.delta("patch_embedding.weight", CPU), expected, rtol=1e-4, atol=1e-5)
    assert loras.has_dense("patch_embedding.weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_factors_of_every_dtype(opened, dtype):
    up, down = torch.randn(64, 2).to(dtype), torch.randn(2, 64).to(dtype)
    loras = opened({"blocks.0.self_attn.q.lora_up.weight": up, "blocks.0.self_attn.q.lora_down.weight": down})
    torch.testing.assert_close(loras.delta("blocks.0.self_attn.q.weight", CPU), up.float() @ down.float())


def test_a_bias_beside_the_factors_goes_with_alpha(opened):
    stem = "transformer.blocks.0.attn1.to_q"
    tensors = {f"{stem}.lora_A.weight": torch.randn(2, 64), f"{stem}.lora_B.weight": torch.randn(64, 2)}
    tensors |= {f"{stem}.lora_B.bias": torch.ones(64), f"{stem}.alpha": torch.tensor(1.0)}
    assert torch.equal(opened(tensors).delta("blocks.0.self_attn.q.bias", CPU), torch.full((64,), 0.5))


@pytest.mark.parametrize(("rooted", "factor"), [(False, 4.0), (True, 8.0)])
def test_alpha_in_diffusers_header(opened, rooted, factor):
    up, down = torch.randn(64, 4), torch.randn(4, 64)
    settings = {"transformer.lora_alpha": 16, "transformer.r": 4, "transformer.use_rslora": rooted}
    loras = opened(
        {"transformer.blocks.0.attn1.to_q.lora_A.weight": down, "transformer.blocks.0.attn1.to_q.lora_B.weight": up},
        metadata={"lora_adapter_metadata": json.dumps(settings)},
    )
    torch.testing.assert_close(loras.delta("blocks.0.self_attn.q.weight", CPU), factor * up @ down)


@pytest.mark.parametrize(
    ("make", "layers"),
    [(lora_files.lightx2v_i2v, 488), (lora_files.lightx2v_t2v, 400), (lora_files.fusionx, 480)],
)
def test_published_files_match_whole(opened, make, layers):
    """Forty blocks with the real keys: every one of them is used."""
    tensors = make(FORTY)
    loras = opened(tensors, sizes=FORTY)
    (file,) = loras.files
    assert file.unmatched == ()
    products = [name for name in file.changes if loras.rank(name)]
    assert len(products) == layers
    pairs = sum(key.endswith("lora_up.weight") for key in tensors)
    assert sum(map(len, file.changes.values())) == len(tensors) - pairs
    told = loras.describe()[0]
    assert f"{layers} layers by rank" in told and "at 1" in told
    if make is lora_files.lightx2v_i2v:
        assert "41 modulations" in told and "whole matrices" not in told  # the norms of img_emb are norms
    if make is lora_files.lightx2v_t2v:
        assert not any("img" in name for name in file.changes)


def refused(opened, tensors, **kwargs):
    with pytest.raises(InputError) as caught:
        opened(tensors, **kwargs)
    sentence = str(caught.value)
    assert sentence.startswith("--lora_dir: ") and "lora0.safetensors" in sentence and "\n" not in sentence
    return sentence


GOOD = {
    "blocks.0.self_attn.q.lora_up.weight": torch.ones(64, 2),
    "blocks.0.self_attn.q.lora_down.weight": torch.ones(2, 64),
}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("blocks.0.self_attn.q.dora_scale", "DoRA"),
        ("base_model.model.blocks.0.self_attn.q.lora_magnitude_vector.weight", "DoRA"),
        ("lora_unet_blocks_0_self_attn_q.lokr_w1", "LoKr"),
        ("lora_unet_blocks_0_self_attn_q.hada_w1_a", "LoHa"),
        ("blocks.0.self_attn.q.oft_blocks", "OFT"),
        ("diffusion_model.dwpose_embedding.0.weight", "UniAnimate"),
        ("blocks.0.self_attn.q_loras.down.weight", "Stand-In"),
        ("blocks.0.self_attn.q.set_weight", "set_weight"),
    ],
)
def test_other_adapters_are_refused_by_name(opened, key, kind):
    sentence = refused(opened, {**GOOD, key: torch.ones(64, 1)}, ignore=True)
    assert kind in sentence and key in sentence


def test_keys_without_a_place_are_named_or_left_out_on_request(opened):
    strange = {"diffusion_model.blocks.7.ffn.0.lora_up.weight": torch.ones(96, 2)}
    strange |= {
        "diffusion_model.blocks.7.ffn.0.lora_down.weight": torch.ones(2, 64),
        "lora_te_text.alpha": torch.ones(()),
    }
    sentence = refused(opened, {**GOOD, **strange})
    assert "3 of 5 keys" in sentence and "blocks.7.ffn.0" in sentence and "--lora_ignore_unmatched" in sentence
    loras = opened({**GOOD, **strange}, ignore=True)
    assert loras.touches("blocks.0.self_attn.q.weight") and "3 keys without a place are left out" in loras.describe()[0]


@pytest.mark.parametrize(
    ("keys", "model"),
    [
        (("lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_3_linear1"), "Flux or HunyuanVideo"),
        (("lora_unet_down_blocks_0_attentions_0_proj_in",), "Stable Diffusion or SDXL"),
    ],
)
def test_a_lora_for_another_model(opened, keys, model):
    tensors = {f"{key}.lora_{part}.weight": torch.ones(4, 4) for key in keys for part in ("up", "down")}
    for ignore in (False, True):
        sentence = refused(opened, tensors, ignore=ignore)
        assert "made for another model" in sentence and model in sentence


def test_a_lora_for_the_small_wan(opened):
    tensors = {
        "blocks.0.self_attn.q.lora_up.weight": torch.ones(1536, 2),
        "blocks.0.self_attn.q.lora_down.weight": torch.ones(2, 1536),
    }
    sentence = refused(opened, tensors, ignore=True)
    assert "made for Wan 2.1 1.3B" in sentence and "blocks.0.self_attn.q.weight of shape [64, 64]" in sentence


def test_half_a_layer_and_no_lora(opened):
    assert "without its other half" in refused(opened, {"blocks.0.ffn.0.lora_up.weight": torch.ones(96, 2)})
    assert "is not a LoRA" in refused(opened, {"blocks.0.ffn.0.weight": torch.ones(96, 64)})
    assert "does not fit" in refused(opened, {**GOOD, "blocks.0.norm3.diff": torch.ones(63)})


def test_what_inspection_tells(tmp_path):
    told = dict(lora_summary(tensors_from_dict(lora_files.lightx2v_i2v(FORTY, rank=8))))
    assert told["is"] == "a LoRA" and told["rank"] == "8 (488 layers)" and told["width"] == "64"
    assert told["blocks"] == "40 (0 to 39)" and "self_attn.q (40)" in told["touches"]
    assert "41 x difference of the modulation" in told["also"]
    save_file({"blocks.0.ffn.0.lokr_w1": torch.ones(2, 2)}, tmp_path / "lokr.safetensors")
    tensors = open_tensors(tmp_path / "lokr.safetensors", "x")
    assert is_lora(tensors) and "LoKr" in dict(lora_summary(tensors))["refused"]
    assert not is_lora(tensors_from_dict({"blocks.0.ffn.0.weight": torch.ones(2)}))


def test_layers_of_tests_are_as_strong_as_asked_for():
    layer = random_layers(SMALL, 4, lora_files.IN_BLOCKS, without="audio", strength=0.3, alpha=2.0)["blocks.0.ffn.0"]
    assert isinstance(layer, Layer)
    change = layer.alpha / 4 * layer.up @ layer.down
    assert 0.2 < change.std() / random_checkpoint.transformer_table(SMALL)["blocks.0.ffn.0.weight"].std < 0.45
