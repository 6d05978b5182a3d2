"""``infinitetalk presets`` and ``recommend``: the guide's table and its decision tree."""

import io
import shlex
import sys

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.commands.recommend import GOALS, asked, recommend
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.presets import load_preset, preset_names


def test_the_table_has_every_preset_in_both_languages(capsys):
    assert main(["presets"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in preset_names():
        preset = load_preset(name)
        (line,) = (line for line in out.splitlines() if line.startswith(name))
        assert preset.about.title_en in line and preset.about.title_zh in line
        assert f"{preset.settings['sample_steps']} {preset.settings['sample_solver']}" in line
        assert preset.about.measured_speedup is None or f"  {preset.about.measured_speedup:g}x  " in line
        assert f"{preset.about.peak_vram_gb} GB" in line and preset.settings["size"].split("-")[1] in line
    assert "the guide says for its RTX 4090" in out
    assert "lightx2v 0.8" in out and "FusionX 0.6" in out and "bf16" in out
    assert main(["presets", "01_ultra_fast"]) == 2


# the guide's decision tree, and what fits where the card is smaller than a preset's promise
TREE = [
    ("speed", None, "01_ultra_fast"),
    ("workflow", None, "02_comfyui_equivalent"),
    ("balance", None, "03_balanced"),
    ("quality", None, "04_high_quality"),
    ("720p", None, "06_720p_high_res"),
    (None, 24, "03_balanced"),
    (None, 16, "03_balanced"),
    (None, 15.9, "05_low_vram"),
    (None, 12, "05_low_vram"),
    ("speed", 10, "01_ultra_fast"),
    ("workflow", 12, "02_comfyui_equivalent"),
    ("workflow", 11, "05_low_vram"),
    ("balance", 12, "05_low_vram"),
    ("quality", 16, "05_low_vram"),
    ("quality", 24, "04_high_quality"),
    ("720p", 24, "06_720p_high_res"),
    ("720p", 16, "05_low_vram"),
    ("speed", 8, "05_low_vram"),
]


@pytest.mark.parametrize("goal, vram, name", TREE)
def test_the_decision_tree(capsys, goal, vram, name):
    found = recommend(goal, vram)
    assert found.preset.name == name
    flags = [*(["--goal", goal] if goal else []), *(["--vram", str(vram)] if vram else [])]
    assert main(["recommend", *flags]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith(f"{name}: ") and all(reason in out for reason in found.reasons)
    assert f"run_configs/{name}.sh" in out
    command = out[out.index("infinitetalk \\") :].split("\n\n")[0].replace("\\\n", " ")
    settings = parse(shlex.split(command)[1:])
    assert settings.preset == name and settings.save_file.name == load_preset(name).about.output_name
    if vram is not None and vram < load_preset(name).about.peak_vram_gb:
        assert "smaller --size" in out


def answers(*texts):
    left = list(texts)
    return lambda question: left.pop(0)


def test_it_asks_on_a_terminal(monkeypatch, capsys):
    assert asked(answers("4\n", "24GB\n")) == ("quality", 24)
    assert asked(answers("\n", "\n")) == ("balance", None)
    assert asked(answers("720p", "")) == ("720p", None)
    terminal = io.StringIO("1\n12\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert main(["recommend"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("01_ultra_fast") and all(goal["purpose_zh"] in err for goal in GOALS.values())


@pytest.mark.parametrize("argv", [[], ["--vram", "much"], ["--vram", "0"], ["--goal", "fun"], ["--fast"]])
def test_bad_questions_are_one_sentence(monkeypatch, capsys, argv):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["recommend", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("given", [("9\n", ""), ("x\n", ""), ("1\n", "lots\n")])
def test_bad_answers_are_said(given):
    from infinitetalk.pipeline.errors import InputError

    with pytest.raises(InputError, match="expected"):
        asked(answers(*given))
