"""Errors of others as people are shown them, and capabilities that are not there."""

import pytest
from infinitetalk.pipeline.errors import LONGEST, InputError, Unavailable, in_short
from infinitetalk.pipeline.graphs.places import FolderFiles


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no kernel image\nmore of it"), "no kernel image"),
        (ValueError("\n  It is wrong.\n"), "It is wrong"),
        (RuntimeError(), "RuntimeError()"),
        (RuntimeError("x" * 999), "x" * LONGEST),
    ],
)
def test_an_error_in_short_is_its_first_line(error, said):
    assert in_short(error) == said


def test_words_without_end_are_shortened():
    found = str(InputError("a\x1b[2J of \N{SNOWMAN} " + "y" * 5000 + " z"))
    assert found == "a\\x1b[2J of \N{SNOWMAN} " + "y" * LONGEST + "... z"


def test_what_is_not_there_says_why_within_a_sentence():
    assert f"with queries: {Unavailable('no card')}" == "with queries: no card"
    assert Unavailable("no card") == Unavailable("no card") != Unavailable("no Triton")


def test_an_error_of_many_lines_stays_a_sentence(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "extra_model_paths.yaml").write_text("comfyui: [a, b\n")
    with pytest.raises(InputError, match="extra_model_paths.yaml is not YAML") as refused:
        FolderFiles(tmp_path).model("vae", "a.safetensors")
    assert "\n" not in str(refused.value)
