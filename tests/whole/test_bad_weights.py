"""Weights that are missing, damaged, of another kind or in another place: one sentence each, and nothing is executed.

Each case is a whole call of the command. The sentence names the flag and the file, and says how to get what is missing.
"""

import json
import os
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.facts import downloads
from infinitetalk.tests.support.other_layouts import comfy_quant, old_scaled_fp8, quanto
from infinitetalk.tests.support.places import PORTRAIT
from infinitetalk.tests.support.random_checkpoint import (
    CLIP_FILE,
    T5_FILE,
    TINY,
    VAE_FILE,
    infinitetalk_weights,
    transformer_weights,
)
from safetensors.torch import load_file, save_file

SHARD = "diffusion_pytorch_model-00003-of-00007.safetensors"
GET_BASE, GET_SPEECH, GET_AUDIO = downloads.BASE, downloads.SPEECH_ENCODER, downloads.INFINITETALK


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"ckpt_dir": None}, ["--ckpt_dir is missing", GET_BASE]),
        ({"ckpt_dir": "nowhere"}, ["--ckpt_dir: nowhere is not a folder", GET_BASE]),
        ({"ckpt_dir": PORTRAIT}, ["is a file; give the folder of the base", "--dit_path"]),
        ({"wav2vec_dir": None}, ["--wav2vec_dir: it is missing", GET_SPEECH]),
        ({"wav2vec_dir": "nowhere"}, ["--wav2vec_dir: nowhere does not exist", GET_SPEECH]),
        ({"wav2vec_dir": "."}, ["--wav2vec_dir: . holds neither model.safetensors nor pytorch_model.bin", GET_SPEECH]),
        ({"infinitetalk_dir": None}, ["--infinitetalk_dir is missing", GET_AUDIO]),
        ({"infinitetalk_dir": "nowhere"}, ["--infinitetalk_dir", "nowhere does not exist", GET_AUDIO]),
        ({"infinitetalk_dir": "."}, ["--infinitetalk_dir", "holds no infinitetalk.safetensors", GET_AUDIO]),
        ({"dit_path": "nowhere"}, ["--dit_path", "nowhere does not exist", GET_BASE]),
        ({"vae": "nowhere"}, ["--vae: nowhere does not exist"]),
        ({"tokenizer": "nowhere"}, ["--tokenizer", "nowhere does not exist"]),
    ],
)
def test_weights_that_are_not_there(refusal, flags, words):
    sentence = refusal(**flags)
    assert all(word in sentence for word in words), sentence


def test_a_folder_too_high_or_too_low(refusal, command, weights):
    above = weights.ckpt_dir.parent
    for flag, folder, meant in (
        ("ckpt_dir", above, weights.ckpt_dir),
        ("ckpt_dir", weights.ckpt_dir / "google", weights.ckpt_dir),
        ("wav2vec_dir", above, weights.wav2vec_dir),
    ):
        assert f"did you mean {meant}?" in refusal(**{flag: folder})
    assert command(infinitetalk_dir=above / "InfiniteTalk") == 0


@pytest.fixture
def base(weights, tmp_path_factory):
    """A copy of the base to be spoilt (by replacing files, since they are links)."""
    folder = tmp_path_factory.mktemp("spoilt") / "base"
    shutil.copytree(weights.ckpt_dir, folder, copy_function=os.link)
    return folder


