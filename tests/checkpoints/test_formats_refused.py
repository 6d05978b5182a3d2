"""Quantised files that cannot be read exactly are refused by what is in them."""

import json

import pytest
import torch
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.errors import InputError
from infinitetalk.tests.support.other_layouts import E4M3
from infinitetalk.tests.support.publishers import PREFIX, Written
from safetensors.torch import save_file


def json_tensor(**description):
    return torch.tensor(list(json.dumps(description).encode()), dtype=torch.uint8)


WEIGHT = torch.ones(4, 8)
REFUSALS = {
    "scales missing": (
        {"scaled_fp8": torch.zeros(0).to(E4M3), "a.weight": WEIGHT.to(E4M3), "b.weight": WEIGHT.to(E4M3)},
        "lacks the scales of a.weight and 1 more",
    ),
    "one scale missing": (
        {"a.weight": WEIGHT.to(E4M3), "a.scale_weight": torch.ones(()), "b.weight": WEIGHT.to(E4M3)},
        "lacks the scales of b.weight, without",
    ),
    "marker with a prefix": (
        {f"{PREFIX}scaled_fp8": torch.zeros(2).to(E4M3), f"{PREFIX}a.weight": WEIGHT.to(E4M3)},
        f"lacks the scales of {PREFIX}a.weight",
    ),
    "marker without the prefix": (
        {"scaled_fp8": torch.zeros(2).to(E4M3), f"{PREFIX}a.weight": WEIGHT.to(E4M3)},
        f"lacks the scales of {PREFIX}a.weight",
    ),
    "described, no scale": (
        {"a.weight": WEIGHT.to(E4M3), "a.comfy_quant": json_tensor(format="float8_e4m3fn")},
        "lacks the scales of a.weight",
    ),
    "int8, no scale": ({"a.weight": WEIGHT.to(torch.int8)}, "lacks the scales of a.weight"),
    "nvfp4": (
        {
            "a.weight": WEIGHT.to(torch.uint8),
            "a.weight_scale": torch.ones(4, 1).to(E4M3),
            "a.weight_scale_2": torch.ones(()),
            "a.comfy_quant": json_tensor(format="nvfp4"),
        },
        "keeps a in a way that is not read here (its format is nvfp4)",
    ),
    "nvfp4 without description": (
        {"a.weight": WEIGHT.to(torch.uint8), "a.weight_scale": torch.ones(4, 1), "a.weight_scale_2": torch.ones(())},
        "(it has a.weight_scale_2)",
    ),
    "mxfp8": (
        {"a.weight": WEIGHT.to(E4M3), "a.weight_scale": torch.ones(4, 1, dtype=torch.uint8)},
        "([4, 1] scales in uint8 for a weight of [4, 8]; read are one for all or one for each row)",
    ),
    "blocks": (
        {"a.weight": WEIGHT.to(E4M3), "a.weight_scale": torch.ones(2, 4)},
        "([2, 4] scales in float32 for a weight of [4, 8];",
    ),
    "columns": (
        {"a.weight": torch.ones(4, 4).to(E4M3), "a.weight_scale": torch.ones(1, 4)},
        "([1, 4] scales in float32 for a weight of [4, 4];",
    ),
    "inverse": (
        {"a.weight": WEIGHT.to(E4M3), "a.weight_scale_inv": torch.ones(1, 1)},
        "(it has a.weight_scale_inv)",
    ),
    "rotated": (
        {
            "a.weight": WEIGHT.to(torch.int8),
            "a.weight_scale": torch.ones(4, 1),
            "a.comfy_quant": json_tensor(format="int8_tensorwise", convrot=True, convrot_groupsize=256),
        },
        "(its format is int8_tensorwise with convrot)",
    ),
    "smoothed": (
        {"a.weight": WEIGHT.to(E4M3), "a.weight_scale": torch.ones(()), "a.pre_quant_scale": torch.ones(8)},
        "(it has a.pre_quant_scale)",
    ),
    "another format": (
        {
            "a.weight": WEIGHT.bfloat16(),
            "a.weight_scale": torch.ones(()),
            "a.comfy_quant": json_tensor(format="float8_e4m3fn"),
        },
        "(its format is float8_e4m3fn, but its weight bfloat16)",
    ),
    "not JSON": (
        {"a.weight": WEIGHT.to(E4M3), "a.comfy_quant": torch.tensor([1, 2], dtype=torch.uint8)},
        "has a a.comfy_quant that is not valid JSON",
    ),
    "bitsandbytes": (
        {"a.weight": torch.ones(16, 1, dtype=torch.uint8), "a.weight.absmax": torch.ones(1)},
        "(it has a.weight.absmax)",
    ),
    "GPTQ": (
        {"a.qweight": torch.ones(4, 8, dtype=torch.int32)},
        "keeps a in a way that is not read here (it has a.qweight)",
    ),
    "bytes": ({"a.weight": torch.ones(4, 8, dtype=torch.uint8)}, "(its weight is uint8)"),
    "quanto, no scale": ({"a.weight._data": WEIGHT.to(torch.int8)}, "lacks a.weight._scale"),
    "quanto, no map": (
        {"b.weight._data": WEIGHT.to(torch.int8), "b.weight._scale": torch.ones(4, 1)},
        "its quantisation map does not name b; the map is another file's",
    ),
    "quanto, wrong map": (
        {"a.weight._data": WEIGHT.to(E4M3), "a.weight._scale": torch.ones(4, 1)},
        "holds a.weight._data in float8_e4m3fn, but its quantisation map says qint8",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_read_is_refused_by_name(tmp_path, case):
    tensors, words = REFUSALS[case]
    path = Written(tensors, None, 0, map={"a": {"weights": "qint8", "activations": "none"}}).save(
        tmp_path / "model.safetensors"
    )
    with pytest.raises(InputError) as error:
        open_tensors(path, "the flag")
    sentence = str(error.value)
    assert sentence.startswith(f"the flag: {path} ") and words in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"layers": {"a": {"format": "mxfp8"}}}, "(its format is mxfp8)"),
        ({"layers": {"a": "nvfp4"}}, "(its format is nvfp4)"),
        ({"layers": [1]}, "names no layers"),
        ([], "names no layers"),
    ],
)
def test_headers_that_are_not_read(tmp_path, header, words):
    tensors = {f"{PREFIX}a.weight": WEIGHT.to(E4M3), f"{PREFIX}a.weight_scale": torch.ones(())}
    save_file(tensors, tmp_path / "a.safetensors", {"_quantization_metadata": json.dumps(header)})
    with pytest.raises(InputError) as error:
        open_tensors(tmp_path / "a.safetensors", "x")
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', "\xff"])
def test_maps_that_are_none(tmp_path, text):
    save_file({"a.weight._data": WEIGHT.to(torch.int8)}, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=f"{tmp_path / 'model.json'} is (not valid JSON|no quantisation map)"):
        open_tensors(tmp_path / "model.safetensors", "x")
