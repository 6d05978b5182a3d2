"""Commands that only tell something, and refusals, come without PyTorch, which takes seconds to import."""

import json
import subprocess
import sys

import infinitetalk.pipeline as engine
import pytest
import torch
from infinitetalk.pipeline.commands.table import COMMANDS
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.demo import ASSETS, FACE_READER, demo_checkpoint
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.support.places import SPEECH

# Python that runs commands one after another where PyTorch cannot be imported, though it can be found
WITHOUT_TORCH = """
import contextlib, importlib.abc, importlib.machinery, io, json, sys

class Refusing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "torch" else None

    def exec_module(self, module):
        raise RuntimeError("PyTorch was imported")

sys.meta_path.insert(0, Refusing())
from infinitetalk.pipeline.commands.main import main
ends = []
for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except RuntimeError as error:
            code = str(error)
    ends.append([argv, code, out.getvalue(), err.getvalue()])
print(json.dumps(ends))
"""
CHECKPOINT = [word for name, path in vars(demo_checkpoint()).items() for word in (f"--{name}", str(path))]
INPUTS = ["--image", str(ASSETS / "drawn_portrait.png"), "--audio", str(SPEECH), "--prompt", "Hello."]
GRAPHS = ("workflows/infinitetalk_demo.json", "tests/data/graphs/kijai_image_api.json")
GRAPHS += ("tests/data/graphs/native_two_windows_api.json",)


@pytest.fixture
def video(tmp_path):
    job = {"reference": "me.png", "speech": "a.wav", "prompt": "p", "negative_prompt": "n"}
    record = {"version": "9.9", "settings": resolve(Settings()).as_json(), "job": job}
    with VideoWriter(tmp_path / "video.mp4", VideoFormat(64, 64), metadata=record) as writer:
        writer.write_window(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
        return str(writer.finish())


def ends_of(commands, folder):
    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_what_only_tells_something_imports_no_pytorch(video, tmp_path):
    files = [*demo_checkpoint().ckpt_dir.glob("*.safetensors"), demo_checkpoint().infinitetalk_dir, FACE_READER]
    told = [
        *([name, "--help"] for name in COMMANDS),
        *(["--help"], [], ["help"], ["-V"], ["presets"], ["recommend", "--vram", "12"], ["doctor", "--quick"]),
        *(["info", video], ["export", video], ["inspect", *map(str, files)]),
        *(["export", str(ASSETS.parent / graph)] for graph in GRAPHS),
        ["export", str(ASSETS.parent / GRAPHS[0]), "--target", "upstream"],
    ]
    refused = [
        *(["zebra"], ["info", "nowhere.mp4"], ["bench", "--fast"], ["evaluate", "nowhere.mp4", "nowhere.wav"]),
        ["batch", "nowhere.jsonl", "--out", "out"],
        *(["export", "nowhere.json"], ["export", str(FACE_READER)], ["inspect", "nowhere.safetensors"]),
        ["generate"],
        [*CHECKPOINT, *INPUTS, "--frame_num", "80"],
        [*CHECKPOINT, *INPUTS, "--audio", "nowhere.wav"],
        [*CHECKPOINT, *INPUTS, "--save_file", video],
        ["--preset", "demo", "--ckpt_dir", "nowhere"],
        ["--preset", "demo", "--infinitetalk_dir", str(FACE_READER)],
        ["--preset", "demo", "--lora_dir", str(FACE_READER), "--dry_run"],
        ["convert", *CHECKPOINT, "--save_file", "one"],
        ["convert", *CHECKPOINT, "--quant", "int8", "--save_file", "one", "--infinitetalk_dir", str(FACE_READER)],
        ["convert", "--ckpt_dir", "nowhere", "--quant", "int8", "--save_file", "one"],
        ["convert", *CHECKPOINT, "--quant", "int8", "--save_file", str(FACE_READER)],
    ]
    ends = ends_of([*told, *refused], tmp_path)
    expected = [0] * len(told) + [2] * len(refused)
    wrong = [end for end, code in zip(ends, expected, strict=True) if end[1] != code]
    assert wrong == [], [(end[0][-3:], *end[1:]) for end in wrong]


def test_an_import_of_pytorch_would_be_seen(tmp_path):
    ((_, code, _, _),) = ends_of([["bench"]], tmp_path)
    assert code == "PyTorch was imported"


def test_every_lazy_name_of_the_engine_is_there():
    assert engine.__all__
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
    with pytest.raises(AttributeError, match="Zebra"):
        engine.Zebra  # noqa: B018
