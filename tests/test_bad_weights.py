"""Weights that are missing, damaged, of another kind or in another place: one sentence each, and nothing is executed.

Each case is a whole call of the command. The sentence names the flag and the file, and says how to get what is missing.
"""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from infinitetalk.tools import random_checkpoint
from infinitetalk.tools.random_checkpoint import CLIP_FILE, T5_FILE, VAE_FILE
from safetensors.torch import load_file, save_file

PORTRAIT = Path(random_checkpoint.__file__).parent.parent / "assets" / "portrait.png"
SHARD = "diffusion_pytorch_model-00003-of-00007.safetensors"
GET_BASE = "hf download Wan-AI/Wan2.1-I2V-14B-480P --local-dir weights/Wan2.1-I2V-14B-480P"
GET_SPEECH = "hf download TencentGameMate/chinese-wav2vec2-base --local-dir weights/chinese-wav2vec2-base"
GET_AUDIO = 'hf download MeiGen-AI/InfiniteTalk --include "single/*" --local-dir weights/InfiniteTalk'


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


def replace(path, data):
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
        replace(path, data)
        sentence = refusal(ckpt_dir=base)
        assert f"{path} {words}" in sentence
    path.unlink()
    sentence = refusal(ckpt_dir=base)
    assert name in sentence and GET_BASE in sentence


def test_a_base_without_its_tokenizer(refusal, base):
    shutil.rmtree(base / "google")
    sentence = refusal(ckpt_dir=base)
    assert "--tokenizer" in sentence and '--include "google/*"' in sentence


def test_a_base_in_the_layout_of_diffusers(refusal, tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    sentence = refusal(ckpt_dir=tmp_path)
    assert "layout of diffusers" in sentence and GET_BASE in sentence


@pytest.mark.parametrize("config", ["{", "[1]", '{"dim": 128, "num_heads": 0}', '{"dim": 128, "num_heads": 7}'])
def test_a_config_that_is_damaged(refusal, base, config):
    replace(base / "config.json", config.encode())
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


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (instead(x=torch.zeros(1)), ["holds no audio layers (it holds x)", GET_AUDIO]),
        (without("blocks.1.norm_x.bias"), ["lacks blocks.1.norm_x.bias"]),
        (without("blocks.0.audio_cross_attn.kv_linear.weight"), ["lacks blocks.0.audio_cross_attn.kv_linear.weight"]),
        (resized("audio_proj.norm.weight", 3), ["audio_proj.norm.weight of shape [3], expected [64]"]),
        (resized("audio_proj.proj1.weight", 3), ["audio_proj.proj1.weight of shape [3], 2 axes expected"]),
        (resized("blocks.0.norm_x.scaled_fp8", 1), ["is a quantised file (blocks.0.norm_x.scaled_fp8)"]),
    ],
    ids=["other", "part", "size missing", "shape", "axes", "fp8"],
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
        ("text_encoder", resized("blocks.0.attn.q.scale_weight", 1), "is quantised (scaled fp8"),
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
