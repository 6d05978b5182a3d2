"""One forward of the real model in several ways, in turns in one process on one CUDA card.

    python -m infinitetalk.benchmarks.turns --other CHECKOUT [--size 640x640] [--turns 5] [--quant fp8]
    python -m infinitetalk.benchmarks.turns --attention cudnn flash3 flash3_fp8

By this checkout and by another, or by this one with several attention backends. Cards of one kind differ by some
percent and warm up, so only turns compare. Random weights cost what trained ones do. Prints the seconds of every
turn, the medians, and their ratios to the first.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

THIS = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="folder of another checkout, of whatever version")
    parser.add_argument("--attention", nargs="+", default=["auto"], help="backends to compare")
    parser.add_argument("--size", default="640x640", help="WIDTHxHEIGHT")
    parser.add_argument("--turns", type=int, default=5, help="timed forwards of each")
    parser.add_argument("--quant", choices=("fp8", "int8"), help="bf16 if left out")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    works: dict[str, Callable[[], object]] = {}
    if options.other:
        works |= forwards("other", options.other, ["auto"], height, width, options.quant)
    works |= forwards("this", THIS, options.attention, height, width, options.quant)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.turns):
        for name, work in works.items():
            times[name].append(seconds(work))
    print(f"{torch.cuda.get_device_name()}, {options.size}, 81 frames, {options.quant or 'bf16'}, one pass")
    first = statistics.median(next(iter(times.values())))
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:20} {median:.4f} s, {median / first:.4f}  ({', '.join(f'{one:.4f}' for one in taken)})")


def register(name: str, folder: Path) -> str:
    """Make a checkout importable under a name of its own, as ComfyUI does (all its imports are relative)."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder.resolve())]
    )
    if spec is None or spec.loader is None:
        sys.exit(f"{folder} is no checkout: it has no __init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return name


@torch.no_grad()
def forwards(
    name: str, folder: Path, attentions: list[str], height: int, width: int, quant: str | None
) -> dict[str, Callable[[], object]]:
    """A forward of one pass by the checkout's own benchmark, with each attention."""
    bench = importlib.import_module(f"{register(f'infinitetalk_{name}', folder)}.benchmarks.real_size")
    blocks = bench.TransformerBlocks(bench.CUDA, resident=bench.REAL.num_layers)
    model = bench.real_transformer(blocks, quant)
    data = bench.inputs(height, width)
    keys = model.encode_text(data["text"], blocks.text), model.encode_image(data["image"], blocks.image)
    contexts = [bench.Context(*keys, model.embed_speech(data["audio"]))]
    found = {}
    for attention in attentions:
        operations = bench.operations(attention, "auto")

        @torch.no_grad()
        def work(operations: object = operations) -> object:
            model.operations = operations
            return model(data["latents"], data["reference"], 500.0, contexts, blocks)

        work()
        found[f"{name} {operations.attend.name}"] = work
    return found


def seconds(work: Callable[[], object]) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1000


if __name__ == "__main__":
    main()
