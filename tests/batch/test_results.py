"""results.jsonl: one line a job, whatever a crash leaves, and no file of others."""

import pytest
from infinitetalk.pipeline.batch.results import Result, Results, results_in
from infinitetalk.pipeline.errors import InputError

DONE = Result("a", "done", 1.5, 20, "out/a.mp4")
FAILED = Result("b", "failed", error="a sentence \ud800 of 你")


def written(path, *results):
    with Results(path) as file:
        for result in results:
            file.add(result)
    return path.read_bytes()


def test_lines_are_kept_and_replaced(tmp_path):
    path = tmp_path / "out" / "results.jsonl"
    before = written(path, DONE, FAILED)
    assert written(path, DONE, FAILED) == before and before.count(b"\n") == 2
    now = Result("b", "done", 2.0, 20, "out/b.mp4")
    with Results(path) as file:
        assert list(file.held) == ["a", "b"]
        file.add(now)
        file.compact()
    assert results_in(path) == [DONE, now]
    with Results(path) as file:
        file.compact(lambda result: result.id == "b")
    assert results_in(path) == [now] and [each.name for each in path.parent.iterdir()] == ["results.jsonl"]


def test_what_a_crash_tears_is_dropped(tmp_path):
    path = tmp_path / "results.jsonl"
    whole = written(path, DONE, FAILED)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        (tmp_path / "results.jsonl.tmp").write_bytes(whole[: length // 2])
        with Results(path) as file:
            file.compact()
            file.add(DONE)
            file.add(FAILED)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "text", ["mine\n", "mine", "{}\n", '{"id": 1, "state": "done"}\n', '{"id": "a", "x": 1}\n', "[]"]
)
def test_a_file_of_somebody_else_stays(tmp_path, text):
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="was not written here"):
        Results(path)
    path.unlink()
    written(path, DONE, FAILED)
    path.with_name("results.jsonl.tmp").write_text(text)
    with Results(path) as file, pytest.raises(InputError, match="was not written here"):
        file.compact(lambda result: False)
    assert path.with_name("results.jsonl.tmp").read_text() == text


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "results.jsonl"
    with Results(path) as file:
        file.add(DONE)
        file.compact(lambda result: False)
        with pytest.raises(InputError, match="another process"):
            Results(path)
    Results(path).__exit__(None, None, None)
