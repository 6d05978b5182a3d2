"""--target upstream: flags that MeiGen's own script takes, its JSON, and comments about what it cannot express."""

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from infinitetalk.pipeline.export import upstream
from infinitetalk.pipeline.export.exported import Exported
from infinitetalk.pipeline.export.upstream import upstream_command
from infinitetalk.pipeline.settings.definition import Settings, names_with, setting_infos
from infinitetalk.pipeline.settings.presets import load_preset, preset_names, settings_with_preset
from infinitetalk.pipeline.settings.roles import Role
from infinitetalk.tests.support.places import DATA

THEIRS = json.loads((DATA / "export" / "upstream_flags.json").read_text())
WEIGHTS = {
    "ckpt_dir": "weights/Wan2.1-I2V-14B-480P",
    "infinitetalk_dir": "weights/InfiniteTalk/single/infinitetalk.safetensors",
    "wav2vec_dir": "weights/chinese-wav2vec2-base",
}
INPUTS = {
    "image": "girl.png",
    "audio": "said.mp3",
    "prompt": "一个人对着镜头激情唱歌: 'yes', \"no\" $5\n%",
    "save_file": "out.mp4",
}
needs_sh = pytest.mark.skipif(shutil.which("sh") is None, reason="no sh to run the commands with")


def their_parser():
    """Upstream's parser, from the list of its flags."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    types = {"int": int, "float": float, "bool": lambda text: {"true": True, "false": False}[text]}
    for name, flag in THEIRS["flags"].items():
        if flag.get("type") == "switch":
            parser.add_argument(f"--{name}", action="store_true")
            continue
        parser.add_argument(
            f"--{name}",
            type=types.get(flag.get("type"), str),
            default=flag.get("default"),
            choices=flag.get("choices"),
            nargs="+" if flag.get("several") else None,
        )
    return parser


def comments(text):
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


def run(text, folder):
    """What upstream's parser reads, and its JSON, when a real sh runs the command."""
    program = "\npython generate_infinitetalk.py "
    assert text.count(program) == 1
    text = text.replace(program, "\nprintf '%s\\0' begin ")
    done = subprocess.run(["sh", "-c", text], cwd=folder, capture_output=True, check=True)
    args = their_parser().parse_args(done.stdout.decode().split("\0")[1:-1])
    return args, json.loads((folder / args.input_json).read_text(encoding="utf-8"))


def test_the_flags_that_we_write_are_theirs():
    for name in names_with(Role.UPSTREAM):
        flag, default = THEIRS["flags"][name], setting_infos()[name].upstream_default
        theirs = False if flag.get("type") == "switch" else flag.get("default")
        ours = list(default) if isinstance(default, tuple) else str(default) if isinstance(default, Path) else default
        assert ours == theirs, name
    assert list(upstream.SIZES) == THEIRS["sizes"]


@needs_sh
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", preset_names())
def test_presets_as_commands_for_upstream(tmp_path, name, full):
    settings = settings_with_preset(name, **WEIGHTS, **INPUTS)
    made = upstream_command(Exported(settings), "sh", full)
    args, inputs = run(made.text, tmp_path)
    preset = load_preset(name).settings
    for setting, value in preset.items():
        if setting in THEIRS["flags"] and setting not in ("lora_dir", "quant_dir"):
            assert getattr(args, setting) == (list(value) if isinstance(value, tuple) else value), setting
    assert args.lora_dir == ([f"weights/{each}" for each in preset["lora_dir"]] if "lora_dir" in preset else None)
    assert args.quant_dir == (f"weights/{preset['quant_dir']}" if "quant_dir" in preset else None)
    assert args.ckpt_dir == WEIGHTS["ckpt_dir"] and args.mode == "streaming" and args.save_file == "out"
    assert args.max_frame_num == preset.get("max_frame_num", 1_000_000)  # which cuts at 1000 by default
    assert inputs == {"prompt": INPUTS["prompt"], "cond_video": "girl.png", "cond_audio": {"person1": "said.mp3"}}
    said = " ".join(comments(made.text))
    assert ("ignores --lora_dir where --quant" in said) == ("lora_dir" in preset)
    assert ("flowmatch_distill" in said) == (name == "02_comfyui_equivalent")


def said_of(**values):
    settings = Settings(**{**WEIGHTS, **INPUTS, **values})
    return upstream_command(Exported(settings), "sh").text


CASES = {
    "solver": ({"sample_solver": "unipc"}, "--sample_solver unipc is not there: it runs Euler", None),
    "size": ({"size": "480x832"}, "--size 480x832 is not there: infinitetalk-480", None),
    "large size": ({"size": "1280x720"}, "infinitetalk-720", "--size infinitetalk-720"),
    "negative prompt": ({"negative_prompt": "ugly"}, "negative prompt", None),
    "blocks": ({"blocks_to_swap": 30}, "--blocks_to_swap 30 is not there", "--num_persistent_param_in_dit 0"),
    "seed": ({"base_seed": 2**32 + 5}, "too large", "--base_seed 5"),
    "quant": ({"quant": "int8"}, "reads quantised files only", None),
    "side": (
        {"lora_dir": ["a"], "lora_scale": [1.0], "lora_mode": "side"},
        "--lora_mode side is not there",
        "--lora_dir",
    ),
    "file": ({"dit_path": "x.gguf"}, "--dit_path x.gguf is not there", None),
    "no folder": ({"ckpt_dir": None}, "takes the base from a folder", "--ckpt_dir weights/Wan2.1-I2V-14B-480P"),
    "vae": ({"vae": "v.safetensors"}, "--vae v.safetensors is not there", None),
    "wav2vec": ({"wav2vec_dir": "w.safetensors"}, "as a folder", None),
    "t5": ({"t5_cpu": True}, "other noise", "--t5_cpu"),
    "offload": ({"offload_model": False}, "other noise", "--offload_model false"),
    "clip": ({"mode": "clip"}, "other noise", "--max_frame_num 81"),
}


@needs_sh
@pytest.mark.parametrize("name", CASES)
def test_what_upstream_cannot_express_is_said(tmp_path, name):
    values, sentence, flag = CASES[name]
    text = said_of(**values)
    assert any(sentence in comment for comment in comments(text)), text
    assert all(comment.endswith((".", ")")) for comment in comments(text))
    args, _ = run(text, tmp_path)
    if flag is not None:
        assert flag in text.replace("\\\n    ", "")
    assert args.size in THEIRS["sizes"]
    assert args.quant is None or args.quant_dir is not None


def test_powershell_writes_the_same_json():
    text = upstream_command(Exported(Settings(**WEIGHTS, **INPUTS)), "powershell").text
    name, content = re.search("-LiteralPath '(.*?)' -Value '(.*)'$", text, re.MULTILINE).groups()
    assert content.isascii() and json.loads(content.replace("''", "'"))["prompt"] == INPUTS["prompt"]
    assert f"--input_json '{name}'" in text


def test_notes_of_the_reader_stay():
    assert upstream_command(Exported(Settings(**WEIGHTS, **INPUTS), ("A note.",)), "sh").notes == ("A note.",)


@needs_sh
def test_a_name_with_a_line_break_stays_in_its_comment(tmp_path):
    text = said_of(vae="a\ntouch harm #")
    run(text, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out_input.json"]
