"""From an empty clone to a video: ``download`` from a hub on this machine, then the guide's commands, one by one.

The hub holds small checkpoints in the published formats under the published names.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import av
import pytest
import torch
from infinitetalk.pipeline import Generator, Job, settings_with_preset
from infinitetalk.pipeline.checkpoints import lookup
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.facts.published import PARTS
from infinitetalk.tests.support import local_hub, lora_files, random_checkpoint
from infinitetalk.tests.support.guide import GUIDE, LIGHTX2V
from infinitetalk.tests.support.other_layouts import quanto
from infinitetalk.tests.support.places import ROOT
from infinitetalk.tests.support.random_checkpoint import TINY, infinitetalk_weights, transformer_weights
from infinitetalk.tests.support.shell import called
from safetensors.torch import save_file

PRESET = "02_comfyui_equivalent"
T2V = PARTS["lightx2v_t2v"].files[0].name
# instead of 640x640 and windows of 81 frames, which take a CPU minutes
QUICK = {"size": "64x64", "frame_num": "17", "max_frame_num": "17", "device": "cpu", "overwrite": "true"}
SHORT = [f"--{name}={value}" for name, value in QUICK.items()]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A hub's folder, with all that the presets' parts need."""
    hub, made = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("made")
    random_checkpoint.write(made, TINY)
    quantised = made / "InfiniteTalk" / "quant_models"
    quantised.mkdir()
    transformer = transformer_weights(TINY) | infinitetalk_weights(TINY)
    t5 = torch.load(made / "Wan2.1-I2V-14B-480P" / random_checkpoint.T5_FILE, weights_only=True)
    for name, map_name, tensors in (
        ("infinitetalk_single_fp8", "infinitetalk_single_fp8", transformer),
        ("t5_fp8", "t5_map_fp8", t5),
    ):
        numbers, layers = quanto(tensors, "fp8")
        save_file(numbers, quantised / f"{name}.safetensors")
        (quantised / f"{map_name}.json").write_text(json.dumps(layers))
    save_file(lora_files.lightx2v_i2v(TINY), made / LIGHTX2V)
    save_file(lora_files.lightx2v_i2v(TINY, rank=8), made / T2V)
    for part in PARTS.values():
        for file in part.files:
            source = None if part.place is None else made / part.path_in(part.place, file)
            if source is not None and source.is_file():
                (hub / part.repo / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, hub / part.repo / file.path)
    tokenizer = hub / PARTS["tokenizer"].repo / "google" / "umt5-xxl"
    for file in PARTS["tokenizer"].files:
        if not (tokenizer / file.name).exists():
            (tokenizer / file.name).write_text("{}")
    return hub


@pytest.fixture(scope="module")
def clone(tmp_path_factory, published):
    """A clone without weights that sees the hub, as the working folder."""
    folder = tmp_path_factory.mktemp("a clone")
    for name in ("generate_infinitetalk.py", "assets", "pipeline", "presets", "__init__.py"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "run_configs", folder / "run_configs")  # its scripts go to the folder above theirs
    with pytest.MonkeyPatch.context() as patch, local_hub.serving(published) as hub:
        patch.chdir(folder)
        patch.setattr(lookup, "_CLONE", folder)
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("INFINITETALK_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("WORLD_SIZE", "HF_TOKEN", "HTTP_PROXY", "http_proxy"):
            patch.delenv(name, raising=False)
        yield folder


def frames_of(path):
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray(format="rgb24").tobytes())
    return digest.hexdigest()


def guide(*more):
    return [*shlex.split(GUIDE), *SHORT, *more]


def test_before_anything_is_there_all_of_it_is_named(clone, capsys):
    assert main(guide()) == 2
    err = capsys.readouterr().err
    for part, file in (("fp8", "quant_models"), ("lightx2v", LIGHTX2V), ("wav2vec", "chinese-wav2vec2-base")):
        assert f"infinitetalk download {part}" in err and file in err
    assert "clip_vision vae tokenizer" in err and err.splitlines()[-1].startswith(
        "  All of them: infinitetalk download"
    )
    assert main(["--preset", PRESET, "--image", "assets/drawn_portrait.png", "--audio", "assets/speech.wav"]) == 2
    assert f"All of them: infinitetalk download --preset {PRESET}" in capsys.readouterr().err


