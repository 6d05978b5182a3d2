"""The state of an unfinished run on its own: what is stored comes back, and what is damaged never passes for it."""

import json
import random
from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.job.output import state_in_writing_path, state_path, windows_done
from infinitetalk.pipeline.media.writer import Written
from infinitetalk.pipeline.planning.windows import window_plan
from infinitetalk.pipeline.run.resume import RunState, begin_state, check_state, load_state, remove_state, save_state
from safetensors.torch import load_file, save_file

MOTION = torch.linspace(-1, 1, 3 * 5 * 4 * 4).view(3, 5, 4, 4)
IDENTITY = {"size": "64x64", "scale": 1.5, "loras": ["a", "b"], "shift": None, "the prompt": "p\u00e9"}
STATE = RunState(IDENTITY, 2, Written(29, 1234, "ab" * 32), MOTION)
SPANS = window_plan(77, 17, 5)


@pytest.fixture
def path(tmp_path):
    save_state(tmp_path / "out.mp4", STATE)
    return tmp_path / "out.mp4"


def same(state):
    return (
        (state.identity, state.windows, state.written) == (STATE.identity, STATE.windows, STATE.written)
        and state.motion.dtype == torch.float32
        and torch.equal(state.motion.view(torch.int32), MOTION.view(torch.int32))
    )


def test_what_is_stored_comes_back(path):
    assert same(load_state(path))
    assert windows_done(path) == 2
    check_state(path, load_state(path), SPANS, (3, 5, 4, 4))
    assert [file.name for file in path.parent.iterdir()] == ["out.partial.state"]


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_a_flipped_bit_is_found_or_changes_nothing(path, count):
    whole, moments, found = state_path(path).read_bytes(), random.Random(5), 0
    for _ in range(count):
        torn, bit = bytearray(whole), moments.randrange(8 * len(whole))
        torn[bit // 8] ^= 1 << bit % 8
        state_path(path).write_bytes(torn)
        try:
            state = load_state(path)
        except InputError as error:
            assert "Start again with --overwrite" in str(error)
            found += 1
        else:
            assert same(state), bit
    assert found > 0.95 * count


@pytest.mark.parametrize(
    "changed",
    [
        replace(STATE, windows=True),
        replace(STATE, windows=-1),
        replace(STATE, identity=["p"]),
        replace(STATE, written=Written(29, 1234.0, "ab")),
        replace(STATE, motion=MOTION.double()),
        replace(STATE, motion=MOTION[0]),
        replace(STATE, motion=MOTION.log()),
    ],
)
def test_values_of_another_type_are_refused(path, changed):
    save_state(path, changed)
    with pytest.raises(InputError, match="is damaged"):
        load_state(path)


@pytest.mark.parametrize(
    "changed",
    [
        replace(STATE, windows=7),
        replace(STATE, windows=1),
        replace(STATE, written=Written(30, 1234, "ab")),
        replace(STATE, motion=MOTION[:, :4]),
        replace(STATE, motion=MOTION[..., :2]),
    ],
)
def test_a_state_that_does_not_go_with_the_plan_is_refused(path, changed):
    save_state(path, changed)
    with pytest.raises(InputError, match="is damaged"):
        check_state(path, load_state(path), SPANS, (3, 5, 4, 4))


def test_a_state_without_a_checksum_is_told(path):
    notes = {"identity": IDENTITY, "windows": 2, "written": {"frames": 29, "bytes": 1234, "digest": "ab"}}
    save_file(load_file(state_path(path)), state_path(path), {"state": json.dumps(notes)})
    with pytest.raises(InputError, match="--resume: .* by an earlier version, without a checksum"):
        load_state(path)


def test_a_run_that_has_not_begun_has_nothing_to_go_on_from(tmp_path):
    path = tmp_path / "new" / "out.mp4"
    begin_state(path, IDENTITY)
    assert windows_done(path) == 0 and load_state(path) is None
    remove_state(path)
    assert not state_path(path).exists()


def test_an_earlier_state_stays_until_it_is_replaced(path):
    begin_state(path, {})
    assert same(load_state(path))
    begin_state(path, {}, anew=True)
    assert windows_done(path) == 0


@pytest.mark.parametrize("place", [state_path, state_in_writing_path])
def test_a_file_of_somebody_else_is_not_replaced(tmp_path, place):
    path = tmp_path / "out.mp4"
    place(path).write_bytes(b"precious, and longer than a header")
    with pytest.raises(InputError, match="cannot write"):
        save_state(path, STATE)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"precious, and longer than a header"]


def test_what_was_torn_while_a_state_was_written_is_replaced(path):
    state_in_writing_path(path).write_bytes(state_path(path).read_bytes()[:40])
    save_state(path, replace(STATE, windows=3))
    assert windows_done(path) == 3 and not state_in_writing_path(path).exists()
