"""One thread per test process: the tests' models are too small to share, and the results stay the same everywhere.

And for the tests of bad input: the command, called on a small random checkpoint with one thing spoilt.
"""

import os
import sys
from functools import partial

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.tests.support.interpreter import interpreter
from infinitetalk.tests.support.places import PORTRAIT

SMALL = {"device": "cpu", "size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 1}
SMALL |= {"sample_text_guide_scale": 1, "sample_audio_guide_scale": 1}

os.environ["INFINITETALK_LANG"] = "en"  # sentences are compared, whatever the machine speaks


def pytest_xdist_make_scheduler(config, log):
    """A file's tests share what it makes, so one process runs them; those in a ComfyUI share its server."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):  # private, but what pytest-xdist tells to replace
            file = nodeid.partition("::")[0]
            return file.rpartition("/")[0] if "/comfy/" in file else file

    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """Files that take longest come first, so that no process is left alone with one at the end."""
    import torch  # not where tests are only handed out

    torch.set_num_threads(1)
    for item in items:
        if item.path.parent.name == "whole":
            item.add_marker(pytest.mark.whole)
    long = {item.path for item in items if item.get_closest_marker("whole")}
    items.sort(key=lambda item: (item.path.parent.name != "comfy", item.path not in long))


@pytest.fixture(scope="session")
def recorder(tmp_path_factory):
    """Stands for Python, and prints the words that it was called with."""
    path = tmp_path_factory.mktemp("recorder") / "python"
    path.write_text(f"#!{sys.executable}\nimport json, sys\nprint('called', json.dumps(sys.argv[1:]))\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    from infinitetalk.tests.support import random_checkpoint

    return random_checkpoint.write(tmp_path_factory.mktemp("weights"), random_checkpoint.TINY)


@pytest.fixture(scope="session")
def triton_interpreter(tmp_path_factory):
    pytest.importorskip("triton", reason="needs the package triton (comes with PyTorch's CUDA build)")
    with interpreter(tmp_path_factory.mktemp("interpreter") / "errors") as process:
        yield process


@pytest.fixture
def interpreted(request, triton_interpreter):
    """Runs Python code that may import the tests beside the one that asks, with Triton's interpreter as the card."""
    return partial(triton_interpreter.run, folder=request.path.parent)


@pytest.fixture
def text_weights():
    """Gives every weight that a block of a text encoder has while it runs, by name."""

    def used(encoder):
        seen = {}
        for index, block in enumerate(encoder.model.encoder.block):

            def look(module, *_, index=index):
                seen.update({f"{index}.{name}": weight.clone() for name, weight in module.named_parameters()})

            block.register_forward_pre_hook(look)
        encoder.encode_ids([5, 1])
        return seen

    return used


@pytest.fixture(scope="session")
def model_files(weights):
    """The settings that name the small checkpoint's models."""
    return {
        "ckpt_dir": weights.ckpt_dir,
        "infinitetalk_dir": weights.infinitetalk,
        "wav2vec_dir": weights.wav2vec_dir,
    }


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A text cache that starts empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFINITETALK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def surroundings(tmp_path, tmp_path_factory, monkeypatch):
    """An empty working folder, and a cache that has not seen the prompt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFINITETALK_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """0.8 seconds of a swelling tone."""
    import numpy as np
    from infinitetalk.tests.golden.speech import save_wav

    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    times = np.arange(12_800)
    samples = np.sin(times * 0.05) * np.sin(times * 0.0009) * 10_000
    save_wav(path, samples[:, None].astype(np.int16), 16_000)
    return path


@pytest.fixture
def command(model_files, speech, tmp_path, surroundings):
    """Calls the command with good flags but for those that are given; None leaves a flag out."""
    good = {
        **model_files,
        "image": PORTRAIT,
        "audio": speech,
        "prompt": "p",
        **SMALL,
        "save_file": tmp_path / "out" / "video",
        "quiet": True,
    }

    def call(**changed):
        flags = {name: value for name, value in {**good, **changed}.items() if value is not None}
        return main([f"--{name}={value}" for name, value in flags.items()])

    return call


@pytest.fixture
def refusal(command, capsys, tmp_path):
    """The sentence with which the command refuses these flags."""

    def call(**changed):
        before = set(tmp_path.rglob("*"))
        assert command(**changed) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1
        assert "Traceback" not in err and "Error" not in err
        assert [path for path in set(tmp_path.rglob("*")) - before if path.is_file()] == []
        return err

    return call
