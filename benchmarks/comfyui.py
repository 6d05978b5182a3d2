"""Seconds per window through ComfyUI, beside the command that the graph exports. On the CPU, with one thread.

    python -m infinitetalk.benchmarks.comfyui FOLDER [--repeats 3] [--out FILE]

Writes a small checkpoint (70 million parameters in the transformer) into FOLDER, and a ComfyUI beside it if none
is given by COMFYUI_DIR and COMFYUI_PYTHON. A window's seconds are the difference between a video of three windows
and one of one window, by two, so that starting, loading and encoding cancel out; the processor's seconds say
what the doors cost where other programs disturb the clock. Both take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from ..pipeline.graphs.widgets import LOADER, SAMPLER, widget_value
from ..pipeline.settings.definition import Settings
from ..tests.golden.speech import save_wav
from ..tests.support import comfy_host, comfy_install, random_checkpoint

ROOT = Path(__file__).resolve().parent.parent
SIZES = random_checkpoint.Sizes(dim=768, heads=6, layers=6, ffn=3072, clip_dim=160)
SECONDS = 9.2  # of speech
SHORT, LONG = 81, 225  # frames: one window, three windows
WINDOWS = 2  # that they differ by
CHANGED = {
    **{
        "dit_path": "Wan2.1-I2V-14B-480P",
        "infinitetalk_dir": "infinitetalk.safetensors",
        "prompt": "A cat is talking.",
    },
    **{"size": "96x96", "sample_steps": 4, "sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 2.0},
}


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the processor."""

    wall: float
    processor: float


def prepare(folder: Path) -> None:
    """ComfyUI's folder with the pack, the checkpoint, a picture and speech."""
    comfy_host.prepare(folder, ROOT, "infinitetalk")
    models = folder / "models"
    written = random_checkpoint.write(folder / "written", SIZES)
    for source, kind in ((written.ckpt_dir, "diffusion_models"), (written.wav2vec_dir, "audio_encoders")):
        shutil.copytree(source, models / kind / source.name, dirs_exist_ok=True)
    shutil.copy(written.infinitetalk, models / "diffusion_models")
    shutil.copy(ROOT / "assets" / "portrait.png", folder / "input")
    times = np.arange(int(SECONDS * 16_000))
    samples = np.sin(times * 0.05) * np.sin(times * 0.0009) * 10_000
    save_wav(folder / "input" / "speech.wav", samples[:, None].astype(np.int16), 16_000)


def graph(frames: int, seed: int) -> dict[str, dict]:
    """A graph in API format."""
    defaults = Settings()
    values = {name: widget_value(name, getattr(defaults, name)) for name in (*LOADER, *SAMPLER)}
    values |= {**CHANGED, "max_frame_num": frames, "base_seed": seed}
    links = {"model": ["model", 0], "speech": ["speech", 0], "image": ["image", 0], "filename_prefix": "bench"}
    inputs = {
        "image": ("LoadImage", {"image": "portrait.png"}),
        "audio": ("LoadAudio", {"audio": "speech.wav"}),
        "speech": ("InfiniteTalkAudioEncoder", {"audio": ["audio", 0], "wav2vec_dir": "chinese-wav2vec2-base"}),
        "model": ("InfiniteTalkModelLoader", {name: values[name] for name in LOADER}),
        "sampler": ("InfiniteTalkSampler", {**links, **{name: values[name] for name in SAMPLER}}),
    }
    return {id: {"class_type": kind, "inputs": widgets} for id, (kind, widgets) in inputs.items()}


def by_comfyui(host: comfy_host.Host, frames: int, seed: int) -> Cost:
    """A graph that is queued, with the model loaded before."""
    process = psutil.Process(host.pid)
    before, began = process.cpu_times(), time.perf_counter()
    with host.listen() as listener:  # as a browser does; asking again and again would cost the server something
        prompt = host.queue(graph(frames, seed), listener.client)
        listener.until_end(prompt, 3600)
    entry = host.wait(prompt)
    wall, after = time.perf_counter() - began, process.cpu_times()
    if entry["status"]["status_str"] != "success":
        raise RuntimeError(json.dumps(entry["status"])[-2000:])
    return Cost(wall, after.user + after.system - before.user - before.system)


def by_command(host: comfy_host.Host, environment: dict[str, str], frames: int, seed: int) -> Cost:
    """The command that ComfyUI exports for the same graph."""
    command = json.loads(host.post("/infinitetalk/export", {"prompt": graph(frames, seed), "shell": "sh"}))["command"]
    began = time.perf_counter()
    process = subprocess.Popen(
        ["sh", "-c", f"{command} --quiet --overwrite"],
        cwd=host.base,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the command failed: {command}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


def per_window(run: Callable[[int, int], Cost], seed: int) -> Cost:
    """What a further window costs."""
    short, long = run(SHORT, seed), run(LONG, seed + 1)
    return Cost((long.wall - short.wall) / WINDOWS, (long.processor - short.processor) / WINDOWS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    given = [value and Path(value).absolute() for value in map(os.environ.get, ("COMFYUI_DIR", "COMFYUI_PYTHON"))]
    installed = comfy_install.install(ROOT / ".comfy", *given)
    prepare(folder)
    environment = {"OMP_NUM_THREADS": "1", "INFINITETALK_CACHE": str(folder / "cache")}
    found: dict[str, list[Cost]] = {"ComfyUI": [], "command": []}
    with comfy_host.running(installed.source, installed.python, folder, environment) as host:
        by_comfyui(host, SHORT, 1)  # loads the models
        for repeat in range(arguments.repeats):
            seed = 10 * (repeat + 1)
            found["ComfyUI"].append(per_window(lambda frames, seed: by_comfyui(host, frames, seed), seed))
            found["command"].append(per_window(lambda frames, seed: by_command(host, environment, frames, seed), seed))
            sys.stderr.write(f"{repeat + 1}/{arguments.repeats} {found['ComfyUI'][-1]} {found['command'][-1]}\n")
    medians = {
        kind: {door: statistics.median(getattr(cost, kind) for cost in costs) for door, costs in found.items()}
        for kind in ("wall", "processor")
    }
    for kind, doors in medians.items():
        more = doors["ComfyUI"] / doors["command"] - 1
        print(f"{kind:9} ComfyUI {doors['ComfyUI']:.2f} s, command {doors['command']:.2f} s a window ({more:+.1%})")
    if arguments.out:
        arguments.out.write_text(json.dumps(medians, indent=2) + "\n")


if __name__ == "__main__":
    main()
