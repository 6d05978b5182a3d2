"""Runs that end early: by kill, Ctrl-C, lack of memory or damage, and what resuming makes of them."""

import itertools
import os
import random
import signal
import sys
import threading
import time

import psutil
import pytest
import torch
from infinitetalk.pipeline import InputError, Job
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.job.output import state_path
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.run.progress import Step, Stopped, WindowDone
from infinitetalk.pipeline.run.resume import begin_state, load_state
from infinitetalk.pipeline.run.windows import to_uint8
from infinitetalk.tests.support.forks import FORKS
from infinitetalk.tests.support.places import PORTRAIT
from infinitetalk.tests.support.unfinished import (
    WINDOWS,
    after_start,
    after_window,
    assert_refused,
    frames,
    packets,
    resumed,
    run,
    write_speech,
)

pytestmark = [pytest.mark.usefixtures("own_cache", "nobody_listens"), pytest.mark.whole]


def command(argv, log):
    """What a shell would run, its messages in a file."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background
    with log.open("w", buffering=1) as stream:
        sys.stderr = stream
        sys.exit(main(argv))


def start(argv, output):
    log = output.with_name("log")
    log.write_text("")
    process = FORKS.Process(target=command, args=([*argv, "--resume", "--save_file", str(output)], log))
    process.start()
    return process, log


def wait_for(process, log, words):
    while words not in log.read_text():
        if not process.is_alive():
            raise AssertionError(f"the run ended with {process.exitcode} and said {log.read_text()}")
        time.sleep(0.01)


def finish(process, log):
    process.join()
    assert process.exitcode == 0, log.read_text()


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.long)])
def test_killed_and_resumed_gives_the_same_packets(argv, tmp_path, unbroken, times):
    moments = random.Random(1)
    output, partial = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    kills = 0
    while kills < times:
        process, log = start(argv, output)
        wait_for(process, log, "s of video,")  # the loading is over, the windows begin
        time.sleep(moments.uniform(0, 0.6))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster
            assert packets(output) == unbroken
            output.unlink()
            continue
        kills += 1
        assert process.exitcode == -signal.SIGKILL
        before = load_state(output)
        if before is not None and before.windows:  # the state is there before the first window is
            assert frames(partial) >= 17
    finish(*start(argv, output))
    assert packets(output) == unbroken
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "log"}


def test_interrupt_ends_with_130_and_says_how_to_go_on(argv, tmp_path):
    process, log = start(argv, tmp_path / "out.mp4")
    wait_for(process, log, f"window 1/{WINDOWS} done")
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    assert "--resume" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert frames(tmp_path / "out.partial.mp4") >= 17


def test_resumed_in_the_same_process(generator, job, stopped, unbroken):
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken
    assert [path.name for path in stopped.parent.iterdir()] == ["out.mp4"]


def test_what_was_written_after_the_state_is_made_again(generator, job, stopped, unbroken):
    with (stopped.parent / "out.partial.mp4").open("ab") as file:
        file.write(b"half a window")
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken


def test_killed_while_finishing(generator, job, stopped, unbroken, monkeypatch):
    """All windows are there, and the final name may be, too."""

    def killed(writer):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            generator.save(job, stopped, resumed(generator))
    stopped.write_bytes(b"")
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken


@pytest.mark.parametrize(
    "changes",
    [
        {"seam_frames": 4, "noise": "kijai", "sample_solver": "dpm++_sde"},
        {"seam_frames": 32, "noise": "upstream", "sample_start_step": 1},
    ],
    ids=str,
)
def test_what_goes_on_over_windows_goes_on_after_a_stop(generator, job, tmp_path, changes):
    """Seams from what was shown, also where they reach the frames that the next window is held to, as 32 do here; and
    one generator of noise for the whole run."""
    changed = generator.settings.replace(**changes)
    whole = packets(generator.save(job, tmp_path / "whole.mp4", changed))
    generator.progress = after_window(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, tmp_path / "out.mp4", changed)
    generator.progress = lambda event: None
    _, second = (window.frames for window in itertools.islice(generator.windows(job, changed), 2))
    assert torch.equal(to_uint8(load_state(tmp_path / "out.mp4").motion), second[-5:])
    generator.save(job, tmp_path / "out.mp4", changed.replace(resume=True))
    assert packets(tmp_path / "out.mp4") == whole


def test_memory_settings_may_change_between(argv, stopped, unbroken):
    assert run(argv, stopped, "--resume", "--blocks_to_swap", "1", "--offload_model", "true") == 0
    assert packets(stopped) == unbroken


def test_another_number_of_threads_is_refused_and_the_same_goes_on(argv, stopped, unbroken, capsys):
    try:
        assert run(argv, stopped, "--resume", "--threads", "2") == 2
    finally:
        torch.set_num_threads(1)
    assert_refused(capsys, "the number of threads (--threads) was '1' and is '2' now")
    assert run(argv, stopped, "--resume", "--threads", "1") == 0
    assert packets(stopped) == unbroken


def test_resume_without_an_earlier_run_just_runs(argv, tmp_path, unbroken):
    assert run(argv, tmp_path / "out", "--resume") == 0
    assert packets(tmp_path / "out.mp4") == unbroken


def test_the_whole_file_is_the_same_bytes(generator, job, stopped, tmp_path):
    generator.save(job, stopped, resumed(generator))
    again = generator.save(job, tmp_path / "again.mp4")
    assert stopped.read_bytes() == again.read_bytes()


def test_overwriting_destroys_nothing_before_the_first_new_window(generator, job, stopped, unbroken):
    generator.progress = after_start
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, stopped, generator.settings.replace(overwrite=True))
    generator.progress = lambda event: None
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken


def test_a_state_that_a_crash_left_beside_the_finished_video_goes(generator, job, stopped, capsys, argv):
    state = state_path(stopped).read_bytes()
    generator.save(job, stopped, resumed(generator))
    state_path(stopped).write_bytes(state)
    assert run(argv, stopped, "--resume") == 2
    assert_refused(capsys, "out.mp4 is finished")
    assert [path.name for path in stopped.parent.iterdir()] == ["out.mp4"]


def test_the_state_is_there_before_the_partial_file(generator, job, tmp_path, monkeypatch):
    begin, seen = VideoWriter.__init__, []

    def look(writer, path, *arguments):
        seen.append((state_path(path).exists(), (tmp_path / "out.partial.mp4").exists()))
        begin(writer, path, *arguments)

    monkeypatch.setattr(VideoWriter, "__init__", look)
    generator.progress = after_start
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, tmp_path / "out.mp4")
    assert seen == [(True, False)]
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_before_its_first_window_is_begun_anew(argv, tmp_path, unbroken):
    begin_state(tmp_path / "out.mp4", {})
    (tmp_path / "out.partial.mp4").write_bytes(b"")
    assert run(argv, tmp_path / "out") == 0
    assert packets(tmp_path / "out.mp4") == unbroken
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_how_to_go_on_is_said_with_name_and_seed(argv, tmp_path, capsys, monkeypatch):
    def no_space(path, state):
        raise InputError("no space")

    monkeypatch.setattr("infinitetalk.pipeline.run.recording.save_state", no_space)
    assert main([*argv, "--save_file", str(tmp_path / "out"), "--base_seed", "5"]) == 2
    assert f"--resume --save_file {tmp_path / 'out.mp4'} --base_seed 5" in capsys.readouterr().err


def test_out_of_memory_loses_nothing(generator, job, tmp_path, unbroken):
    generator.progress = after_window(1, MemoryError)
    with pytest.raises(MemoryError):
        generator.save(job, tmp_path / "out.mp4")
    generator.progress = lambda event: None
    assert frames(tmp_path / "out.partial.mp4") == 17
    assert packets(generator.save(job, tmp_path / "out.mp4", resumed(generator))) == unbroken


def test_a_window_is_written_while_the_next_is_made(generator, job, tmp_path, unbroken, monkeypatch):
    write, going_on, order = VideoWriter.write_window, threading.Event(), []

    def slow(writer, frames):
        if writer.written.frames == 0:
            assert going_on.wait(60)
        write(writer, frames)

    def listen(event):
        if isinstance(event, Step | WindowDone):
            order.append(event)
        if isinstance(event, Step) and event.window == 1:
            going_on.set()

    monkeypatch.setattr(VideoWriter, "write_window", slow)
    generator.progress = listen
    assert packets(generator.save(job, tmp_path / "out.mp4")) == unbroken
    done = next(number for number, event in enumerate(order) if isinstance(event, WindowDone))
    assert any(isinstance(event, Step) and event.window == 1 for event in order[:done])
    assert [event.index for event in order if isinstance(event, WindowDone)] == list(range(WINDOWS))


def test_a_disk_that_fills_while_the_next_window_is_made(generator, job, tmp_path, unbroken, monkeypatch):
    write, told = VideoWriter.write_window, []

    def full(writer, frames):
        if writer.written.frames == 29:
            raise InputError("the disk is full")
        write(writer, frames)

    generator.progress = told.append
    with monkeypatch.context() as patch, pytest.raises(InputError, match="the disk is full"):
        patch.setattr(VideoWriter, "write_window", full)
        generator.save(job, tmp_path / "out.mp4")
    assert [event.windows for event in told if isinstance(event, Stopped)] == [2]
    assert frames(tmp_path / "out.partial.mp4") == 29
    assert packets(generator.save(job, tmp_path / "out.mp4", resumed(generator))) == unbroken


def test_memory_does_not_grow_with_the_windows(generator, tmp_path):
    used = {}

    def listen(event):
        if isinstance(event, WindowDone):
            used[event.index + 1] = psutil.Process(os.getpid()).memory_info().rss

    generator.progress = listen
    speech = write_speech(tmp_path / "long.wav", 17 + 6 * 12)
    generator.save(Job(PORTRAIT, speech, "p"), tmp_path / "long.mp4")
    assert len(used) == 7
    assert used[7] <= 1.02 * used[3]
