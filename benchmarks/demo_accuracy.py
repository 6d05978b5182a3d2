"""What 8 bits do to a trained model: the bundled demo model, on a CPU or a CUDA card.

    python -m infinitetalk.benchmarks.demo_accuracy [--steps 4 40] [--device cuda] [--out FILE]

The first window of the bundled portrait and speech, against the same weights in float32: PSNR of the frames and
the correlation of the mouth with the speech for whole runs. On a CPU with matrices in 8 bits (weights alone:
products need a card), and at the first number of steps with one group of layers in 8 bits; on a card in bf16 with
8-bit products and 8-bit attention (cudnn_fp8, where it works), also in some blocks or steps alone. It is a small
model: the real one's layers are twenty times as wide, so more of the rounding averages out there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import torch

from ..pipeline import Generator, Job, Settings
from ..pipeline.errors import InputError
from ..pipeline.evaluation.measures import evaluate_frames
from ..pipeline.evaluation.reader import load_reader
from ..pipeline.media.audio import open_audio
from ..pipeline.media.speech import speech_for_model
from ..pipeline.models.transformer.attention import Attention, choose_attention
from ..pipeline.quantisation.codes import QUANTISERS, pack
from ..pipeline.quantisation.matmul import choose_matmuls
from ..pipeline.settings.demo import ASSETS, FACE_READER, demo_settings
from .accuracy import GROUPS, Quantised, psnr

FRAMES = 81
OUTSIDE = {  # of the blocks: kept in floats always; rounded here to see what that is worth
    "patch embedding": "patch_embedding",
    "time embedding and projection": "time_",
    "text embedding": "text_embedding",
    "image projection": "img_emb",
    "audio projection": "audio_proj",
    "head": "head",
}
Tell = Callable[[str, object], None]
JOB = Job(ASSETS / "drawn_portrait.png", ASSETS / "speech.wav", "A person is talking to the camera.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 40])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    base = demo_settings(max_frame_num=FRAMES, dtype="fp32", vae_dtype="fp32")  # the VAE is not what is compared
    speech = speech_for_model(open_audio(JOB.speech))[:]
    reader, _ = load_reader(FACE_READER)
    results: dict[str, object] = {}

    def tell(name: str, value: object) -> None:
        results[name] = value
        print(f"{name:75} {value}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")

    def follows(seen: torch.Tensor) -> float:
        return round(evaluate_frames(seen.numpy(), speech, reader).correlation, 4)

    for steps in options.steps:
        settings = base.replace(sample_steps=steps, device=options.device)
        if options.device == "cuda":
            on_a_card(settings, tell, follows)
        else:
            on_a_cpu(settings, tell, follows, parts=steps == options.steps[0])


def frames(generator: Generator, settings: Settings) -> torch.Tensor:
    (window,) = generator.windows(JOB, settings)
    return window.frames


def on_a_cpu(settings: Settings, tell: Tell, follows: Callable[[torch.Tensor], float], parts: bool) -> None:
    steps, generator = settings.sample_steps, Generator(settings)
    whole = frames(generator, settings)
    model, matmuls = generator.models.transformer, choose_matmuls("off", torch.device("cpu"), torch.float32)
    tell(f"{steps} steps, float32: mouth and speech, r", follows(whole))
    groups = {group: pattern for group, pattern in GROUPS.items() if group not in ("all", "the last block")}
    for quant in ("fp8", "int8"):
        with Quantised(model, quant, matmuls):
            seen = frames(generator, settings)
        tell(f"{steps} steps, {quant}: frames (dB)", psnr(in_floats(seen), in_floats(whole)))
        tell(f"{steps} steps, {quant}: mouth and speech, r", follows(seen))
        if not parts:
            continue
        kept = {group: Quantised(model, quant, matmuls, pattern) for group, pattern in groups.items()}
        kept |= {group: Rounded(model, quant, start) for group, start in OUTSIDE.items()}
        for group, part in kept.items():
            with part:
                seen = frames(generator, settings)
            tell(f"{steps} steps, {quant}, {group}: frames (dB)", psnr(in_floats(seen), in_floats(whole)))


def on_a_card(settings: Settings, tell: Tell, follows: Callable[[torch.Tensor], float]) -> None:
    steps, dtype = settings.sample_steps, torch.bfloat16
    whole = frames(Generator(settings), settings)
    tell(f"{steps} steps, float32: mouth and speech, r", follows(whole))
    settings = settings.replace(dtype="bf16")
    generator = Generator(settings)
    half = frames(generator, settings)
    model = generator.models.transformer
    device, usual = model.device, model.operations

    def tried(name: str, quant: str | None, matmuls: str, attention: str | None) -> None:
        try:
            attend = usual.attend if attention is None else choose_attention(attention, device, dtype)
            ways = choose_matmuls(matmuls, device, dtype)
            model.operations = replace(usual, attend=attend)
            with nullcontext() if quant is None else Quantised(model, quant, ways):
                seen = frames(generator, settings)
        except Exception as error:  # what one card cannot do must not hide the rest
            tell(f"{steps} steps, {name}", f"{type(error).__name__}: {error}"[:300])
            return
        finally:
            model.operations = usual
        tell(f"{steps} steps, {name}: frames against float32 (dB)", psnr(in_floats(seen), in_floats(whole)))
        tell(f"{steps} steps, {name}: frames against bf16 (dB)", psnr(in_floats(seen), in_floats(half)))
        tell(f"{steps} steps, {name}: mouth and speech, r", follows(seen))

    tried(f"bf16, attention by {usual.attend.name}", None, "off", None)
    tried("bf16, attention by cudnn_fp8", None, "off", "cudnn_fp8")
    where_it_rounds(generator, settings, tell, half)
    for quant in ("fp8", "int8"):
        tried(f"{quant}, weights only", quant, "off", None)
        tried(f"{quant} products", quant, "on", None)
        tried(f"{quant} products, attention by cudnn_fp8", quant, "on", "cudnn_fp8")


class Partly:
    """Attention by ``inside`` in some blocks of some steps of a run of one pass a step, by ``usual`` elsewhere."""

    def __init__(self, usual: Attention, inside: Attention, total: int, blocks: set[int], steps: set[int]) -> None:
        self._usual, self._inside, self._total, self._blocks, self._steps = usual, inside, total, blocks, steps
        self._calls = count()

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.shape != k.shape:  # cross-attention
            return self._usual(q, k, v)
        step, block = divmod(next(self._calls), self._total)
        return (self._inside if step in self._steps and block in self._blocks else self._usual)(q, k, v)


def where_it_rounds(generator: Generator, settings: Settings, tell: Tell, half: torch.Tensor) -> None:
    """8-bit attention in some blocks or steps, against none."""
    model, steps = generator.models.transformer, settings.sample_steps
    usual, total = model.operations, len(model.blocks)
    try:
        eight_bit = choose_attention("cudnn_fp8", model.device, torch.bfloat16)
    except InputError as error:
        tell(f"{steps} steps, attention by cudnn_fp8 in parts", str(error))
        return
    blocks, all_steps = set(range(total)), set(range(steps))
    parts = {f"block {n} alone": ({n}, all_steps) for n in sorted(blocks)}
    parts |= {f"all blocks but {n}": (blocks - {n}, all_steps) for n in sorted(blocks)}
    parts |= {f"step {n} alone": (blocks, {n}) for n in (0, 1, steps // 2, steps - 1)}
    parts["the first half of the steps"] = blocks, {n for n in all_steps if n < steps // 2}
    parts["the second half of the steps"] = blocks, {n for n in all_steps if n >= steps // 2}
    for part, where in parts.items():
        attend = Attention("mixed", part, Partly(usual.attend, eight_bit, total, *where))
        model.operations = replace(usual, attend=attend)
        found = psnr(in_floats(frames(generator, settings)), in_floats(half))
        tell(f"{steps} steps, cudnn_fp8 in {part}: frames against bf16 (dB)", found)
    model.operations = usual


class Rounded:
    """The matrices of some layers outside the blocks rounded to 8 bits, for the length of a with statement."""

    def __init__(self, model: torch.nn.Module, quant: str, start: str) -> None:
        self.pack = partial(pack, QUANTISERS[quant])
        found = [weight for name, weight in model.named_parameters() if name.startswith(start)]
        self.weights = [weight for weight in found if weight.ndim > 1 and len(weight) > 1]
        self.before = [weight.data for weight in self.weights]

    def __enter__(self) -> None:
        for weight in self.weights:
            weight.data = self.pack(weight.data.flatten(1)).unpacked().view_as(weight).to(weight.dtype)

    def __exit__(self, *_: object) -> None:
        for weight, before in zip(self.weights, self.before, strict=True):
            weight.data = before


def in_floats(frames: torch.Tensor) -> torch.Tensor:
    return frames.float() / 127.5 - 1


if __name__ == "__main__":
    main()
