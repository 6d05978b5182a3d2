"""The shipped scripts: as the exporter writes them, and good for a run on checkpoints laid out like ``weights/``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.presets import load_preset, preset_names
from infinitetalk.scripts import write_run_configs
from infinitetalk.tests.support import lora_files, random_checkpoint
from infinitetalk.tests.support.places import ROOT
from infinitetalk.tests.support.shell import called
from safetensors.torch import save_file

SIZES = random_checkpoint.TINY
SCRIPTS = [f"{name}.sh" for name in preset_names()]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to run the scripts with")


def test_scripts_are_what_the_exporter_writes():
    made = write_run_configs.files()
    assert set(made) == {f"run_configs/{name}" for name in (*SCRIPTS, "menu.sh")}
    stale = [name for name, content in made.items() if (ROOT / name).read_text(encoding="utf-8") != content]
    assert stale == [], "run python -m infinitetalk.scripts.write_run_configs"
    assert {path.name for path in (ROOT / "run_configs").iterdir()} == {Path(name).name for name in made}
    assert all(os.access(ROOT / name, os.X_OK) for name in made)


@pytest.mark.parametrize("name", [*SCRIPTS, "menu.sh"])
def test_bash_accepts_them(name):
    done = subprocess.run(["bash", "-n", ROOT / "run_configs" / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone in a folder with a space, with small files where the guide puts the real ones."""
    clone = tmp_path_factory.mktemp("a clone")
    for name in ("generate_infinitetalk.py", "assets", "pipeline", "presets", "__init__.py"):
        (clone / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "run_configs", clone / "run_configs")
    weights = random_checkpoint.write(clone / "weights", SIZES)
    for preset in map(load_preset, preset_names()):
        for lora in preset.settings.get("lora_dir", ()):
            made = lora_files.fusionx(SIZES) if "FusionX" in lora else lora_files.lightx2v_i2v(SIZES)
            save_file(made, clone / "weights" / lora)
    quantised = clone / "weights" / load_preset("01_ultra_fast").settings["quant_dir"]
    flags = {"quant": "fp8", "ckpt_dir": weights.ckpt_dir, "infinitetalk_dir": weights.infinitetalk}
    assert main(["convert", *(f"--{k}={v}" for k, v in {**flags, "save_file": quantised, "quiet": True}.items())]) == 0
    return clone


def run(clone, name, *flags, cwd, answers=None, python=sys.executable):
    return subprocess.run(
        ["bash", clone / "run_configs" / name, *flags],
        cwd=cwd,
        env={**os.environ, "PYTHON": str(python)},
        input=answers,
        stdin=subprocess.DEVNULL if answers is None else None,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_passes_a_dry_run_from_any_folder(clone, tmp_path, recorder, monkeypatch, capsys, name):
    """The script by a shell, what it calls in this process."""
    argv = called(run(clone, name, "--dry_run", "--device", "cpu", cwd=tmp_path, python=recorder))
    monkeypatch.chdir(clone)
    assert argv[0] == "generate_infinitetalk.py" and main(argv[1:]) == 0
    assert "window" in capsys.readouterr().out
    assert list(clone.glob("*.mp4")) == []


def test_flags_of_the_caller_win(clone, tmp_path):
    """By Python itself, in the clone."""
    done = run(clone, "01_ultra_fast.sh", "--dry_run", "--prompt", "a 'b' $c", "--size", "17", cwd=tmp_path)
    assert done.returncode == 2 and "--size" in done.stderr


@pytest.mark.parametrize("name", preset_names())
def test_a_script_spells_out_its_preset(name):
    """Every flag of the preset is in the script, with its value; paths begin with the weights' folder."""
    words = (ROOT / "run_configs" / f"{name}.sh").read_text(encoding="utf-8").split("generate_infinitetalk.py", 2)[-1]
    argv = [word for word in words.replace("\\\n", " ").split() if word != '"$@"']
    found = parse(argv)
    for setting, value in load_preset(name).settings.items():
        assert any(word.split("=")[0] == f"--{setting}" for word in argv), setting
        if setting == "quant_dir":
            assert found.quant_dir == Path("weights", value)
        elif setting == "lora_dir":
            assert found.lora_dir == tuple(Path("weights", each) for each in value)
        else:
            expected = tuple(value) if isinstance(value, list) else value
            assert getattr(found, setting) == expected
    assert found.preset is None and found.input_json == Path("examples/single_example_image.json")


def test_menu_runs_what_was_chosen(clone, tmp_path, recorder):
    answers = '7\n4\nme.png\n/there/a b.wav\nShe says "it\'s $5" \\ 你好\nmy video\n'
    done = run(clone, "menu.sh", "--dry_run", cwd=tmp_path, answers=answers, python=recorder)
    assert "7 is not one of them" in done.stdout
    argv = called(done)
    given = ["--save_file", f"{tmp_path}/my video", '--prompt=She says "it\'s $5" \\ 你好']
    given += ["--audio", "/there/a b.wav", "--image", f"{tmp_path}/me.png", "--dry_run"]
    assert argv[0] == "generate_infinitetalk.py" and argv[-len(given) :] == given
    assert parse(argv[1:]).sample_steps == 40 and parse(argv[1:]).prompt.endswith("你好")


def test_menu_takes_the_example_where_nothing_is_answered(clone, tmp_path, recorder):
    argv = called(run(clone, "menu.sh", cwd=tmp_path, answers="02_comfyui_equivalent\n\n\n", python=recorder))
    settings = parse(argv[1:])
    assert settings.input_json == Path("examples/single_example_image.json") and settings.image is None
    assert settings.save_file == Path("infinitetalk_fast")


def test_menu_ends_with_its_input(clone, tmp_path):
    for answers in ("", "q\n"):
        done = run(clone, "menu.sh", cwd=tmp_path, answers=answers)
        assert done.returncode == 0 and done.stderr == ""
