"""Two helpers on a CPU that make videos for a program that goes on: the bytes of one, and every end of it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from infinitetalk.pipeline import Generator, InputError, Job, Settings
from infinitetalk.pipeline.models.speech import encode_speech
from infinitetalk.pipeline.models.speech_encoder import load_speech_encoder
from infinitetalk.pipeline.run.helpers import SeveralCards
from infinitetalk.pipeline.run.progress import Decoded, Loading, Step, Working
from infinitetalk.tests.support.places import PORTRAIT

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.whole]
PATIENCE = 20  # seconds in which nothing of a run may be left
SMALL = {"device": "cpu", "size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 2}
SMALL |= {"sample_text_guide_scale": 1, "sample_audio_guide_scale": 2, "dit_fsdp": True}


@pytest.fixture(scope="module")
def settings(model_files):
    return Settings(**model_files, **SMALL)


@pytest.fixture(scope="module")
def job(speech, model_files):
    encoder = load_speech_encoder(model_files["wav2vec_dir"], "cpu")
    return Job(PORTRAIT, encode_speech(speech, encoder), "p")


@pytest.fixture(scope="module")
def several(settings):
    made = SeveralCards(settings.replace(gpus=2))
    yield made
    made.close()


def left(pids):
    """Those that are still there after a while."""
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], PATIENCE)
    return alive


def test_helpers_make_what_one_process_makes_and_load_once(several, settings, job, tmp_path):
    heard = []
    several.progress = heard.append
    alone = Generator(settings).save(job, tmp_path / "alone.mp4").read_bytes()
    assert several.save(job, tmp_path / "two.mp4").read_bytes() == alone
    assert any("loading the transformer" in event.what for event in heard if isinstance(event, Loading))
    assert {type(event) for event in heard} >= {Step, Decoded, Working}
    pids = several.pids
    heard.clear()
    other = settings.replace(base_seed=7)
    assert several.save(job, tmp_path / "other.mp4", other).read_bytes() != alone
    assert not [event for event in heard if isinstance(event, Loading) and event.what.startswith("loading")]
    assert several.pids == pids and several.identity(job) == Generator(settings).identity(job)


class Cancelled(Exception):
    pass


def at_the_first_step(do):
    def listen(event):
        if isinstance(event, Step):
            do()

    return listen


@pytest.mark.long
def test_a_cancel_or_a_killed_helper_ends_all_and_the_next_run_goes_on(several, settings, job, tmp_path):
    def cancel():
        raise Cancelled

    several.progress = at_the_first_step(cancel)
    with pytest.raises(Cancelled):
        several.save(job, tmp_path / "video.mp4")
    assert several.pids == []

    pids = []

    def kill():
        if not pids:
            pids.extend(several.pids)
            os.kill(pids[1], signal.SIGKILL)

    several.progress = at_the_first_step(kill)
    resumed = settings.replace(resume=True)
    with pytest.raises(InputError, match=r"The process of card 2 of 2 was ended from outside \(SIGKILL\)"):
        several.save(job, tmp_path / "video.mp4", resumed)
    assert several.pids == [] and left(pids) == []

    several.progress = lambda event: None
    whole = several.save(job, tmp_path / "video.mp4", resumed).read_bytes()
    assert whole == several.save(job, tmp_path / "again.mp4", settings).read_bytes()
    os.kill(several.pids[0], signal.SIGKILL)  # while nothing is made
    time.sleep(0.5)
    assert several.save(job, tmp_path / "third.mp4", settings).read_bytes() == whole


@pytest.mark.long
def test_what_helpers_refuse_is_told(settings, job, tmp_path, monkeypatch):
    """Files that are gone when helpers look at them, which the program itself has looked at before."""
    several = SeveralCards(settings.replace(gpus=2))
    monkeypatch.setattr(several, "_order", lambda *_: several_without_weights(several, settings, job, tmp_path))
    with pytest.raises(InputError, match="nowhere"):
        several.save(job, tmp_path / "video.mp4")
    assert several.pids == []


def several_without_weights(several, settings, job, folder):
    gone = settings.replace(ckpt_dir=folder / "nowhere")
    several._generator.settings = gone
    SeveralCards._order(several, job, folder / "video.mp4", gone, None)


PROGRAM = """
import pickle, sys
from pathlib import Path
from infinitetalk.pipeline import Job, Settings
from infinitetalk.pipeline.run.helpers import SeveralCards
from infinitetalk.pipeline.run.progress import Step
settings, image, sound, path = pickle.loads(bytes.fromhex(sys.argv[1]))
several = SeveralCards(settings)
def listen(event):
    if isinstance(event, Step):
        print(*several.pids, flush=True)
several.progress = listen
several.save(Job(image, sound, "p"), path)
"""


@pytest.mark.long
def test_helpers_end_with_the_program(settings, speech, tmp_path):
    import pickle

    given = pickle.dumps((settings.replace(gpus=2), PORTRAIT, speech, tmp_path / "video.mp4")).hex()
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, given], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in program.stdout.readline().split()]
    assert len(pids) == 2
    program.kill()
    program.wait()
    assert left(pids) == []
