"""What is refused before PyTorch is there, and that every door refuses it with the same words."""

import json
import subprocess
import sys
from dataclasses import make_dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from infinitetalk.pipeline import Generator, InputError, Settings
from infinitetalk.pipeline.job.job import BUNDLED
from infinitetalk.tests.golden.speech import save_wav
from infinitetalk.tests.support.random_checkpoint import (
    CLIP_FILE,
    T5_FILE,
    TINY,
    VAE_FILE,
    speech_encoder_weights,
    transformer_weights,
)
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def bad(weights, tmp_path_factory):
    """Files with something wrong, by what it is."""
    folder = tmp_path_factory.mktemp("bad")
    base = transformer_weights(TINY)
    files = {
        "other": {"x": torch.zeros(1)},
        "text to video": {name: tensor for name, tensor in base.items() if "img" not in name},
        "base": base,
        "audio": load_file(weights.infinitetalk),
    }
    paths = {name: folder / f"{name.replace(' ', '_')}.safetensors" for name in files}
    for name, tensors in files.items():
        save_file(tensors, paths[name])
    paths["broken off"] = folder / "broken.safetensors"
    paths["broken off"].write_bytes(paths["audio"].read_bytes()[:-10])
    paths["gguf"] = folder / "broken.gguf"
    paths["gguf"].write_bytes(b"GGUF" + bytes(8))
    paths["empty"] = folder / "empty.safetensors"
    paths["empty"].touch()
    paths["text"] = folder / "text.wav"
    paths["text"].write_text("This is no sound and no picture.\n" * 20)
    return paths


PORTRAIT = BUNDLED / "portrait.png"
# flag -> what of ``bad`` is given for it (else the text itself), and words of the refusal
INSTANT = [
    ({"ckpt_dir": "nowhere"}, "--ckpt_dir: nowhere is not a folder"),
    ({"dit_path": "nowhere"}, "nowhere does not exist"),
    ({"dit_path": "text to video"}, "is a text-to-video model"),
    ({"dit_path": "other"}, "is no Wan transformer"),
    ({"dit_path": "gguf"}, "is a GGUF file of version 0"),
    ({"infinitetalk_dir": "base"}, "holds no audio layers"),
    ({"infinitetalk_dir": "broken off"}, "is a damaged or incomplete safetensors file"),
    ({"vae": "other"}, "is a file of another kind (it holds x)"),
    ({"vae": "nowhere"}, "--vae: nowhere does not exist"),
    ({"clip_vision": "audio"}, "is a file of another kind"),
    ({"text_encoder": "empty"}, "is empty (0 bytes)"),
    ({"tokenizer": "nowhere"}, "nowhere does not exist"),
    ({"lora_dir": "other"}, "is not a LoRA (it holds x)"),
    ({"lora_dir": "nowhere"}, "--lora_dir: nowhere does not exist, nor is it in"),
    ({"quant": "fp8", "quant_dir": "nowhere"}, "--quant_dir: nowhere does not exist"),
]
ELSEWHERE = [  # what is not the loader's
    ({"wav2vec_dir": "nowhere"}, "--wav2vec_dir: nowhere does not exist"),
    ({"wav2vec_dir": "other"}, "--wav2vec_dir"),
    ({"audio": "text"}, "cannot be decoded as sound"),
    ({"image": "text"}, "neither a picture nor a video"),
    ({"save_file": ""}, "--save_file: it is empty"),
    ({"sample_solver": "unipc"}, "the Python package diffusers is not installed"),
    ({"frame_num": 18}, "4n+1 expected"),
]


def spoilt(flags, bad):
    return {name: bad.get(value, value) for name, value in flags.items()}