def test_download_and_the_preset_alone_make_a_video_in_the_shell_and_in_python(clone, capsys):
    assert main(["download", "--preset", PRESET, "--trust_hub"]) == 0
    assert "now: infinitetalk --preset 02_comfyui_equivalent --image" in capsys.readouterr().out
    words = ["--preset", PRESET, "--image", "assets/drawn_portrait.png", "--audio", "assets/speech.wav"]
    assert main([*words, *SHORT, "--save_file", "shell", "--quiet"]) == 0
    settings = settings_with_preset(PRESET, size="64x64", frame_num=17, max_frame_num=17, device="cpu")
    generator = Generator(settings)
    job = Job(Path("assets/drawn_portrait.png"), Path("assets/speech.wav"))
    generator.save(job, Path("python.mp4"))
    assert frames_of("shell.mp4") == frames_of("python.mp4")
    assert sum(len(window.frames) for window in generator.windows(job, settings)) == 17
    capsys.readouterr()
    assert main(["export", "shell.mp4"]) == 0  # the command that it carries names the files
    command = capsys.readouterr().out
    assert "weights/Wan2.1-I2V-14B-480P" in command and "weights/chinese-wav2vec2-base" in command
    words = shlex.split(command.replace("\\\n", " "), comments=True)[2:]
    assert main([*words, "--save_file", "again", "--quiet"]) == 0
    assert frames_of("again.mp4") == frames_of("shell.mp4")


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ([], 0),
        (["--use_teacache", "--teacache_thresh", "0.2"], 0),
        (["--use_apg", "--apg_momentum", "-0.75", "--apg_norm_threshold", "55"], 0),
        (["--num_persistent_param_in_dit", "0", "--t5_cpu", "true", "--offload_model", "true"], 0),
        (["--sample_audio_guide_scale", "3.0", "--sample_shift", "12.0"], 0),
        (["--motion_frame", "15", "--color_correction_strength", "0.8"], 0),
        (["--sample_steps", "8", "--sample_text_guide_scale", "2.0"], 0),
        (["--scene_seg"], 2),  # cutting at scenes is not available yet
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_the_guides_command_with_each_of_its_extras(clone, capsys, more, end):
    assert main(guide("--dry_run", *more)) == end
    told = capsys.readouterr()
    assert "infinitetalk-480" not in told.err and ("windows" in told.out if end == 0 else "scene" in told.err)


def test_the_guides_command_runs_as_it_is(clone, capsys):
    assert main(guide("--quiet")) == 0
    assert frames_of("output_fast.mp4")
    assert "single_example_image" not in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to run the script with")
def test_the_guides_script_runs(clone, recorder, capsys):
    command = ["bash", f"run_configs/{PRESET}.sh", *SHORT, "--save_file", str(clone / "script"), "--dry_run"]
    given = {"env": {**os.environ, "PYTHON": str(recorder)}, "cwd": clone}
    script, *words = called(subprocess.run(command, **given, capture_output=True, text=True, check=False))
    assert script == "generate_infinitetalk.py" and main(words) == 0
    assert "windows" in capsys.readouterr().out


def test_the_lora_of_the_guides_troubleshooting_stands_in(clone, capsys):
    (clone / "weights" / LIGHTX2V).unlink()
    assert main(guide("--dry_run")) == 2
    assert f"infinitetalk download {'lightx2v_t2v'} " in capsys.readouterr().err
    from huggingface_hub import hf_hub_download

    url = os.environ["HF_ENDPOINT"]  # as hf download Kijai/WanVideo_comfy FILE --local-dir weights/ does
    hf_hub_download("Kijai/WanVideo_comfy", T2V, local_dir="weights", endpoint=url)
    assert main(guide()) == 0
    err = capsys.readouterr().err
    assert f"{LIGHTX2V} is not there, so " in err and f"weights/{T2V} takes its place" in err
    assert "infinitetalk download lightx2v " in err
    assert main(["--preset", PRESET, *SHORT, "--input_json", "examples/single_example_image.json", "--dry_run"]) == 0
    assert f"weights/{T2V} takes its place" in capsys.readouterr().out
    assert main(["doctor", "--quick"]) == 0
    told = capsys.readouterr().out
    assert LIGHTX2V in told and T2V in told
