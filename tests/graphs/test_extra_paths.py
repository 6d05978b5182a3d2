"""extra_model_paths.yaml as others write it: folders are found, and what is no list of folders gets a sentence."""

import re

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.places import FolderFiles

BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{last}, *{last}]\n" for last, name in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
)


def extra(tmp_path, text):
    (tmp_path / "extra_model_paths.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "models").mkdir(exist_ok=True)
    return FolderFiles(tmp_path)._extra


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "holds a list, sections with folders expected"),
        ("just text", "holds a str"),
        ("7", "holds a int"),
        ("me:\n  base_path: ~nobody_of_this_name/models\n  vae: vae\n", "whose user is not known here"),
        (BOMB, "is not YAML (it has aliases)"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_what_is_no_list_of_folders_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        extra(tmp_path, text)


def test_folders_are_found_and_other_values_passed_over(tmp_path):
    found = extra(tmp_path, "a:\n  base_path: more\n  vae: |\n    one\n    two\n  loras: [x]\nb: text\n")
    assert found == {"vae": [tmp_path / "more" / "one", tmp_path / "more" / "two"]}
    assert extra(tmp_path.joinpath(), "") == {}