def test_refusals_that_need_no_pytorch(model_files, speech, bad, surroundings, tmp_path):
    """All in one process in which PyTorch, transformers and diffusers cannot be imported."""
    good = {**model_files, "image": PORTRAIT, "audio": speech, "prompt": "p"}
    good |= {"device": "cpu", "save_file": tmp_path / "video"}
    calls = [[f"--{k}={v}" for k, v in {**good, **spoilt(flags, bad)}.items()] for flags, _ in [*INSTANT, *ELSEWHERE]]
    code = (
        "import json, sys\n"
        "for name in ('torch', 'transformers', 'diffusers', 'safetensors.torch'): sys.modules[name] = None\n"
        "from infinitetalk.pipeline.commands.main import main\n"
        "sys.stdout.write(json.dumps([main(argv) for argv in json.loads(sys.stdin.read())]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(calls), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [2] * len(calls)
    sentences = done.stderr.splitlines()
    for (flags, words), sentence in zip([*INSTANT, *ELSEWHERE], sentences, strict=True):
        assert words in sentence, (flags, sentence)


@pytest.fixture
def loader(monkeypatch):
    """The loader node as ComfyUI calls it, in a host that is only there by name."""
    io = SimpleNamespace(
        ComfyNode=type("ComfyNode", (), {"hidden": SimpleNamespace(dynprompt=None)}),
        Custom=lambda name: SimpleNamespace(),
        NodeOutput=lambda *values: values,
        Schema=make_dataclass("Schema", ["category"]),
    )
    latest, host, folders = ModuleType("comfy_api.latest"), ModuleType("comfy_api"), ModuleType("folder_paths")
    execution, context = ModuleType("comfy_execution"), ModuleType("comfy_execution.utils")
    validation = ModuleType("comfy_execution.validation")
    validation.validate_node_input = lambda *given: True
    latest.io = io
    folders.get_folder_paths = lambda folder: ["."]
    context.get_executing_context = lambda: None
    for module in (host, latest, folders, execution, context, validation):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in [name for name in sys.modules if name.startswith("infinitetalk.nodes")]:
        monkeypatch.delitem(sys.modules, name)
    device = ModuleType("infinitetalk.nodes.comfy.host")
    device.device = lambda: "cpu"
    monkeypatch.setitem(sys.modules, device.__name__, device)
    from infinitetalk.nodes.comfy.sockets import LoraChain
    from infinitetalk.nodes.model_loader import InfiniteTalkModelLoader

    def call(values):
        """``values`` are settings; files are given by their whole paths, and must be there to be on a list."""
        lora = None
        if "lora_dir" in values:
            lora = LoraChain(((values.pop("lora_dir"), 1.2),))
        folder = values.pop("ckpt_dir")
        monkeypatch.setattr(
            "infinitetalk.nodes.model_loader.setting_values", lambda given, files: {"ckpt_dir": folder, **given}
        )
        return InfiniteTalkModelLoader.execute(lora=lora, **values)

    yield call
    for name in [name for name in sys.modules if name.startswith("infinitetalk.nodes")]:
        del sys.modules[name]


@pytest.mark.parametrize(("flags", "words"), INSTANT, ids=range(len(INSTANT)))
def test_every_door_refuses_with_the_same_words(refusal, loader, model_files, bad, flags, words):
    given = spoilt(flags, bad)
    sentence = refusal(**given).removeprefix("error: ").strip()
    assert words in sentence
    assert refusal(**given, dry_run=True).removeprefix("error: ").strip() == sentence
    if "lora_dir" in given:
        given["lora_dir"] = (given["lora_dir"],)
    files = {**model_files, **given}
    with pytest.raises(InputError) as refused:
        Generator(Settings(**files, device="cpu"))
    assert str(refused.value) == sentence
    if "lora_dir" in files:
        (files["lora_dir"],) = Settings(lora_dir=files["lora_dir"]).lora_dir
    files.pop("wav2vec_dir")
    with pytest.raises(Exception) as refused:  # of the node, in ComfyUI's words
        loader(files)
    assert type(refused.value).__name__ == "InfiniteTalkError"
    cause = refused.value.__cause__
    assert isinstance(cause, InputError)
    if "nowhere" in flags.values():  # what is missing is told by its widget, with ComfyUI's folders
        (name,) = (name for name, value in flags.items() if value == "nowhere")
        assert str(cause).startswith(f"{name}: nowhere: ")
    else:
        assert str(cause) == sentence


LATER = [  # what needs PyTorch to be seen
    ({"vae": "vae in part"}, "lacks conv2.bias"),
    ({"clip_vision": "narrow clip"}, "of shape [9], 4 axes expected"),
    ({"wav2vec_dir": "speech in part"}, "lacks feature_projection.layer_norm.bias"),
    ({"infinitetalk_dir": "audio in part"}, "lacks blocks.1.norm_x.bias"),
    ({"text_encoder": "narrow text"}, "shared.weight of shape [9], 2 axes expected"),
    ({"device": "cuda:99"}, "--device: cuda:99 found, but PyTorch sees"),
    ({"audio": "nothing"}, "less than one video frame"),
]


@pytest.fixture(scope="module")
def worse(bad, weights, tmp_path_factory):
    """Files of the right kind that do not fit."""
    folder = tmp_path_factory.mktemp("worse")
    files = {
        "vae in part": torch.load(weights.ckpt_dir / VAE_FILE, weights_only=True),
        "narrow clip": torch.load(weights.ckpt_dir / CLIP_FILE, weights_only=True),
        "narrow text": torch.load(weights.ckpt_dir / T5_FILE, weights_only=True),
        "speech in part": speech_encoder_weights(TINY),
        "audio in part": load_file(weights.infinitetalk),
    }
    del files["vae in part"]["conv2.bias"]
    files["narrow clip"]["visual.patch_embedding.weight"] = torch.zeros(9)
    files["narrow text"]["token_embedding.weight"] = torch.zeros(9)
    projection = next(name for name in files["speech in part"] if name.endswith("feature_projection.layer_norm.bias"))
    del files["speech in part"][projection]
    del files["audio in part"]["blocks.1.norm_x.bias"]
    paths = {name: folder / f"{name.replace(' ', '_')}.pth" for name in files}
    for name, tensors in files.items():
        torch.save(tensors, paths[name])
    paths["nothing"] = folder / "nothing.wav"
    save_wav(paths["nothing"], np.ones((100, 1), np.int16), 16_000)
    return paths


@pytest.mark.parametrize(("flags", "words"), LATER, ids=range(len(LATER)))
def test_a_dry_run_refuses_all_that_a_run_refuses(refusal, worse, flags, words):
    sentence = refusal(**spoilt(flags, worse))
    assert words in sentence
    assert refusal(**spoilt(flags, worse), dry_run=True) == sentence
