"""One forward of upstream's WanModel with small random weights -> transformer.safetensors.

Tensors (float32):
    output.{i}              [16, 5, 6, 8], the velocity predicted for timesteps[i], one speaker
    null_audio              the same for timesteps[1], with all-zero audio
    null_text               the same for timesteps[1], with the context "context_null"
Notes: ``config`` (config.json of upstream's kind), ``shapes`` (name -> shape of every weight),
``timesteps``, ``inputs`` (name -> shape).

To rebuild: weights are ``recipe.random_state(shapes)``; the inputs x, y, context, context_null,
clip and audio are ``recipe.random_tensor(name, shape)``, except that y's first four channels are
the mask: 1 in the first latent frame, else 0. Audio is [frames, window 5, layers, channels].
The shapes of the audio features and of the CLIP features, which upstream fixes at 12 x 768 and
1280, are 3 x 8 and 40 here; ``config`` does not say it, the weights do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from .recipe import random_state, random_tensor, shapes_of, write_golden
from .upstream import import_upstream

CONFIG = {
    "model_type": "i2v",
    "text_len": 512,
    "in_dim": 36,
    "dim": 96,
    "ffn_dim": 160,
    "freq_dim": 64,
    "text_dim": 48,
    "out_dim": 16,
    "num_heads": 4,
    "num_layers": 3,
    "eps": 1e-6,
    "intermediate_dim": 16,
    "output_dim": 24,
    "context_tokens": 4,
}
AUDIO_LAYERS, AUDIO_CHANNELS = 3, 8
CLIP_DIM = 40
TIMESTEPS = (1000.0, 546.5, 10.9)
INPUTS = {
    "x": [16, 5, 6, 8],
    "y": [20, 5, 6, 8],
    "context": [7, 48],
    "context_null": [4, 48],
    "clip": [1, 257, CLIP_DIM],
    "audio": [17, 5, AUDIO_LAYERS, AUDIO_CHANNELS],
}


def make(upstream: Path, out: Path) -> None:
    """Write transformer.safetensors; fails if an input moves the output by less than 1 %."""
    inputs = golden_inputs(INPUTS)
    with import_upstream(upstream), torch.no_grad():
        model = small_model(CONFIG, CLIP_DIM)
        outputs = {f"output.{i}": forward(model, inputs, t) for i, t in enumerate(TIMESTEPS)}
        middle, t = outputs["output.1"], TIMESTEPS[1]
        outputs["null_audio"] = forward(model, inputs | {"audio": torch.zeros_like(inputs["audio"])}, t)
        outputs["null_text"] = forward(model, inputs | {"context": inputs["context_null"]}, t)
        for name in ("x", "y", "context", "clip", "audio"):
            other = random_tensor(f"other {name}", INPUTS[name])
            check_alive(f"transformer: {name}", middle, forward(model, inputs | {name: other}, t))
        check_alive("transformer: timestep", middle, forward(model, inputs, 500.0))
        shapes = shapes_of(model)
    write_golden(
        out / "transformer.safetensors", outputs, config=CONFIG, shapes=shapes, timesteps=TIMESTEPS, inputs=INPUTS
    )


def golden_inputs(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The model's inputs, with the mask in y's first four channels."""
    inputs = {name: random_tensor(name, shape) for name, shape in shapes.items()}
    inputs["y"][:4] = 0
    inputs["y"][:4, 0] = 1
    return inputs


def small_model(config: dict[str, object], clip_dim: int) -> torch.nn.Module:
    """Upstream's WanModel with the random weights of its names and shapes. Needs ``import_upstream``."""
    from wan.modules import multitalk_model

    with small_dimensions(multitalk_model, clip_dim):
        model = multitalk_model.WanModel(**config)
    model.load_state_dict(random_state(shapes_of(model)))
    model.disable_teacache()
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def small_dimensions(multitalk_model: object, clip_dim: int) -> Iterator[None]:
    """Replace the dimensions that WanModel's constructor does not take as arguments."""
    mlp, audio = multitalk_model.MLPProj, multitalk_model.AudioProjModel
    small_audio = partial(audio, blocks=AUDIO_LAYERS, channels=AUDIO_CHANNELS)
    with (
        mock.patch.object(multitalk_model, "MLPProj", lambda _, out_dim: mlp(clip_dim, out_dim)),
        mock.patch.object(multitalk_model, "AudioProjModel", small_audio),
    ):
        yield


def forward(model: torch.nn.Module, inputs: dict[str, torch.Tensor], timestep: float) -> torch.Tensor:
    """Velocity [16, T, h, w] of one pass, called the way upstream's pipeline does for one speaker."""
    _, frames, height, width = inputs["x"].shape
    return model(
        [inputs["x"].clone()],
        t=torch.tensor([timestep]),
        context=[inputs["context"]],
        seq_len=frames * height * width // 4,
        clip_fea=inputs["clip"],
        y=[inputs["y"]],
        audio=inputs["audio"][None],
        ref_target_masks=torch.ones(3, height, width),
    )[0]


def check_alive(what: str, before: torch.Tensor, after: torch.Tensor) -> None:
    """Raise unless the change is more than 1 % of the tensor's own size."""
    change = ((after - before).norm() / before.norm()).item()
    if not change > 0.01:
        raise AssertionError(f"{what} moves the result by {100 * change:.3f} % only")
