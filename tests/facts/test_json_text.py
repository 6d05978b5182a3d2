"""The one reader of JSON."""

import pytest
from infinitetalk.pipeline.facts.json_text import read_json


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 101 + "]" * 101, '{"a":' * 500 + "1" + "}" * 500, "9" * 10_000])
def test_what_would_exhaust_its_users_is_refused(text):
    with pytest.raises(ValueError, match=r"nested too deeply|10000 digits"):
        read_json(text)


def test_everything_else_is_what_it_is():
    assert read_json('{"a": [1, -2.5, null, "\\u00e9", 18446744073709551615]}') == {
        "a": [1, -2.5, None, "\u00e9", 2**64 - 1]
    }
    assert read_json(b"[]") == []
    with pytest.raises(ValueError):
        read_json(b"\xff")