def overwrite(path, data):
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", [VAE_FILE, T5_FILE, CLIP_FILE, SHARD])
def test_a_file_of_the_base_missing_or_damaged(refusal, base, name):
    path = base / name
    whole = path.read_bytes()
    for data, words in (
        (b"", "is empty (0 bytes)"),
        (b"This is not a file of weights.\n" * 40, "is neither a safetensors nor a PyTorch file"),
        (whole[: len(whole) // 2], "is a damaged or incomplete"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    ):
        overwrite(path, data)
        sentence = refusal(ckpt_dir=base)
        assert f"{path} {words}" in sentence
    path.unlink()
    sentence = refusal(ckpt_dir=base)
    assert name in sentence and GET_BASE in sentence


def test_a_base_without_its_tokenizer(refusal, base):
    shutil.rmtree(base / "google")
    sentence = refusal(ckpt_dir=base)
    assert "--tokenizer" in sentence and downloads.TOKENIZER in sentence


def test_a_base_in_the_layout_of_diffusers(refusal, tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    sentence = refusal(ckpt_dir=tmp_path)
    assert "layout of diffusers" in sentence and GET_BASE in sentence


@pytest.mark.parametrize("config", ["{", "[1]", '{"dim": 128, "num_heads": 0}', '{"dim": 128, "num_heads": 7}'])
def test_a_config_that_is_damaged(refusal, base, config):
    overwrite(base / "config.json", config.encode())
    assert str(base / "config.json") in refusal(ckpt_dir=base)


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle"])
def test_code_in_a_pickle_is_not_executed(refusal, tmp_path, kind, suffix):
    path, made = tmp_path / f"weights{suffix}", tmp_path / "executed"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": Payload(made)}))
    else:
        torch.save({"a": Payload(made)}, path, _use_new_zipfile_serialization=kind == "torch")
    for flag in ("vae", "text_encoder", "clip_vision", "wav2vec_dir", "dit_path", "infinitetalk_dir"):
        sentence = refusal(**{flag: path})
        assert f"{path} holds something other than plain tensors and was not executed" in sentence
    assert not made.exists()
    pickle.loads(pickle.dumps(Payload(made)))  # otherwise it would be
    assert made.is_dir()


def resized(name, *shape):
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


def without(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def instead(**others):
    return lambda tensors: tensors.clear() or tensors.update(others)


def scales_lost(layer):
    """All that is left of scaled fp8 is the marker and one matrix."""

    def spoil(tensors):
        tensors["scaled_fp8"] = torch.zeros(0).to(torch.float8_e4m3fn)
        tensors[f"{layer}.weight"] = tensors[f"{layer}.weight"].to(torch.float8_e4m3fn)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (instead(x=torch.zeros(1)), ["holds no audio layers (it holds x)", GET_AUDIO]),
        (without("blocks.1.norm_x.bias"), ["lacks blocks.1.norm_x.bias"]),
        (without("blocks.0.audio_cross_attn.kv_linear.weight"), ["lacks blocks.0.audio_cross_attn.kv_linear.weight"]),
        (resized("audio_proj.norm.weight", 3), ["audio_proj.norm.weight of shape [3], expected [64]"]),
        (resized("audio_proj.proj1.weight", 3), ["audio_proj.proj1.weight of shape [3], 2 axes expected"]),
        (scales_lost("audio_proj.proj2"), ["lacks the scales of audio_proj.proj2.weight"]),
    ],
    ids=["other", "part", "size missing", "shape", "axes", "scales"],
)
def test_infinitetalk_weights_that_do_not_fit(refusal, weights, tmp_path, spoil, words):
    tensors = load_file(weights.infinitetalk)
    spoil(tensors)
    save_file(tensors, tmp_path / "it.safetensors")
    sentence = refusal(infinitetalk_dir=tmp_path / "it.safetensors")
    assert "--infinitetalk_dir" in sentence and f"{tmp_path / 'it.safetensors'} " in sentence
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("flag", "spoil", "words"),
    [
        ("vae", instead(x=torch.zeros(1)), "is a file of another kind"),
        ("vae", without("conv2.bias", "decoder.head.2.weight"), "lacks conv2.bias, decoder.head.2.weight"),
        ("vae", resized("decoder.head.2.bias", 7), "decoder.head.2.bias of shape [7], expected [3]"),
        ("vae", resized("conv2.weight", 16), "conv2.weight of shape [16], 5 axes expected"),
        ("clip_vision", instead(x=torch.zeros(1)), "is a file of another kind"),
        ("clip_vision", resized("visual.patch_embedding.weight", 9), "of shape [9], 4 axes expected"),
        ("text_encoder", instead(x=torch.zeros(1)), "is a file of another kind"),
        ("text_encoder", resized("token_embedding.weight", 9), "shared.weight of shape [9], 2 axes expected"),
        ("text_encoder", scales_lost("blocks.0.attn.q"), "lacks the scales of blocks.0.attn.q.weight"),
    ],
)
def test_encoders_and_vae_that_do_not_fit(refusal, base, tmp_path, flag, spoil, words):
    name = {"vae": VAE_FILE, "clip_vision": CLIP_FILE, "text_encoder": T5_FILE}[flag]
    tensors = torch.load(base / name, weights_only=True)
    spoil(tensors)
    torch.save(tensors, tmp_path / "spoilt.pth")
    sentence = refusal(**{flag: tmp_path / "spoilt.pth"})
    assert f"--{flag}" in sentence and f"{tmp_path / 'spoilt.pth'} " in sentence and words in sentence


def test_models_in_each_others_place(refusal, weights):
    base = weights.ckpt_dir
    for flag, other in (
        ("vae", T5_FILE),
        ("clip_vision", VAE_FILE),
        ("text_encoder", CLIP_FILE),
        ("dit_path", VAE_FILE),
    ):
        sentence = refusal(**{flag: base / other})
        assert f"--{flag}" in sentence and other in sentence
    assert "holds no audio layers" in refusal(infinitetalk_dir=base / SHARD)
    assert "--wav2vec_dir" in refusal(wav2vec_dir=base / VAE_FILE)


@pytest.fixture(scope="module")
def plain():
    """Base and audio weights of the small model by name."""
    return {"base": transformer_weights(TINY), "audio": infinitetalk_weights(TINY)}


def layer_of_four_bits(base):
    tensors, _ = comfy_quant(base, "int8_tensorwise", keep=("blocks.0.",))
    return tensors | {"blocks.1.ffn.0.comfy_quant": torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)}


def lora(base):
    return {f"diffusion_model.blocks.0.ffn.0.lora_{part}.weight": torch.ones(4, 4) for part in ("up", "down")}


UNLUCKY = {
    "text to video": (
        lambda base: {name: tensor for name, tensor in base.items() if "img" not in name},
        f"(no image cross-attention). InfiniteTalk needs Wan2.1-I2V-14B; get it with: {GET_BASE}",
    ),
    "1.3B": (
        lambda base: transformer_weights(replace(TINY, dim=256, layers=3)),
        "is for 2 blocks of width 128, but the base {path} has 3 of width 256",
    ),
    "a scale missing": (
        lambda base: {name: t for name, t in old_scaled_fp8(base).items() if name != "blocks.1.ffn.0.scale_weight"},
        "lacks the scales of blocks.1.ffn.0.weight, without which its 8-bit numbers mean nothing",
    ),
    "scales missing": (
        lambda base: {name: t for name, t in old_scaled_fp8(base).items() if "scale_weight" not in name},
        "lacks the scales of blocks.0.cross_attn.k.weight and 31 more, without which",
    ),
    "unknown marker": (
        layer_of_four_bits,
        "keeps blocks.1.ffn.0 in a way that is not read here (its format is nvfp4)",
    ),
    "quanto without its map": (
        lambda base: quanto(base, "fp8")[0],
        "is a quanto file without its quantisation map, a JSON file that is published with it: none of model.json, ",
    ),
    "audio layers": (
        lambda base: infinitetalk_weights(TINY),
        "is no Wan transformer (it holds audio_proj.norm.bias, audio_proj.norm.weight, audio_proj.proj1.bias, ...)",
    ),
    "LoRA": (lora, "is no Wan transformer (it holds diffusion_model.blocks.0.ffn.0.lora_down.weight, "),
}


@pytest.mark.parametrize("kind", UNLUCKY)
def test_unlucky_files_of_the_base(refusal, plain, tmp_path, kind):
    make, words = UNLUCKY[kind]
    path = tmp_path / "model.safetensors"
    save_file(make(plain["base"]), path)
    sentence = refusal(dit_path=path)
    assert words.format(path=path) in sentence and str(path) in sentence
    assert ("--infinitetalk_dir" if kind == "1.3B" else "--dit_path") in sentence


def test_a_base_in_infinitetalks_place(refusal, plain, tmp_path):
    save_file(plain["base"], tmp_path / "model.safetensors")
    sentence = refusal(infinitetalk_dir=tmp_path / "model.safetensors")
    assert "--infinitetalk_dir" in sentence and "holds no audio layers" in sentence and GET_AUDIO in sentence


def test_meigens_files_without_their_maps(refusal, command, plain, weights, tmp_path):
    """Transformer and text encoder, as they lie in quant_models; with the maps they run."""
    transformer, t5 = tmp_path / "infinitetalk_single_fp8.safetensors", tmp_path / "t5_fp8.safetensors"
    shutil.copy(weights.ckpt_dir / "config.json", tmp_path)
    tensors, layers = quanto(plain["base"] | plain["audio"], "fp8")
    save_file(tensors, transformer)
    tensors, t5_layers = quanto(torch.load(weights.ckpt_dir / T5_FILE, weights_only=True), "fp8")
    save_file(tensors, t5)
    flags = {"quant": "fp8", "quant_dir": transformer}
    for path, name in ((t5, "t5_map_fp8.json"), (transformer, "infinitetalk_single_fp8.json")):
        sentence = refusal(**flags)
        assert f"{path} is a quanto file without its quantisation map" in sentence and name in sentence
        assert downloads.QUANTISED in sentence
        (tmp_path / name).write_text("{")
        assert f"the quantisation map {tmp_path / name} is not valid JSON" in refusal(**flags)
        (tmp_path / name).write_text(json.dumps(t5_layers if path == t5 else layers))
    assert command(**flags) == 0


@pytest.mark.parametrize("write", [old_scaled_fp8, lambda w: comfy_quant(w)[0], lambda w: quanto(w, "int8")[0]])
def test_a_quantised_file_that_broke_off(refusal, plain, tmp_path, write):
    path = tmp_path / "model.safetensors"
    save_file(write(plain["base"]), path)
    data = path.read_bytes()
    for length in (len(data) - 1, len(data) // 2, 100):
        path.write_bytes(data[:length])
        assert f"{path} is a damaged or incomplete safetensors file" in refusal(dit_path=path)
