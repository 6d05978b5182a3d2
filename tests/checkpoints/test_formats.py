"""Quantised files of every publisher give the very numbers that stand in them, under the names of plain files."""

import json
from pathlib import Path

import pytest
import torch
from infinitetalk.pipeline.checkpoints import reading
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.checkpoints.locate import find_model_files
from infinitetalk.pipeline.checkpoints.lookup import find_text_files
from infinitetalk.pipeline.checkpoints.writing import converted_parts
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.models.image_encoder import load_image_encoder
from infinitetalk.pipeline.models.speech_encoder import load_speech_encoder
from infinitetalk.pipeline.models.text.encoder import load_text_encoder
from infinitetalk.pipeline.models.transformer.files import multitalk_notice, open_transformer
from infinitetalk.pipeline.models.vae.model import load_vae
from infinitetalk.pipeline.quantisation.gguf import STORAGES
from infinitetalk.pipeline.quantisation.rowwise import FP8_E4M3, INT8, pack_fp8, pack_int8
from infinitetalk.pipeline.quantisation.storage import Packed
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.golden.encoders import random_weights
from infinitetalk.tests.support import random_checkpoint
from infinitetalk.tests.support.other_layouts import (
    E4M3,
    cast,
    comfy_quant,
    comfy_text_encoder,
    hugging_face_image_encoder,
    old_scaled_fp8,
    plain_fp8,
    quanto,
)
from infinitetalk.tests.support.places import DATA
from infinitetalk.tests.support.publishers import BF16, LAYOUTS, PREFIX, PREFIXED, Written, stands_for
from infinitetalk.tests.support.random_checkpoint import TINY
from safetensors import safe_open
from safetensors.torch import save_file

GOLDEN = DATA / "quanto.safetensors"


