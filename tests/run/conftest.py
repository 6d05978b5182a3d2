"""A run that stopped after two of three windows, and the same run unbroken."""

import shutil

import pytest
from infinitetalk.pipeline import Generator, Job, Settings
from infinitetalk.tests.support.places import PORTRAIT
from infinitetalk.tests.support.unfinished import FRAMES, SMALL, after_window, frames, packets, write_speech


@pytest.fixture(scope="module")
def three_windows(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", FRAMES)


@pytest.fixture(scope="module")
def argv(model_files, three_windows):
    flags = {**model_files, "image": PORTRAIT, "audio": three_windows, "prompt": "p", **SMALL}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def generator(model_files):
    return Generator(Settings(**model_files, **SMALL))


@pytest.fixture
def nobody_listens(generator):
    yield
    generator.progress = lambda event: None


@pytest.fixture(scope="module")
def job(three_windows):
    return Job(PORTRAIT, three_windows, "p")


@pytest.fixture(scope="module")
def unbroken(generator, job, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "out.mp4"
    return packets(generator.save(job, path))


@pytest.fixture(scope="module")
def left_by_a_stop(generator, job, tmp_path_factory):
    """The folder of a run that stopped after two windows."""
    folder = tmp_path_factory.mktemp("stopped")
    generator.progress = after_window(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, folder / "out.mp4")
    generator.progress = lambda event: None
    assert frames(folder / "out.partial.mp4") == 29
    return folder


@pytest.fixture
def stopped(left_by_a_stop, tmp_path):
    """An output whose run stopped after two windows."""
    for path in left_by_a_stop.iterdir():
        shutil.copy2(path, tmp_path)
    return tmp_path / "out.mp4"
