"""Unfinished videos are found, listed and removed by what lies beside them; files of others stay."""

from infinitetalk.nodes.comfy import videos
from infinitetalk.pipeline.job.output import partial_path, state_path
from infinitetalk.pipeline.media.file_lock import try_lock
from infinitetalk.pipeline.run.resume import begin_state


def begin(folder, name, identity):
    path = folder / f"{name}.mp4"
    folder.mkdir(exist_ok=True)
    begin_state(path, identity)
    partial_path(path).write_bytes(b"windows")
    return path


def test_they_are_found_by_the_run_and_cleared_by_name(tmp_path):
    first, second = begin(tmp_path / "a", "talk_00001_", {"seed": 1}), begin(tmp_path / "b[1]", "x", {"seed": 2})
    others = tmp_path / "a" / "mine.partial.state", tmp_path / "a" / "mine.partial.mp4"
    for file in others:
        file.write_bytes(b"not ours")
    assert videos.begun(tmp_path, videos.digest_of({"seed": 2})) == second
    assert videos.begun(tmp_path, videos.digest_of({"seed": 3})) is None
    listed = {each.path: each for each in videos.unfinished(tmp_path)}
    assert set(listed) == {first, second} and listed[first].windows == 0
    assert listed[first].line(tmp_path).startswith("a/talk_00001_.partial.mp4 (0.0 s, ")
    with partial_path(first).open("rb") as making:
        assert try_lock(making)
        gone, (kept,) = videos.clear(tmp_path, ["a/talk_00001_.partial.mp4", "a/mine.partial.mp4", "../x"])
    assert gone == 0 and kept == "a/talk_00001_.partial.mp4 stays: it is being made."
    assert videos.clear(tmp_path, ["a/talk_00001_.partial.mp4"]) == (1, [])
    assert not state_path(first).exists() and not partial_path(first).exists()
    assert all(file.exists() for file in others) and [each.path for each in videos.unfinished(tmp_path)] == [second]