def far(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def vocabulary(weights):
    return len(torch.load(weights.ckpt_dir / random_checkpoint.T5_FILE, weights_only=True)["token_embedding.weight"])


@pytest.fixture(scope="module")
def models(vocabulary):
    t5 = random_checkpoint.text_encoder_weights(TINY, vocabulary)
    base, audio = random_checkpoint.transformer_weights(TINY), random_checkpoint.infinitetalk_weights(TINY)
    comfy = comfy_text_encoder(t5, b"not used", torch.float32)
    del comfy["spiece_model"]
    return {"base": base, "audio": audio, "both": base | audio, "t5": t5, "t5 of Comfy-Org": comfy}


@pytest.mark.parametrize("model", ["base", "audio", "both", "t5", "t5 of Comfy-Org"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_number_is_read_as_it_is_written(models, tmp_path, layout, model):
    plain = models[model]
    written = LAYOUTS[layout](plain)
    tensors = open_tensors(written.save(tmp_path / "model.safetensors"), "x")
    prefix = PREFIX if layout in PREFIXED else ""
    assert set(tensors) == {prefix + name for name in plain}
    kept = []
    for name, whole in plain.items():
        found, packed = tensors[prefix + name], tensors.packed(prefix + name)
        assert tensors.shape(prefix + name) == tuple(found.shape) == packed.shape == tuple(whole.shape)
        assert torch.equal(found.float(), stands_for(written.tensors, prefix + name)), name
        assert torch.equal(found, packed.unpacked())
        assert tensors.storage(prefix + name) is packed.storage.facts
        assert packed.storage.facts.quantised == (
            name.endswith(".weight") and packed.parts["weight"].element_size() == 1
        )
        assert far(found.float(), whole) <= written.bound, name
        if whole.dim() == 2:
            kept.append(packed.storage)
    assert max(set(kept), key=kept.count) is written.kept


def test_weights_stay_as_the_file_keeps_them(models, tmp_path):
    for kind in ("scaled, Comfy-Org", "int8 by rows", "quanto int8"):
        written = LAYOUTS[kind](models["audio"])
        parts = open_tensors(written.save(tmp_path / "a.safetensors"), "x").packed("audio_proj.proj2.weight").parts
        numbers = written.tensors.get("audio_proj.proj2.weight", written.tensors.get("audio_proj.proj2.weight._data"))
        assert torch.equal(parts["weight"].view(torch.uint8), numbers.view(torch.uint8))
        assert parts["scale"].shape == (len(numbers),) and parts["scale"].dtype == torch.float32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opening_reads_nothing_but_markers(models, tmp_path, monkeypatch, layout):
    read = []

    class Counting:
        def __init__(self, *arguments, **options):
            self.file = safe_open(*arguments, **options)

        def get_tensor(self, name):
            read.append(name)
            return self.file.get_tensor(name)

    path = LAYOUTS[layout](models["both"]).save(tmp_path / "model.safetensors")
    monkeypatch.setattr(reading, "safe_open", Counting)
    tensors = open_tensors(path, "x").without_prefix(PREFIX)
    for name in tensors:
        tensors.shape(name), tensors.dtype(name), tensors.storage(name)
    assert not read
    tensors["blocks.0.ffn.0.weight"]
    assert [name for name in read if not name.endswith(("scale", "scale_weight"))] in (
        [f"{prefix}blocks.0.ffn.0.weight{data}"] for prefix in ("", PREFIX) for data in ("", "._data")
    )


def test_scales_and_marker_in_other_shards(models, tmp_path):
    tensors = old_scaled_fp8(models["base"])
    scales = {name: tensor for name, tensor in tensors.items() if "scale" in name}
    shards = ({name: tensor for name, tensor in tensors.items() if name not in scales}, scales)
    for number, shard in enumerate(shards, 1):
        save_file(shard, tmp_path / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
    found = open_tensors(tmp_path, "x")
    assert set(found) == set(models["base"])
    name = "blocks.1.ffn.2.weight"
    assert torch.equal(found[name], stands_for(tensors, name))


def test_a_scaled_file_of_torch_save(models, tmp_path):
    tensors = old_scaled_fp8(models["audio"], rows=True)
    torch.save({"state_dict": tensors}, tmp_path / "model.pth")
    found = open_tensors(tmp_path / "model.pth", "x")
    name = "audio_proj.proj1.weight"
    assert torch.equal(found[name], stands_for(tensors, name)) and found.storage(name) is FP8_E4M3.facts


def test_one_model_of_a_file_is_scaled_and_the_other_is_not(models, tmp_path):
    """As in checkpoints for ComfyUI that hold everything: plain fp8 beside a scaled text encoder."""
    t5 = "text_encoders.umt5xxl.transformer."
    tensors = {PREFIX + name: tensor for name, tensor in plain_fp8(models["both"]).items()}
    tensors |= old_scaled_fp8(models["t5 of Comfy-Org"], prefix=t5)
    save_file(tensors, tmp_path / "all.safetensors")
    found = open_tensors(tmp_path / "all.safetensors", "x")
    for name in (f"{PREFIX}blocks.0.ffn.0.weight", f"{t5}encoder.block.0.layer.0.SelfAttention.q.weight"):
        assert torch.equal(found[name], stands_for(tensors, name))
    with pytest.raises(InputError, match=f"lacks the scales of {t5}encoder"):
        lacking = {name: tensor for name, tensor in tensors.items() if ".q.scale_weight" not in name}
        save_file(lacking, tmp_path / "lacking.safetensors")
        open_tensors(tmp_path / "lacking.safetensors", "x")


def test_fp8_in_bytes(tmp_path):
    tensors, metadata = comfy_quant({"a.weight": torch.randn(4, 8)})
    in_bytes = tensors | {"a.weight": tensors["a.weight"].view(torch.uint8)}
    save_file(in_bytes, tmp_path / "a.safetensors", metadata)
    assert torch.equal(open_tensors(tmp_path / "a.safetensors", "x")["a.weight"], stands_for(tensors, "a.weight"))


def test_scales_of_floats_and_of_convolutions_count(tmp_path):
    tensors = {
        "a.weight": torch.randn(4, 8).bfloat16(),
        "a.scale_weight": torch.tensor(3.0),
        "b.weight": torch.randn(4, 3, 2, 2).to(E4M3),
        "b.weight_scale": torch.tensor([1.0, 2.0, 3.0, 4.0]),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    found = open_tensors(tmp_path / "a.safetensors", "x")
    assert torch.equal(found["a.weight"], tensors["a.weight"].float() * 3)
    assert torch.equal(found["b.weight"], tensors["b.weight"].float() * tensors["b.weight_scale"].view(4, 1, 1, 1))


@pytest.fixture(scope="module")
def golden():
    """Tensors, shapes and quantisation maps, see ``tests/golden/quanto.py``."""
    with safe_open(GOLDEN, "pt") as file:
        texts = json.loads(file.metadata()["json"])
        return {name: file.get_tensor(name) for name in file.keys()}, texts["shapes"], texts["maps"]


class TestQuantosOwn:
    """The reader and the tests' writer, against what optimum-quanto itself saved and read."""

    CASES = tuple(f"{t}.{d}" for t in ("qint8", "qfloat8_e4m3fn", "qfloat8_e5m2") for d in ("fp32", "bf16"))

    def under(self, tensors, prefix):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    @pytest.mark.parametrize("case", CASES)
    def test_reading(self, golden, tmp_path, case):
        tensors, shapes, maps = golden
        expected = self.under(tensors, f"{case}.read.")
        written = Written(self.under(tensors, f"{case}.saved."), None, 0, map=maps[case])
        found = open_tensors(written.save(tmp_path / "model.safetensors"), "x")
        assert set(found) == set(expected) == set(shapes) and len(maps[case]) == 2
        for name, values in expected.items():
            assert torch.equal(found[name].to(values.dtype), values), name
            if name.rpartition(".")[0] in maps[case] and name.endswith("weight"):
                assert found[name].dtype == torch.float32  # not rounded to the scales' dtype, as quanto does

    @pytest.mark.parametrize("case", CASES)
    def test_writing(self, golden, case):
        tensors, shapes, _ = golden
        qtype, _, dtype = case.partition(".")
        kind = {"qint8": "int8", "qfloat8_e4m3fn": "fp8", "qfloat8_e5m2": "fp8_e5m2"}[qtype]
        dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
        written, layers = quanto(random_weights(shapes), kind, dtype)
        saved = self.under(tensors, f"{case}.saved.")
        same = [name for name in saved if not name.startswith("conv.")]  # no convolution of quanto's kind in our models
        assert len(same) == 10 and layers == {"blocks.0.q": {"weights": qtype, "activations": "none"}}
        for name in same:
            assert torch.equal(written[name].float(), saved[name].float()) and written[name].dtype == saved[name].dtype

    def test_four_bits_are_refused(self, golden, tmp_path):
        tensors, _, maps = golden
        written = Written(self.under(tensors, "qint4.bf16.saved."), None, 0, map=maps["qint4.bf16"])
        with pytest.raises(InputError, match="keeps blocks.0.q as qint4; of quanto's types .*, qint8 are read"):
            open_tensors(written.save(tmp_path / "model.safetensors"), "x")


@pytest.mark.parametrize("name", ["{}.json", "{}_map.json", "t5_map_int8.json"])
def test_where_a_map_may_lie(models, tmp_path, name):
    tensors, layers = quanto(models["t5"], "int8")
    save_file(tensors, tmp_path / "t5_int8.safetensors")
    (tmp_path / name.format("t5_int8")).write_text(json.dumps(layers))
    assert open_tensors(tmp_path / "t5_int8.safetensors", "x").storage("blocks.0.attn.q.weight") is INT8.facts


@pytest.mark.parametrize("pack", [pack_fp8, pack_int8])
def test_a_converted_matrix_comes_back_bit_for_bit(models, tmp_path, pack):
    packed = pack(models["audio"]["audio_proj.proj1.weight"])
    parts = converted_parts("a.weight", packed)
    save_file({name: tensor.contiguous() for name, tensor in parts.items()}, tmp_path / "a.safetensors")
    found = open_tensors(tmp_path / "a.safetensors", "x").packed("a.weight")
    assert found.storage is packed.storage and set(found.parts) == {"weight", "scale"}
    for name, part in packed.parts.items():
        assert torch.equal(found.parts[name].view(torch.uint8), part.view(torch.uint8))


def test_converted_int8_is_as_comfyui_writes_it(models):
    """Its own ``TensorWiseINT8Layout`` with a scale for each row, and the description that its loader looks for."""
    weight = models["audio"]["audio_proj.proj1.weight"]
    parts = converted_parts("a.weight", pack_int8(weight))
    theirs, _ = comfy_quant({"a.weight": weight}, "int8_tensorwise", rows=True)
    assert {name: (part.dtype, part.shape) for name, part in parts.items()} == {
        name: (part.dtype, part.shape) for name, part in theirs.items()
    }
    assert torch.equal(parts["a.comfy_quant"], theirs["a.comfy_quant"])
    assert json.loads(bytes(converted_parts("a.weight", pack_fp8(weight))["a.comfy_quant"].tolist())) == {
        "format": "float8_e4m3fn_rowwise"
    }


def test_converted_floats_and_what_cannot_be_written():
    bias = Packed(BF16, {"weight": torch.ones(3).bfloat16()}, (3,))
    assert list(converted_parts("a.bias", bias)) == ["a.bias"]
    with pytest.raises(ValueError, match="is not written"):
        converted_parts("a.weight", Packed(STORAGES["Q4_K"], {}, (1, 1)))


@pytest.mark.parametrize("audio", ["fp32", "fp16", "scaled, Kijai", "quanto int8"])
@pytest.mark.parametrize("base", ["bf16", "fp8 e5m2", "scaled, prefixed", "int8 by rows", "quanto fp8"])
def test_base_and_audio_in_any_formats(models, tmp_path, base, audio):
    paths = []
    for model, layout in (("base", base), ("audio", audio)):
        paths.append(LAYOUTS[layout](models[model]).save(tmp_path / f"{model}.safetensors"))
    tensors = open_transformer(*paths)
    assert set(tensors) == set(models["both"])


def test_everything_in_one_needs_no_audio_file(models, tmp_path):
    path = LAYOUTS["quanto fp8"](models["both"]).save(tmp_path / "infinitetalk_single_fp8.safetensors")
    assert set(open_transformer(path, None)) == set(models["both"])


def parameters(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


class TestEncoders:
    """Quantised encoders hold what a plain file of the same numbers gives them."""

    @pytest.mark.parametrize("names", ["Wan", "Hugging Face"])
    @pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout not in PREFIXED])
    def test_text_encoder(self, models, weights, tmp_path, text_weights, layout, names):
        plain = models["t5"] if names == "Wan" else dict(models["t5 of Comfy-Org"])
        if names != "Wan":
            spiece = weights.ckpt_dir / "google" / "umt5-xxl" / "spiece.model"
            plain["spiece_model"] = torch.frombuffer(bytearray(spiece.read_bytes()), dtype=torch.uint8)
        written = LAYOUTS[layout](plain)
        numbers = {n: t if n == "spiece_model" else stands_for(written.tensors, n) for n, t in plain.items()}
        save_file(numbers, tmp_path / "plain.safetensors")
        found, expected = (
            load_text_encoder(find_text_files(path, None, weights.ckpt_dir), "cpu", torch.float32)
            for path in (written.save(tmp_path / "t5_int8.safetensors"), tmp_path / "plain.safetensors")
        )
        torch.testing.assert_close(text_weights(found), text_weights(expected), rtol=0, atol=0)
        [embedding], [reference] = found.encode(["A cat"]), expected.encode(["A cat"])
        torch.testing.assert_close(embedding, reference, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("layout", ["fp8 e4m3", "scaled, Comfy-Org", "int8 by rows", "quanto fp8"])
    def test_quantised_text_encoder_in_bf16(self, models, weights, tmp_path, text_weights, layout):
        path = LAYOUTS[layout](models["t5"]).save(tmp_path / "t5_fp8.safetensors")
        used = text_weights(load_text_encoder(find_text_files(path, None, weights.ckpt_dir), "cpu", torch.bfloat16))
        assert {weight.dtype for weight in used.values()} == {torch.bfloat16}
        whole = models["t5"]["blocks.1.ffn.fc1.weight"]
        assert far(used["1.layer.1.DenseReluDense.wi_1.weight"].float(), whole) < 0.06

    @pytest.mark.parametrize("names", ["open-clip", "Hugging Face"])
    @pytest.mark.parametrize("layout", ["fp32", "bf16", "fp8 e4m3", "scaled, Comfy-Org", "int8 by rows"])
    def test_image_encoder(self, tmp_path, layout, names):
        plain = random_checkpoint.image_encoder_weights(TINY)
        if names == "Hugging Face":
            plain = hugging_face_image_encoder(plain, torch.float32)
        written = LAYOUTS[layout](plain)
        save_file({name: stands_for(written.tensors, name) for name in plain}, tmp_path / "plain.safetensors")
        found, expected = (
            load_image_encoder(path, "cpu", torch.float32)
            for path in (written.save(tmp_path / "clip.safetensors"), tmp_path / "plain.safetensors")
        )
        torch.testing.assert_close(parameters(found.model), parameters(expected.model), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("prefix", "dtype"),
        [("", torch.float32), ("model.", torch.bfloat16), ("vae.", E4M3), ("first_stage_model.", torch.float16)],
    )
    def test_vae(self, tmp_path, prefix, dtype):
        plain = random_checkpoint.vae_weights(TINY)
        tensors = cast(plain, dtype, prefix)
        if prefix == "vae.":  # a checkpoint for ComfyUI, with other models beside
            tensors |= {f"{PREFIX}head.modulation": torch.ones(1), "text_encoders.umt5xxl.spiece_model": torch.ones(1)}
        save_file(tensors, tmp_path / "vae.safetensors")
        found = load_vae(tmp_path / "vae.safetensors").state_dict()
        assert set(found) == set(plain)
        assert all(torch.equal(found[name], tensor.to(dtype).float()) for name, tensor in plain.items())

    def test_speech_encoder(self, weights, tmp_path):
        """Kijai's single file in fp16, and the same in fp8."""
        plain = random_checkpoint.speech_encoder_weights(TINY)
        whole = load_speech_encoder(weights.wav2vec_dir).model.state_dict()
        for dtype in (torch.float16, E4M3):
            save_file(cast(plain, dtype), tmp_path / "wav2vec2.safetensors")
            found = load_speech_encoder(tmp_path / "wav2vec2.safetensors").model.state_dict()
            assert set(found) == set(whole)
            assert all(torch.equal(found[name], tensor.to(dtype).float()) for name, tensor in whole.items())


def test_meigens_text_encoder_lies_beside_the_quantised_transformer(weights, tmp_path):
    settings = {"ckpt_dir": weights.ckpt_dir, "wav2vec_dir": weights.wav2vec_dir, "quant": "fp8"}
    transformer = tmp_path / "infinitetalk_single_fp8.safetensors"
    transformer.touch()
    official = weights.ckpt_dir / random_checkpoint.T5_FILE
    assert find_model_files(Settings(**settings, quant_dir=transformer)).encoders.text.weights == official
    for kind in ("fp8", "int8"):
        (tmp_path / f"t5_{kind}.safetensors").touch()
    found = find_model_files(Settings(**settings, quant_dir=transformer))
    assert found.encoders.text.weights == tmp_path / "t5_fp8.safetensors" and found.encoders.text.tokenizer is not None
    assert find_model_files(Settings(**settings)).encoders.text.weights == official
    given = find_model_files(Settings(**settings, quant_dir=transformer, text_encoder=official))
    assert given.encoders.text.weights == official


@pytest.mark.parametrize(
    "name",
    ["umt5-xxl-enc-fp8_e4m3fn.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "umt5_xxl_fp16.safetensors"],
)
def test_publishers_names_are_found_in_the_folder(weights, tmp_path, name):
    for file in (random_checkpoint.CLIP_FILE, random_checkpoint.VAE_FILE, name):
        (tmp_path / file).touch()
    found = find_model_files(Settings(ckpt_dir=tmp_path, wav2vec_dir=weights.wav2vec_dir))
    assert found.encoders.text.weights == tmp_path / name


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("multitalk.safetensors", True),
        ("WanVideo_2_1_Multitalk_14B_fp8_e4m3fn.safetensors", True),
        ("infinitetalk.safetensors", False),
        ("Wan2_1-InfiniTetalk-Single_fp16.safetensors", False),
        ("wan2.1_infiniteTalk_multi_fp16.safetensors", False),
    ],
)
def test_multitalk_in_infinitetalks_place_is_told_by_name(name, warned):
    notice = multitalk_notice(Path("MeiGen-MultiTalk") / name)
    assert (notice is not None) == warned
    if warned:
        assert name in notice and "MeiGen-AI/InfiniteTalk" in notice
