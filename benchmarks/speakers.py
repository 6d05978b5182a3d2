"""One forward of the real model with one voice and with two, in turns in one process on one CUDA card.

    python -m infinitetalk.benchmarks.speakers [--size 640x640] [--quant fp8] [--upstream CLONE]

Two voices that the model binds to two faces (each half of the picture), and one voice that is heard in one half alone.
Random weights cost what trained ones do. With a clone of MeiGen-AI/InfiniteTalk its own forwards in the same run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from ..pipeline.models.transformer.blocks import TransformerBlocks
from ..pipeline.models.transformer.model import Context
from ..pipeline.models.transformer.speakers import Placed, Speech, bound
from .real_size import CUDA, REAL, inputs, measure_upstream, real_transformer, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x640", help="WIDTHxHEIGHT")
    parser.add_argument("--turns", type=int, default=5, help="timed forwards of each")
    parser.add_argument("--quant", choices=("fp8", "int8"), help="bf16 if left out")
    parser.add_argument("--upstream", type=Path, help="a clone of MeiGen-AI/InfiniteTalk")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with torch.no_grad():
        works = forwards(height, width, options.quant)
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(options.turns):
            for name, work in works.items():
                times[name].append(seconds(work, 1))
    print(f"{torch.cuda.get_device_name()}, {options.size}, 81 frames, {options.quant or 'bf16'}, one pass")
    first = statistics.median(next(iter(times.values())))
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:24} {median:.4f} s, {median / first:.4f}  ({', '.join(f'{one:.4f}' for one in taken)})")
    if options.upstream:
        works.clear()
        torch.cuda.empty_cache()
        for voices in (1, 2):
            for name, value in measure_upstream(options.upstream, height, width, voices).items():
                print(f"{name}, {voices} voices: {value:.4f}")


def forwards(height: int, width: int, quant: str | None) -> dict[str, Callable[[], object]]:
    """One pass for each kind of speech."""
    blocks = TransformerBlocks(CUDA, resident=REAL.num_layers)
    model = real_transformer(blocks, quant)
    data = inputs(height, width)
    keys = model.encode_text(data["text"], blocks.text), model.encode_image(data["image"], blocks.image)
    voice = model.embed_speech(data["audio"])
    halves = torch.zeros(3, height // 16, width // 16, device=CUDA)
    halves[0, :, : width // 32] = halves[1, :, width // 32 :] = 1
    halves[2, 0] = 1  # nobody's
    halves[:2, 0] = 0
    masks = halves.flatten(1)
    speeches: dict[str, Speech] = {
        "one voice": voice,
        "two voices, two faces": bound([voice, voice.flip(0)], masks),
        "one voice in a half": Placed(
            torch.stack([voice, torch.zeros_like(voice)]), torch.stack([masks[0], 1 - masks[0]])
        ),
    }

    def forward(speech: Speech) -> Callable[[], object]:
        contexts = [Context(*keys, speech)]
        return lambda: model(data["latents"], data["reference"], 500.0, contexts, blocks)

    return {name: forward(speech) for name, speech in speeches.items()}


if __name__ == "__main__":
    main()
