"""A sample of spoilt files of each kind, always the same: ``make fuzz`` reads many more."""

import faulthandler
import os
import signal
from random import Random

import pytest
from infinitetalk.tests.fuzz.kinds import KINDS, Kind
from infinitetalk.tests.fuzz.mutations import spoilt_bytes, spoilt_json
from infinitetalk.tests.fuzz.running import Found, fuzz

EACH = range(60)


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_are_read_as_they_are_or_refused_in_a_sentence(tmp_path, kind):
    found = fuzz(kind, EACH, tmp_path)
    assert not found.failures, "\n".join(found.failures.values())
    assert found.read + found.refused == len(EACH) and found.refused + (kind == "cached embedding") > 0


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(tmp_path, kind):
    (tmp_path / "seeds").mkdir()
    count = len(KINDS[kind].seeds(tmp_path / "seeds"))
    assert fuzz(kind, range(-count, 0), tmp_path / "read") == Found(count, 0, {})


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: [0] * (1 << 30), "MemoryError"),
        (lambda: all(True for _ in iter(int, 1)), "more than 1 s of the processor"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "the process ended with -11"),
    ],
)
def test_what_goes_wrong_is_found(tmp_path, monkeypatch, act, words):
    """Too much memory, too much time, an exception and a crash; and the files after it are read all the same."""

    def read(path):
        if path.read_bytes() == b"3":
            faulthandler.disable()
            act()

    monkeypatch.setattr("infinitetalk.tests.fuzz.running.SECONDS", 1)
    numbers = iter(b"01234")
    kind = Kind(lambda folder: [b"0"], read, "a", lambda random, seeds: bytes([next(numbers)]))
    monkeypatch.setitem(KINDS, "job", kind)
    found = fuzz("job", range(4), tmp_path)
    assert list(found.failures) == [3] and words in found.failures[3]


def test_the_same_number_spoils_in_the_same_way():
    for spoil, seeds in ((spoilt_bytes, [bytes(500)]), (spoilt_json, [b'{"a": [1, {"b": null}]}'])):
        files = [spoil(Random(f"kind {number}"), seeds) for number in (1, 1, 2)]
        assert files[0] == files[1] != files[2]
