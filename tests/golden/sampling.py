"""Schedules, guidance and TeaCache's decisions of upstream -> sampling.safetensors.

Tensors:
    euler.{steps}.{shift}       [steps + 1] float32 timesteps of upstream's schedule, the last one 0
    distill.{shift}             [5] float64 timesteps of the four-step "flowmatch_distill" schedule of
                                ComfyUI-WanVideoWrapper, from its definition: linspace(1, 0, 1001)[:-1]
                                shifted, at raw 0.999, 0.75, 0.5, 0.25, then 0
    cfg.two, cfg.three          classifier-free guidance of call 0, upstream's formulas
    apg.{two|three}.{threshold}.{call}  adaptive projected guidance, three calls in one window
    teacache.{size}.{threshold}.ran          [120] bool, whether the blocks ran in each call (40 steps of
                                             cond, drop_text, uncond)
    teacache.{size}.{threshold}.accumulated  [120] float64, the distance after each call (0 if they ran)
    teacache.{size}.{threshold}.output.{i}   [16, 3, 4, 6] velocity of call i, for i in note "teacache_calls"
Notes: ``scales`` (text, audio), ``momentum``, ``prediction_shape``, ``teacache_shifts`` (size -> shift),
``teacache_inputs`` (name -> shape), ``time_embedding_scale``, ``config`` and ``shapes`` of the small transformer.

To rebuild: prediction ``kind`` (cond, drop_text, drop_audio, uncond) of call i is
``recipe.random_tensor(f"{kind}.{i}", prediction_shape)``. TeaCache runs the small transformer of
transformer.safetensors, its time_embedding.0.weight multiplied by ``time_embedding_scale``, with
``transformer.golden_inputs(teacache_inputs)``: the same x in every call, timestep
euler.40.{shift}[step], drop_text with context_null, uncond with context_null and zero audio.
``use_ret_steps`` is upstream's default, so the first five steps always run.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import torch

from .recipe import random_tensor, shapes_of, write_golden
from .transformer import CLIP_DIM, CONFIG, INPUTS, forward, golden_inputs, small_model
from .upstream import import_upstream

STEPS, SHIFTS, DISTILL_SHIFTS = (1, 4, 8, 40), (2, 5, 7, 11), (2, 5, 8, 11)
PREDICTION_SHAPE = [16, 3, 6, 8]
TEXT_SCALE, AUDIO_SCALE, MOMENTUM = 5.0, 4.0, -0.75
APG_THRESHOLDS = (55, 5)
TEACACHE_SHIFTS = {"infinitetalk-480": 7, "infinitetalk-720": 11}
TEACACHE_THRESHOLDS = (0.2, 0.5)
TEACACHE_STEPS = 40
# Random weights turn each timestep into something unrelated to the last; trained ones change little.
TIME_EMBEDDING_SCALE = 0.04
TEACACHE_CALLS = (57, 58, 59, 119)
TEACACHE_INPUTS = INPUTS | {"x": [16, 3, 4, 6], "y": [20, 3, 4, 6], "audio": [9, *INPUTS["audio"][1:]]}


def make(upstream: Path, out: Path) -> None:
    """Write sampling.safetensors."""
    tensors = {f"distill.{shift}": _distill(shift) for shift in DISTILL_SHIFTS} | _cfg()
    with import_upstream(upstream), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        tensors |= {f"euler.{steps}.{shift}": _euler(steps, shift) for steps in STEPS for shift in SHIFTS}
        for threshold in APG_THRESHOLDS:
            tensors |= _apg(threshold)
        model = small_model(CONFIG, CLIP_DIM)
        model.time_embedding[0].weight.mul_(TIME_EMBEDDING_SCALE)
        for size in TEACACHE_SHIFTS:
            for threshold in TEACACHE_THRESHOLDS:
                tensors |= _teacache(model, size, threshold)
        shapes = shapes_of(model)
    write_golden(
        out / "sampling.safetensors",
        tensors,
        scales=[TEXT_SCALE, AUDIO_SCALE],
        momentum=MOMENTUM,
        prediction_shape=PREDICTION_SHAPE,
        teacache_shifts=TEACACHE_SHIFTS,
        teacache_inputs=TEACACHE_INPUTS,
        teacache_calls=TEACACHE_CALLS,
        time_embedding_scale=TIME_EMBEDDING_SCALE,
        config=CONFIG,
        shapes=shapes,
    )


def _euler(steps: int, shift: float) -> torch.Tensor:
    from wan.multitalk import timestep_transform

    raw = [*np.linspace(1000, 1, steps, dtype=np.float32), 0.0]
    return torch.cat([timestep_transform(torch.tensor([t]), shift=shift) for t in raw])


def _distill(shift: float) -> torch.Tensor:
    raw = torch.tensor([0.999, 0.75, 0.5, 0.25, 0.0], dtype=torch.float64)
    return 1000 * shift * raw / (1 + (shift - 1) * raw)


def _predictions(call: int) -> dict[str, torch.Tensor]:
    kinds = ("cond", "drop_text", "drop_audio", "uncond")
    return {kind: random_tensor(f"{kind}.{call}", PREDICTION_SHAPE) for kind in kinds}


def _cfg() -> dict[str, torch.Tensor]:
    p = _predictions(0)
    return {
        "cfg.two": p["drop_audio"] + AUDIO_SCALE * (p["cond"] - p["drop_audio"]),
        "cfg.three": p["uncond"]
        + TEXT_SCALE * (p["cond"] - p["drop_text"])
        + AUDIO_SCALE * (p["drop_text"] - p["uncond"]),
    }


def _apg(threshold: float) -> dict[str, torch.Tensor]:
    from wan.utils.multitalk_utils import MomentumBuffer, adaptive_projected_guidance

    def update(diff: torch.Tensor, cond: torch.Tensor, buffer: MomentumBuffer) -> torch.Tensor:
        return adaptive_projected_guidance(diff, cond, momentum_buffer=buffer, norm_threshold=threshold)

    two, text, audio = (MomentumBuffer(MOMENTUM) for _ in range(3))
    tensors = {}
    for call in range(3):
        p = _predictions(call)
        tensors[f"apg.two.{threshold}.{call}"] = p["cond"] + (AUDIO_SCALE - 1) * update(
            p["cond"] - p["drop_audio"], p["cond"], two
        )
        tensors[f"apg.three.{threshold}.{call}"] = (
            p["cond"]
            + (TEXT_SCALE - 1) * update(p["cond"] - p["drop_text"], p["cond"], text)
            + (AUDIO_SCALE - 1) * update(p["drop_text"] - p["uncond"], p["cond"], audio)
        )
    return tensors


def _teacache(model: torch.nn.Module, size: str, threshold: float) -> dict[str, torch.Tensor]:
    inputs = golden_inputs(TEACACHE_INPUTS)
    no_text = inputs | {"context": inputs["context_null"]}
    passes = {"cond": inputs, "drop_text": no_text, "uncond": no_text | {"audio": torch.zeros_like(inputs["audio"])}}
    ran, accumulated, outputs = [], [], {}
    hook = model.blocks[0].register_forward_hook(lambda *_: ran.append(True))
    model.teacache_init(teacache_thresh=threshold, sample_steps=TEACACHE_STEPS, model_scale=size)
    name = f"teacache.{size}.{threshold}"
    for timestep in _euler(TEACACHE_STEPS, TEACACHE_SHIFTS[size])[:-1]:
        for kind, arguments in passes.items():
            call = len(accumulated)
            output = forward(model, arguments, timestep.item())
            ran.extend([False] * (call + 1 - len(ran)))
            accumulated.append(float(getattr(model, f"accumulated_rel_l1_distance_{kind}")))
            if call in TEACACHE_CALLS:
                outputs[f"{name}.output.{call}"] = output
    hook.remove()
    model.disable_teacache()
    return outputs | {
        f"{name}.ran": torch.tensor(ran),
        f"{name}.accumulated": torch.tensor(accumulated, dtype=torch.float64),
    }
