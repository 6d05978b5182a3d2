"""Seconds per window of ComfyUI's own InfiniteTalk nodes and of our sampler around the same model, in one run.

    python -m infinitetalk.benchmarks.core_sampler COMFYUI [--size 832x480] [--steps 4] [--windows 3] [--layers 40]

By the interpreter of a ComfyUI that has WanInfiniteTalkToVideo, on its card (or, with ``--cpu`` and small numbers, to
try it). Random weights of real size, which cost what trained ones do, in bf16: 34 GB of host memory. Windows by the
core's nodes and by ours are made in turns; ours are written to a video as well, which the core's are not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from ..pipeline.media.fragments import VideoFormat
from ..pipeline.media.writer import VideoWriter
from ..pipeline.run.progress import no_progress
from ..pipeline.run.recording import Recording
from ..tests.support import random_checkpoint
from ..tests.support.core_graph import CoreGraph, boot

REAL = random_checkpoint.Sizes(
    dim=5120,
    heads=40,
    layers=40,
    ffn=13824,
    text_dim=4096,
    clip_dim=1280,
    audio_hidden=768,
    audio_layers=12,
    audio_tokens=32,
    audio_token_dim=768,
    audio_intermediate=512,
    vae_dim=96,
)
AUDIO_BLOCKS = 40  # which the core takes for granted
FEATURES = 50  # a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, help="folder of its main.py")
    parser.add_argument("--size", default="832x480", help="WIDTHxHEIGHT")
    parser.add_argument("--length", type=int, default=81, help="frames of a window")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--windows", type=int, default=3, help="by each, after one that is not counted")
    parser.add_argument("--layers", type=int, default=REAL.layers, help="fewer, where there is not the memory")
    parser.add_argument("--dim", type=int, default=REAL.dim, help="a multiple of 640 (160 to try it)")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    boot(options.comfyui, *(["--cpu"] if options.cpu else []))
    with torch.inference_mode():
        found = measure(options)
    for name, value in found.items():
        sys.stdout.write(f"{name:40} {value}\n")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, object]:
    import comfy.model_management

    graph, speech = _graph(options), _speech(options)
    theirs, ours = _core(graph, speech, options.windows + 1), _ours(graph, speech, options.windows + 1)
    times: dict[str, list[float]] = {"core": [], "ours": []}
    for number in range(options.windows + 1):
        for name, seconds in (("core", theirs), ("ours", ours)):
            taken = next(seconds)
            if number:
                times[name].append(taken)
    next(ours, None)  # to its end, so that the video is finished
    medians = {name: statistics.median(each) for name, each in times.items()}
    device = comfy.model_management.get_torch_device()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "size": options.size,
        "steps": options.steps,
        "seconds of each window by the core": [round(each, 3) for each in times["core"]],
        "seconds of each window by ours": [round(each, 3) for each in times["ours"]],
        "ours to the core's": round(medians["ours"] / medians["core"], 3),
    }


def _core(graph: CoreGraph, speech: dict, count: int) -> Iterator[float]:
    began = time.monotonic()
    for _, frames in graph.by_core(speech, count):
        frames.cpu()
        yield time.monotonic() - began
        began = time.monotonic()


def _ours(graph: CoreGraph, speech: dict, count: int) -> Iterator[float]:
    """Our windows, written beside the making of the next one as the node does."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        writer = VideoWriter(Path(folder, "video.mp4"), VideoFormat(*graph.size))
        with Recording(writer, {}, 0, 0, no_progress) as recording:
            for window, state in graph.by_ours(speech, count):
                recording.take(window, state)
                yield time.monotonic() - began
                began = time.monotonic()
            recording.finish()


def _graph(options: argparse.Namespace) -> CoreGraph:
    import comfy.model_management
    import comfy.model_patcher
    import comfy.ops
    import comfy.samplers
    import comfy.sd
    from comfy_extras.nodes_model_patch import MultiTalkModelPatch

    sizes = replace(REAL, dim=options.dim, layers=options.layers, ffn=REAL.ffn * options.dim // REAL.dim)
    if options.dim < 640:
        sizes = replace(sizes, audio_token_dim=32, audio_intermediate=16, vae_dim=8)
    dtype = torch.float32 if options.cpu else torch.bfloat16
    on = comfy.model_management.get_torch_device()
    base = _drawn(random_checkpoint.transformer_table(sizes), on, dtype)
    audio = _drawn(random_checkpoint.infinitetalk_table(replace(sizes, layers=AUDIO_BLOCKS)), on, dtype)
    offload = comfy.model_management.unet_offload_device()
    with torch.device("meta"):
        patch = MultiTalkModelPatch(
            in_dim=sizes.dim,
            intermediate_dim=sizes.audio_intermediate,
            out_dim=sizes.audio_token_dim,
            operations=comfy.ops.manual_cast,
        )
    patch.load_state_dict(audio, assign=True)
    width, height = map(int, options.size.split("x"))
    drawn = torch.Generator().manual_seed(1)
    return CoreGraph(
        model=comfy.sd.load_diffusion_model_state_dict(base),
        patch=comfy.model_patcher.ModelPatcher(patch, load_device=on, offload_device=offload),
        vae=comfy.sd.VAE(sd=_drawn(random_checkpoint.vae_table(sizes), on, dtype)),
        words=[[torch.randn(1, 512, 4096, generator=drawn), {}]],
        seen=SimpleNamespace(penultimate_hidden_states=torch.randn(1, 257, 1280, generator=drawn)),
        picture=torch.rand(1, height, width, 3, generator=drawn),
        sampler=comfy.samplers.sampler_object("euler"),
        sigmas=torch.linspace(1, 0, options.steps + 1),
        size=(height // 16 * 16, width // 16 * 16),
        length=options.length,
        motion=9,
    )


def _drawn(table: random_checkpoint.Table, on: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random tensors, drawn where that is fast and kept in host memory."""
    return {
        name: torch.empty(spec.shape, device=on, dtype=dtype).normal_(spec.mean, spec.std).cpu()
        for name, spec in table.items()
    }


def _speech(options: argparse.Namespace) -> dict:
    """Features of random speech, long enough for all windows."""
    seconds = (options.windows + 2) * options.length / 25
    layers = [torch.randn(1, int(FEATURES * seconds), 768) for _ in range(13)]
    return {"encoded_audio_all_layers": layers, "audio_samples": int(16000 * seconds)}


if __name__ == "__main__":
    main()
