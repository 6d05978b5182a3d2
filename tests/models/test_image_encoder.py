"""The image encoder, against upstream's own, against transformers' and over every kind of file."""

import json

import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.models.image_encoder import MEAN, STD, load_image_encoder
from infinitetalk.tests.golden.encoders import random_weights
from infinitetalk.tests.support.places import DATA
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

GOLDEN = DATA / "encoders_image.safetensors"


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        return file.get_tensor("image"), file.get_tensor("features"), json.loads(file.metadata()["json"])["shapes"]


@pytest.fixture(scope="module")
def weights(golden):
    return random_weights(golden[2])


def transformers_names(weights):
    """CLIP's weights under transformers' names, written out apart from the engine's own table."""
    v = {name.removeprefix("visual."): tensor for name, tensor in weights.items()}
    result = {
        "embeddings.class_embedding": v["cls_embedding"].reshape(-1),
        "embeddings.position_embedding.weight": v["pos_embedding"][0],
        "embeddings.patch_embedding.weight": v["patch_embedding.weight"],
    }
    for leaf in ("weight", "bias"):
        result[f"pre_layrnorm.{leaf}"] = v[f"pre_norm.{leaf}"]
        result[f"post_layernorm.{leaf}"] = v[f"post_norm.{leaf}"]
        for i in range(3):
            old, new = f"transformer.{i}", f"encoder.layers.{i}"
            for x, part in zip("qkv", v[f"{old}.attn.to_qkv.{leaf}"].split(160), strict=True):
                result[f"{new}.self_attn.{x}_proj.{leaf}"] = part.clone()
            result[f"{new}.self_attn.out_proj.{leaf}"] = v[f"{old}.attn.proj.{leaf}"]
            result[f"{new}.layer_norm1.{leaf}"] = v[f"{old}.norm1.{leaf}"]
            result[f"{new}.layer_norm2.{leaf}"] = v[f"{old}.norm2.{leaf}"]
            result[f"{new}.mlp.fc1.{leaf}"] = v[f"{old}.mlp.0.{leaf}"]
            result[f"{new}.mlp.fc2.{leaf}"] = v[f"{old}.mlp.2.{leaf}"]
    return {f"vision_model.{name}": tensor for name, tensor in result.items()}


def save(tensors, path):
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


def load(path, dtype=torch.float32):
    return load_image_encoder(path, "cpu", dtype)


def test_features_are_upstreams(golden, weights, tmp_path):
    image, expected, _ = golden
    before = image.clone()
    found = load(save(weights, tmp_path / "clip.pth")).encode(image)
    assert found.shape == expected.shape == (17, 160)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(image, before)


def test_every_publishers_file_gives_the_same(golden, weights, tmp_path):
    image = golden[0]
    renamed = transformers_names(weights)
    vision = {name: tensor for name, tensor in weights.items() if name.startswith("visual.")}
    expected = load(save(weights, tmp_path / "official.pth"))
    for kind, tensors in {
        "official": weights,
        "visual_only": vision,
        "bare": {name.removeprefix("visual."): tensor for name, tensor in vision.items()},
        "clip_vision_h": renamed,
        "with_projection": {**renamed, "visual_projection.weight": torch.ones(8, 160)},
        "saved_by_transformers_5": {name.removeprefix("vision_model."): t for name, t in renamed.items()},
    }.items():
        found = load(save(tensors, tmp_path / f"{kind}.safetensors"))
        torch.testing.assert_close(found.model.state_dict(), expected.model.state_dict(), rtol=0, atol=0)
        # the last bit may differ, as mapped memory is aligned otherwise
        torch.testing.assert_close(found.encode(image), expected.encode(image), rtol=0, atol=5e-6)


def test_features_are_of_the_last_layer_but_one(golden, weights, tmp_path):
    config = CLIPVisionConfig(
        hidden_size=160,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        hidden_act="gelu",
    )
    whole = CLIPVisionModel(config).eval()
    renamed = {name.removeprefix("vision_model."): tensor for name, tensor in transformers_names(weights).items()}
    getattr(whole, "vision_model", whole).load_state_dict(renamed)
    pixels = torch.nn.functional.interpolate(golden[0][None], (28, 28), mode="bicubic") / 2 + 0.5
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        expected = whole(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][0]
    encoder = load(save(weights, tmp_path / "clip.pth"))
    torch.testing.assert_close(encoder.encode(golden[0]), expected, rtol=0, atol=1e-5)
    names = [name for name, _ in encoder.model.named_parameters()]
    assert any("layers.1." in name for name in names)
    assert not any("layers.2." in name for name in names)


def test_half_precision_and_another_image(golden, weights, tmp_path):
    image, expected, _ = golden
    path = save(weights, tmp_path / "clip.pth")
    found = load(path, torch.bfloat16).encode(image)
    assert found.dtype == torch.bfloat16
    assert 0 < (found.float() - expected).abs().max() < 0.1 * expected.abs().max()
    assert (load(path).encode(-image) - expected).abs().max() > 0.1


def test_moving(golden, weights, tmp_path):
    encoder = load(save(weights, tmp_path / "clip.pth"))
    expected = encoder.encode(golden[0])
    encoder.move_to("cpu")
    assert torch.equal(encoder.encode(golden[0]), expected)


def test_heads_of_a_small_tower_are_64_wide(golden, tmp_path):
    def weights_of_width(dim):
        return random_weights(
            {name: [dim * n // 160 if n % 160 == 0 else n for n in s] for name, s in golden[2].items()}
        )

    encoder = load(save(weights_of_width(128), tmp_path / "small.pth"))
    assert encoder.model.config.num_attention_heads == 2
    assert encoder.encode(golden[0]).shape == (17, 128)
    with pytest.raises(InputError, match=r"odd\.pth is 100 wide"):
        load(save(weights_of_width(100), tmp_path / "odd.pth"))


def test_wrong_files_are_refused(weights, tmp_path):
    def refused(tensors, words):
        path = save(tensors, tmp_path / "wrong.pth")
        with pytest.raises(InputError, match=words) as error:
            load(path)
        assert str(path) in str(error.value)

    refused({"token_embedding.weight": torch.ones(1)}, "another kind")
    lacking = {k: v for k, v in weights.items() if k != "visual.transformer.1.attn.to_qkv.bias"}
    refused(lacking, "lacks encoder.layers.1.self_attn.k_proj.bias")
    uneven = {**weights, "visual.pos_embedding": torch.ones(1, 16, 160)}
    refused(uneven, "position_embedding.weight of shape .16, 160., expected .17, 160.")
