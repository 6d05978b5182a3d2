"""--log_level and --log_file: how much the terminal shows, and a file that keeps all of it."""

import os

import pytest
from infinitetalk.pipeline.commands import log
from infinitetalk.pipeline.commands.console import progress_lines
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.run.progress import Loading, Notice


def test_the_file_keeps_what_the_terminal_does_not_show(tmp_path, capfd):
    kept = tmp_path / "all.log"
    assert main(["inspect", str(tmp_path / "none.gguf"), "--log_file", str(kept), "--log_level=error"]) == 2
    assert main(["--log_file", str(kept), "presets"]) == 0
    err = capfd.readouterr().err
    assert err.count("error: ") == 1 and "Traceback" not in err
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert any(" error " in line and "none.gguf" in line for line in lines)
    assert any(" debug " in line and "InputError" in line for line in lines)
    assert any(" info " in line and "01_ultra_fast" in line for line in lines)
    assert not {log.FILE, log.LEVEL} & set(os.environ)


@pytest.mark.parametrize(
    ("level", "seen"), [("error", []), ("warning", ["loud"]), ("info", ["loading", "quiet", "loud"])]
)
def test_levels_of_a_run(monkeypatch, capfd, level, seen):
    monkeypatch.setenv(log.LEVEL, level)
    progress = progress_lines()
    for event in (Loading("loading"), Notice("quiet"), Notice("loud", warning=True)):
        progress(event)
    err = capfd.readouterr().err
    assert [word for word in ("loading", "quiet", "loud") if word in err] == seen


def test_debug_tells_where_a_refusal_came_from(tmp_path, capfd):
    assert main(["inspect", str(tmp_path / "none.gguf"), "--log_level", "debug"]) == 2
    err = capfd.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "words", [["--log_level", "loud"], ["--log_level"], ["--log_file", "none/a.log"], ["--log_file"]]
)
def test_values_that_are_not_right(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["presets", *words]) == 2
    assert capfd.readouterr().err.startswith(f"error: {words[0]}: ")


def test_a_full_file_ends_nothing(monkeypatch, capfd):
    monkeypatch.setenv(log.FILE, "/dev/full")
    assert main(["presets"]) == 0 and "01_ultra_fast" in capfd.readouterr().out
