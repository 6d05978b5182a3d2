"""Windows by ComfyUI's own nodes and by ours around them, compared in a process of the host's interpreter.

``python -m infinitetalk.tests.support.core_process COMFYUI BASE`` writes what it finds to ``BASE/found.json``;
``BASE/models`` holds ``core_models``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from .core_graph import CoreGraph, boot
from .core_graphs import NAMES
from .live import Live

RATE = 44100


def compare(drawn: torch.Generator) -> dict:
    import comfy.samplers
    from comfy_extras import nodes_custom_sampler as custom
    from comfy_extras.nodes_audio_encoder import AudioEncoderEncode, AudioEncoderLoader
    from comfy_extras.nodes_model_patch import ModelPatchLoader

    import nodes

    from ...nodes.comfy import core_windows

    def encoded(seconds: float) -> dict:
        sound = torch.randn(1, 2, int(RATE * seconds), generator=drawn) * 0.1
        return AudioEncoderEncode.execute(ear, {"waveform": sound, "sample_rate": RATE}).result[0]

    ear = AudioEncoderLoader.execute(NAMES["audio_encoders"]).result[0]
    words, others = ([[torch.randn(1, 20, 4096, generator=drawn), {}]] for _ in range(2))
    graph, latents = CoreGraph(
        model=nodes.UNETLoader().load_unet(NAMES["diffusion_models"], "default")[0],
        patch=ModelPatchLoader().load_model_patch(NAMES["model_patches"])[0],
        vae=nodes.VAELoader().load_vae(NAMES["vae"])[0],
        words=words,
        seen=SimpleNamespace(penultimate_hidden_states=torch.randn(1, 257, 1280, generator=drawn)),
        picture=torch.rand(1, 90, 70, 3, generator=drawn),
        sampler=comfy.samplers.sampler_object("euler"),
        sigmas=torch.tensor([1.0, 0.8, 0.5, 0.0]),
        size=(64, 96),
        length=17,
        motion=5,
    ).watched()
    short, long = encoded(1.6), encoded(5.0)
    theirs = [made for made, _ in graph.by_core(short, 3)]
    latents.clear()
    frames = [window.frames for window, _ in graph.by_ours(short, 3)]
    ours, latents[:] = list(latents), []
    core_windows._SHORT = 0  # as if a minute of speech were long: every window is given a part of it
    part_frames = [window.frames for window, _ in graph.by_ours(short, 3)]
    parts, latents[:] = list(latents), []
    next(graph.by_ours(short, 1, custom.CFGGuider.execute(graph.model, words, others, 3.0).result[0]))
    (guided,) = latents
    held = []
    with Live() as live:
        for window, _ in graph.by_ours(long, 10):
            latents.clear()
            del window, _
            held.append((live.now, live.peak))
            live.peak = live.now
    return {
        "scale": float(theirs[0].abs().max()),
        "latents": _greatest(ours, theirs),
        "latents of parts": _greatest(parts, theirs),
        "levels of parts": max(_greatest([f.float() for f in part_frames], [f.float() for f in frames])),
        "guided otherwise": _greatest([guided], ours[:1])[0],
        "held": held,
    }


def _greatest(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> list[float]:
    return [float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)]


if __name__ == "__main__":
    source, base = map(Path, sys.argv[1:])
    boot(source, "--cpu", "--base-directory", str(base))
    with torch.inference_mode():
        found = compare(torch.Generator().manual_seed(1))
    (base / "found.json").write_text(json.dumps(found), encoding="utf-8")
