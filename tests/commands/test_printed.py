"""What a terminal obeys is escaped in all that is printed out of files; no path of theirs leads to another computer."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError, printable
from infinitetalk.pipeline.facts.shares import is_share
from infinitetalk.pipeline.graphs.foreign.sizes import file_size
from infinitetalk.pipeline.planning.notices import Notice
from infinitetalk.pipeline.run.progress import ConsoleProgress
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.commands.test_info import write
from infinitetalk.tests.support.places import QUEUED
from safetensors.numpy import save_file

EVIL = "a\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202eb"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202eb"


def printed(capsys, *argv, code=0):
    """Both streams, of which neither holds a character that a terminal obeys."""
    assert main([*map(str, argv)]) == code
    out, err = capsys.readouterr()
    assert not re.search(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out + err), (out, err)
    return out, err


def demo(**changes):
    prompt = json.loads((QUEUED / "infinitetalk_demo.json").read_text(encoding="utf-8"))
    (sampler,) = (entry for entry in prompt.values() if entry["class_type"] == "InfiniteTalkSampler")
    sampler["inputs"] |= changes
    return prompt


def graph(tmp_path, prompt):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    return path


def test_info_escapes_what_a_video_carries(tmp_path, capsys):
    job = {"reference": EVIL, "prompt": f"one\n{EVIL}", EVIL: "x"}
    path = write(tmp_path / "v.mp4", {"version": EVIL, "settings": {EVIL: EVIL, "lora_dir": [EVIL]}, "job": job})
    lines = printed(capsys, "info", path)[0].splitlines()
    assert lines[:4] == [f"version: {SHOWN}", f"reference: {SHOWN}", rf"prompt: one\n{SHOWN}", f"{SHOWN}: x"]
    assert set(lines[4:]) == {f"--{SHOWN} {SHOWN}", f"--lora_dir {SHOWN}"}


def test_inspect_escapes_names_of_tensors(tmp_path, capsys):
    save_file({EVIL: np.zeros(2, np.float32), f"{EVIL}\n2": np.zeros(2, np.float32)}, tmp_path / "w.safetensors")
    out, _ = printed(capsys, "inspect", tmp_path / "w.safetensors")
    assert SHOWN in out and len(out.splitlines()) == 2


def test_export_escapes_in_commands_notes_and_refusals(tmp_path, capsys):
    out, err = printed(capsys, "export", graph(tmp_path, demo(prompt=EVIL)), "--shell", "sh")
    assert r"$'a\033]0;owned\007\033[2J\015\302\23331m\342\200\256b'" in out and "bash" in err
    printed(capsys, "export", graph(tmp_path, demo(prompt=EVIL)), "--shell", "powershell")
    prompt = demo()
    prompt["9"] = {"class_type": EVIL, "inputs": {}, "_meta": {"title": f"{EVIL}\nerror: no"}}
    (sampler,) = (entry for entry in prompt.values() if entry["class_type"] == "InfiniteTalkSampler")
    sampler["inputs"]["image"] = ["9", 0]
    _, err = printed(capsys, "export", graph(tmp_path, prompt), code=2)
    assert SHOWN.replace(r"\r", " ") in err and "\nerror: no" not in err


def test_generate_escapes_in_errors(tmp_path, capsys):
    for entries in ({EVIL: 1}, {"prompt": "p", "cond_video": EVIL, "cond_audio": {"person1": "a.wav"}}):
        (tmp_path / "job.json").write_text(json.dumps(entries), encoding="utf-8")
        _, err = printed(capsys, "--input_json", tmp_path / "job.json", "--save_file", tmp_path / "v", code=2)
        assert err.startswith("error: ") and r"\x1b]0;owned\x07" in err


def test_notices_and_progress_are_escaped():
    stream = io.StringIO()
    ConsoleProgress(stream)(Notice(f"the file {EVIL} has a note", warning=True))
    assert SHOWN in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_an_error_of_several_lines_keeps_its_own():
    error = InputError(f"two things:\n- {EVIL}\n- x\nerror: no\n  and so on")
    assert str(error).splitlines() == ["two things:", f"- {SHOWN}", r"- x\nerror: no", "  and so on"]
    assert printable("a\tb\n", "\n") == "a\\tb\n"


SHARES = (r"\\evil\share\x.mp4", "//evil/share/x.mp4", r"/\evil\share\x.mp4")


@pytest.fixture
def asked(monkeypatch):
    """Every path that the system is asked for."""
    found = []

    def noting(call):
        def noted(path, *more, **others):
            found.append(str(path))
            return call(path, *more, **others)

        return noted

    for module, name in ((os, "stat"), (os, "lstat"), (io, "open"), (os, "open")):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    return found


@pytest.mark.parametrize("share", SHARES)
def test_no_share_is_asked_for(tmp_path, capsys, asked, share):
    assert is_share(share) and not is_share("/tmp/x") and not is_share(r"\x")
    settings = resolve(Settings()).as_json() | {"lora_dir": [share], "lora_scale": [1.0], "quant": "fp8"}
    settings |= {"quant_dir": share, "ckpt_dir": share, "infinitetalk_dir": share}
    job = {"reference": share, "speech": share, "prompt": "p", "negative_prompt": "n"}
    video = write(tmp_path / "v.mp4", {"version": "1", "settings": settings, "job": job})
    loaded = demo()
    loaded |= {"20": {"class_type": "VHS_LoadVideoPath", "inputs": {"video": share, "custom_width": 0}}}
    loaded |= {"21": {"class_type": "LoadImage", "inputs": {"image": share}}}
    loaded |= {"22": {"class_type": "ImageScale", "inputs": {"image": ["20", 0], "width": 64, "height": 0}}}
    (tmp_path / "models" / "loras").mkdir(parents=True)
    del asked[:]
    printed(capsys, "info", video)
    for target in ("ours", "upstream"):
        printed(capsys, "export", video, "--target", target)
    for origin in ("20", "21", "22"):
        (sampler,) = (entry for entry in loaded.values() if entry["class_type"] == "InfiniteTalkSampler")
        sampler["inputs"]["image"] = [origin, 0]
        path = graph(tmp_path, loaded)
        for more in ((), ("--comfyui", tmp_path)):
            main(["export", *map(str, (path, *more))])
    assert file_size(Path(share)) is None
    assert asked and not [path for path in asked if "evil" in path]
