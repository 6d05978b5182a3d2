"""Two speakers: forwards of upstream's WanModel, its masks, whole videos -> speakers.safetensors, speakers_{case}.

speakers.safetensors, of the model, weights and inputs of transformer.safetensors (``transformer.golden_inputs``), but
audio [2, 17, 5, layers, channels] is ``random_tensor("two voices", ...)``, and the masks are ``MASKS`` (note "masks",
[3, 6, 8] of latents):
    output.{i}          [16, 5, 6, 8], the velocity for note "timesteps"[i]
    map.{block}         [3, tokens], the reference map of each block of output.1, by which tokens are told apart
    places.{block}      [tokens], the positions that follow from it
    masks.{i}           bool [3, latent height, width], what generate makes of note "pictures"[i]: source height and
                        width, target height and width, and bbox as upstream's JSON has it, or none for the halves
speakers_{case}.safetensors are videos as streaming.py has them, of the cases ``CASES``, with ``speech.other speech``
beside ``speech``; of halves, or of the note "bbox".
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

from . import streaming, transformer
from .recipe import random_tensor, reference_frames, shapes_of, write_golden
from .upstream import import_upstream

AUDIO = [2, *transformer.INPUTS["audio"]]
MASKS = [(slice(1, 5), slice(0, 4)), (slice(0, 6), slice(5, 8))]  # rows and columns of a latent, 6 x 8
BBOX = {"person1": [5, 3, 60, 40], "person2": [10, 50, 70, 96]}  # of the picture of 70 x 100
_SIX_STEPS = {"steps": 8, "shift": 7.0, "text_scale": 5.0, "audio_scale": 4.0, "teacache": 0.3}
CASES = {
    "cfg2": (streaming.CASES["image_cfg2"], None),
    "cfg3": (streaming.CASES["video_cfg3"], BBOX),
    "apg": (streaming.CASES["image_apg"], None),
    "teacache": (streaming.CASES["image_cfg3"] | _SIX_STEPS, BBOX),
}
PICTURES = (  # source and target, height and width; boxes are [row_min, col_min, row_max, col_max]
    ((70, 100), (32, 48), None),
    ((70, 100), (32, 48), BBOX),
    ((301, 433), (448, 640), None),
    ((433, 301), (640, 448), None),
    ((720, 1280), (448, 832), {"person1": [100, 200, 500, 420], "person2": [80, 800, 480, 1010]}),
    ((333, 301), (640, 640), {"person1": [0, 0, 333, 120], "person2": [20, 170, 333, 301]}),
    ((57, 91), (64, 96), {"person1": [4.7, 9, 51, 33], "person2": [4, 44, 51, 80.9]}),
)


def latent_masks() -> torch.Tensor:
    """The masks [3, 6, 8] of the forwards."""
    masks = torch.zeros(3, *transformer.INPUTS["x"][2:])
    for mask, (rows, columns) in zip(masks, MASKS, strict=False):
        mask[rows, columns] = 1
    masks[2] = 1 - masks[:2].sum(0).clamp(max=1)
    return masks


def make(upstream: Path, out: Path) -> None:
    """Write the files; fails if a voice or the masks move the output by less than 1 %."""
    inputs = transformer.golden_inputs(transformer.INPUTS) | {"audio": random_tensor("two voices", AUDIO)}
    with import_upstream(upstream), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model = transformer.small_model(transformer.CONFIG, transformer.CLIP_DIM)
        tensors = {f"output.{i}": _forward(model, inputs, t) for i, t in enumerate(transformer.TIMESTEPS)}
        middle, t = tensors["output.1"], transformer.TIMESTEPS[1]
        tensors |= _maps(model, inputs, t)
        swapped = inputs | {"audio": inputs["audio"].flip(0)}
        transformer.check_alive("speakers: which voice", middle, _forward(model, swapped, t))
        other = latent_masks()[[1, 0, 2]]
        transformer.check_alive("speakers: masks", middle, _forward(model, inputs, t, other))
        shapes = streaming._shapes()
        streaming.write_checkpoint(Path(folder), streaming.CONFIG, shapes)
        pipeline = streaming._pipeline(Path(folder), shapes)
        for i, picture in enumerate(PICTURES):
            tensors[f"masks.{i}"] = _masks_of(pipeline, Path(folder), *picture)
        for name, (case, bbox) in CASES.items():
            run = partial(streaming._generate, pipeline, Path(folder), case, others=("other speech",), bbox=bbox)
            found = run()
            video = (found["video"] * streaming.VIDEO_SCALE).round().to(torch.int16)[:, :, ::2, ::2]
            write_golden(out / f"speakers_{name}.safetensors", found | {"video": video}, case=case, bbox=bbox)
    write_golden(
        out / "speakers.safetensors",
        tensors,
        timesteps=transformer.TIMESTEPS,
        masks=latent_masks().int().tolist(),
        pictures=PICTURES,
        shapes=shapes_of(model),
    )


def _forward(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], timestep: float, masks: torch.Tensor | None = None
) -> torch.Tensor:
    _, frames, height, width = inputs["x"].shape
    return model(
        [inputs["x"].clone()],
        t=torch.tensor([timestep]),
        context=[inputs["context"]],
        seq_len=frames * height * width // 4,
        clip_fea=inputs["clip"],
        y=[inputs["y"]],
        audio=inputs["audio"],
        ref_target_masks=latent_masks() if masks is None else masks,
    )[0]


def _maps(model: torch.nn.Module, inputs: dict[str, torch.Tensor], timestep: float) -> dict[str, torch.Tensor]:
    """The reference map of each block, and the positions that it gives to queries."""
    found: dict[str, torch.Tensor] = {}
    undo = []
    for index, block in enumerate(model.blocks):
        attention = block.audio_cross_attn

        def hear(module: object, args: tuple, kwargs: dict, index: int = index) -> None:
            found[f"map.{index}"] = kwargs["x_ref_attn_map"].clone()

        def turn(module: object, args: tuple, index: int = index) -> None:
            found.setdefault(f"places.{index}", args[1].clone())  # queries come first

        undo += [
            attention.register_forward_pre_hook(hear, with_kwargs=True),
            attention.rope_1d.register_forward_pre_hook(turn),
        ]
    _forward(model, inputs, timestep)
    for handle in undo:
        handle.remove()
    return found


def _masks_of(
    pipeline: object, folder: Path, source: tuple[int, int], target: tuple[int, int], bbox: dict | None
) -> torch.Tensor:
    """What the model gets for a picture of a size; it stops there."""

    class Seen(Exception):
        pass

    def look(module: object, args: tuple, kwargs: dict) -> None:
        raise Seen(kwargs["ref_target_masks"].bool())

    handle = pipeline.model.register_forward_pre_hook(look, with_kwargs=True)
    Image.fromarray(reference_frames(1, *source)[0]).save(folder / "source.png")
    case = streaming.CASES["image_cfg2"]
    with (
        mock.patch.object(streaming, "write_reference", lambda *a: folder / "source.png"),
        mock.patch.object(streaming, "HEIGHT", target[0]),
        mock.patch.object(streaming, "WIDTH", target[1]),
    ):
        try:
            streaming._generate(pipeline, folder, case, others=("other speech",), bbox=bbox)
        except Seen as seen:
            return seen.args[0]
        finally:
            handle.remove()
    raise AssertionError("the model was not called")
