"""``infinitetalk info``: what a video carries is told, and what carries nothing is said."""

import shutil

import av
import numpy as np
import pytest
import torch
from infinitetalk import __version__
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.settings.definition import NEGATIVE_PROMPT, Settings, setting_types
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.golden.speech import save_wav
from infinitetalk.tests.support import random_checkpoint
from infinitetalk.tests.support.places import PORTRAIT


def told(capsys, *argv):
    assert main(["info", *map(str, argv)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def write(path, metadata):
    with VideoWriter(path, VideoFormat(64, 64), metadata=metadata) as writer:
        writer.write_window(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
        return writer.finish()


def record(**changes):
    job = {"reference": "me.png", "speech": "a.wav", "prompt": "p", "negative_prompt": NEGATIVE_PROMPT}
    return {"version": "9.9", "settings": resolve(Settings()).as_json() | changes, "job": job}


@pytest.mark.whole
def test_a_video_that_the_command_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INFINITETALK_CACHE", str(tmp_path / "cache"))
    weights = random_checkpoint.write(tmp_path, random_checkpoint.TINY)
    save_wav(tmp_path / "a.wav", np.full((8000, 1), 3000, np.int16), 16_000)
    files = {
        "ckpt_dir": weights.ckpt_dir,
        "infinitetalk_dir": weights.infinitetalk,
        "wav2vec_dir": weights.wav2vec_dir,
        "image": PORTRAIT,
        "audio": tmp_path / "a.wav",
    }
    small = {"size": "64x64", "frame_num": 17, "sample_steps": 1, "sample_text_guide_scale": 1.0, "device": "cpu"}
    flags = {**files, **small, "prompt": "A cat, \N{SNOWMAN}.", "save_file": tmp_path / "video", "quiet": True}
    assert main([f"--{name}={value}" for name, value in flags.items()]) == 0
    capsys.readouterr()
    lines = told(capsys, tmp_path / "video.mp4")
    assert lines[:3] == [f"version: {__version__}", f"reference: {PORTRAIT}", f"speech: {tmp_path / 'a.wav'}"]
    assert lines[3].startswith("prompt: A cat, ")
    weights_lines = {f"--{name} {files[name]}" for name in ("ckpt_dir", "infinitetalk_dir", "wav2vec_dir")}
    used = {**small, "threads": 1}  # the machine's, and with it the last bits
    assert set(lines[4:]) == weights_lines | {f"--{name} {value}" for name, value in used.items()}


def test_only_differences_are_told_or_everything(tmp_path, capsys):
    path = write(tmp_path / "a b.mp4", record(base_seed=7, t5_cpu=True, lora_dir=["a", "b"], quiet=True))
    lines = told(capsys, path)
    assert lines == [
        *("version: 9.9", "reference: me.png", "speech: a.wav", "prompt: p"),
        *("--lora_dir a b", "--base_seed 7", "--t5_cpu true"),
    ]
    full = told(capsys, "--full", path)
    assert full[:4] == lines[:4] and full[4] == f"negative_prompt: {NEGATIVE_PROMPT}"
    assert [line.split()[0].removeprefix("--") for line in full[5:]] == list(setting_types())


def test_a_video_of_another_version_is_told_as_it_is(tmp_path, capsys):
    path = write(tmp_path / "a.mp4", {"version": "0.0", "settings": {"warp": [1, None]}, "job": {"mood": "gay"}})
    assert told(capsys, path) == ["version: 0.0", "mood: gay", "--warp 1 null"]


def plain_video(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist; give the name of a video"),
        (lambda path: path.mkdir(), "is a folder; give the name of a video"),
        (lambda path: path.write_bytes(b""), "is not a video that can be read"),
        (lambda path: path.write_text("This is not a video."), "is not a video that can be read"),
        (lambda path: shutil.copy(PORTRAIT, path), "carries no settings"),
        (plain_video, "carries no settings: it was not made here"),
        (lambda path: write(path, {"version": "1"}), "are damaged"),
        (lambda path: write(path, [1]), "are damaged"),
    ],
    ids=["missing", "folder", "empty", "text", "picture", "other", "part", "list"],
)
def test_what_carries_nothing_is_said(tmp_path, capsys, make, words):
    path = tmp_path / "a.mp4"
    make(path)
    assert main(["info", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"error: info: {path}" in err.replace("the settings in ", "")
    assert words in err


@pytest.mark.parametrize("argv", [[], ["a.mp4", "b.mp4"], ["--json", "a.mp4"], ["--full"]])
def test_how_to_ask_is_said(capsys, argv):
    assert main(["info", *argv]) == 2
    assert "usage: infinitetalk info VIDEO [--full]" in capsys.readouterr().err
