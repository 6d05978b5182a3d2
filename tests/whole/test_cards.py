"""A video by two processes on a CPU: the same bytes as by one, and what becomes of it when a process is killed."""

import contextlib
import random
import signal
import threading
import time
from dataclasses import replace

import psutil
import pytest
from infinitetalk.tests.support import random_checkpoint
from infinitetalk.tests.support.random_checkpoint import TINY

pytestmark = pytest.mark.usefixtures("own_cache")
GUIDED = {"sample_audio_guide_scale": 2, "vae_tiles": 2}  # two passes and two tiles, one for each process
PATIENCE = 20  # seconds in which nothing of a run may be left


def process_of(rank):
    """The process of this number that the command has started, as soon as it computes; None if none does."""
    for process in psutil.Process().children(recursive=True):
        try:
            if process.environ().get("RANK") == rank and process.num_threads() > 3:
                return process
        except psutil.Error:
            continue
    return None


def kill_when_there(rank, killed):
    for _ in range(1200):
        if (process := process_of(rank)) is not None:
            process.send_signal(signal.SIGKILL)
            killed.append(time.monotonic())
            return
        time.sleep(0.1)


def test_two_processes_make_what_one_makes_and_one_goes_on_where_two_were_killed(command, tmp_path, capfd, monkeypatch):
    assert command(**GUIDED) == 0
    (video,) = (tmp_path / "out").glob("*.mp4")
    whole = video.read_bytes()
    video.unlink()
    monkeypatch.setenv("INFINITETALK_CACHE", str(tmp_path / "cache"))  # so that the prompt is encoded again
    assert command(**GUIDED, gpus=2, dit_fsdp=True, t5_fsdp=True) == 0
    assert video.read_bytes() == whole
    assert capfd.readouterr().out.splitlines() == [str(video)] * 2
    video.unlink()

    killed = []
    killer = threading.Thread(target=kill_when_there, args=("1", killed))
    killer.start()
    assert command(**GUIDED, gpus=2) == 2
    ended = time.monotonic()
    killer.join()
    assert ended - killed[0] < PATIENCE and process_of("0") is None
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: The process of card 2 of 2 was ended from outside (SIGKILL)")
    assert command(**GUIDED, resume=True) == 0
    assert video.read_bytes() == whole


@pytest.mark.long
def kill_later(seconds, rank, killed):
    """The process of this number when it has computed for so long, wherever it is then."""
    while not killed:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RANK") == rank and process.cpu_times().user >= seconds:
                    process.send_signal(signal.SIGKILL)
                    killed.append(time.monotonic())
        time.sleep(0.02)


@pytest.mark.long
def test_a_process_killed_at_ten_moments_costs_nothing_that_was_finished(command, tmp_path, capfd):
    """Whichever it is and wherever it is: all end, and one process goes on to the same bytes."""
    chance = random.Random(0)
    assert command(**GUIDED) == 0
    (video,) = (tmp_path / "out").glob("*.mp4")
    whole = video.read_bytes()
    for number in range(10):
        for file in video.parent.iterdir():
            file.unlink()
        killed = []
        # importing takes three seconds of a processor, and the whole run some five
        moment = chance.uniform(0.5, 6.0), str(number % 2), killed
        killer = threading.Thread(target=kill_later, args=moment, daemon=True)
        killer.start()
        code = command(**GUIDED, gpus=2, dit_fsdp=number % 3 == 0)
        ended = time.monotonic()
        if not killed:  # the run was sooner
            killed.append(ended)
            assert code == 0
        killer.join()
        assert ended - killed[0] < PATIENCE and process_of("0") is process_of("1") is None
        if code:
            assert "was ended from outside (SIGKILL)" in capfd.readouterr().err.splitlines()[-1]
            assert command(**GUIDED, resume=True) == 0
        assert video.read_bytes() == whole


def test_what_one_process_refuses_is_told_once(command, capfd, tmp_path):
    """A single head, which two cards cannot share."""
    one_head = random_checkpoint.write(tmp_path / "weights", replace(TINY, dim=64, heads=1))
    assert command(ckpt_dir=one_head.ckpt_dir, infinitetalk_dir=one_head.infinitetalk, gpus=2) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: 2 cards cannot share a model of 1 heads") and err.count("\n") == 1
