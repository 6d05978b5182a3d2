"""How a batch is shown: bars on a terminal, else a line for each job, and nothing where that is asked for."""

import io
import sys
from pathlib import Path

import pytest
from infinitetalk.pipeline.batch.results import Result
from infinitetalk.pipeline.batch.run import Counts
from infinitetalk.pipeline.batch.tasks import Task
from infinitetalk.pipeline.batch.worker import Advanced, Outcome, Remark
from infinitetalk.pipeline.commands.board import Board
from infinitetalk.pipeline.job.job import Job
from infinitetalk.pipeline.settings.definition import Settings


class Stream(io.StringIO):
    encoding = "utf-8"


class Terminal(Stream):
    def isatty(self):
        return True


def tasks():
    settings = [Settings(save_file=Path(f"{id}.mp4")) for id in "ab"]
    return [Task(s.save_file.stem, "", s, Job(Path("p"), Path("s")), windows=2, work=3.0) for s in settings]


def shown(monkeypatch, stream, quiet=False, shard=(0, 1)):
    """What is written of a batch of two videos, of which one fails, and a job that was refused."""
    monkeypatch.setattr(sys, "stderr", stream)
    a, b = tasks()
    with Board(quiet, shard, clock=lambda: 0.0) as board:
        board.ended("c", Outcome(Result("c", "failed", error="no picture.")))
        board.planned([a, b], Counts(failed=1), 3)
        board.begun(0, a)
        board.told(0, Advanced("a", 2, 1.0))
        board.told(0, Remark("a", "the speech is silent."))
        board.lost("b", "its worker ended with exit code 1", True)
        board.ended("a", Outcome(Result("a", "done", 2.0, 81, "a.mp4")))
        board.ended("b", Outcome(Result("b", "failed", 1.0, error="no sound.\x1b[2J")))
        board.done(Counts(1, 0, 2))
    return stream.getvalue()


LINES = [
    "c failed: no picture.",
    "3 jobs: 2 to make, of 4 windows, 0 there already, 1 refused",
    "warning: a: the speech is silent.",
    "warning: b: its worker ended with exit code 1; another one takes its place",
    "2/3 a done, 81 frames in 2.0 s",
    r"3/3 b failed: no sound.\x1b[2J",
    "1 made, 0 there already, 2 failed, in 0:00",
]


def test_a_line_for_each_job(monkeypatch):
    assert shown(monkeypatch, Stream()).splitlines() == LINES


def test_the_part_is_told(monkeypatch):
    assert "part 2 of 8 of the jobs\n" in shown(monkeypatch, Stream(), shard=(1, 8))


def test_bars_on_a_terminal_say_jobs_windows_and_time_left_beside_the_same_lines(monkeypatch):
    text = shown(monkeypatch, Terminal())
    assert all(line in text for line in LINES)
    assert "3/3 jobs, 2 failed, 4/4 windows" in text and "100%" in text and "a: 1.0 of 2 windows" in text


@pytest.mark.parametrize("stream", [Stream(), Terminal()])
def test_quiet_says_nothing(monkeypatch, stream):
    assert shown(monkeypatch, stream, quiet=True) == ""


def test_chinese(monkeypatch):
    monkeypatch.setenv("INFINITETALK_LANG", "zh")
    lines = shown(monkeypatch, Stream()).splitlines()
    assert lines[1] == "3 个任务：2 个待生成，共 4 个窗口；0 个已有，1 个被拒绝"
    assert lines[4] == "2/3 a 完成，81 帧，用时 2.0 秒" and lines[6] == "生成 1 个，已有 0 个，失败 2 个，用时 0:00"
