"""One forward of the real model by this checkout and by another, in turns in one process on one CUDA card.

    python -m infinitetalk.benchmarks.turns OTHER_CHECKOUT [--size 640x640] [--turns 5] [--quant fp8]

Cards of one kind differ by some percent and warm up, so only turns compare two commits. Random weights cost what
trained ones do. Prints the seconds of every turn, both medians and their ratio.
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
NAMES = {"other": "infinitetalk_other", "this": "infinitetalk_this"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of another checkout, of whatever version")
    parser.add_argument("--size", default="640x640", help="WIDTHxHEIGHT")
    parser.add_argument("--turns", type=int, default=5, help="timed forwards of each")
    parser.add_argument("--quant", choices=("fp8", "int8"), help="bf16 if left out")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    works = {
        name: forward(register(NAMES[name], folder), height, width, options.quant)
        for name, folder in (("other", options.other), ("this", THIS))
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.turns):
        for name, work in works.items():
            times[name].append(seconds(work))
    for name, taken in times.items():
        print(f"{name:6} {statistics.median(taken):.4f} s  ({', '.join(f'{one:.4f}' for one in taken)})")
    ratio = statistics.median(times["this"]) / statistics.median(times["other"])
    print(f"{torch.cuda.get_device_name()}, {options.size}, {options.quant or 'bf16'}: this / other {ratio:.4f}")


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
def forward(package: str, height: int, width: int, quant: str | None) -> Callable[[], object]:
    """A forward of one pass, by the checkout's own benchmark."""
    bench = importlib.import_module(f"{package}.benchmarks.real_size")
    blocks = bench.TransformerBlocks(bench.CUDA, resident=bench.REAL.num_layers)
    model = bench.real_transformer(blocks, quant)
    data = bench.inputs(height, width)
    keys = model.encode_text(data["text"], blocks.text), model.encode_image(data["image"], blocks.image)
    contexts = [bench.Context(*keys, model.embed_speech(data["audio"]))]

    def work() -> object:
        with torch.no_grad():
            return model(data["latents"], data["reference"], 500.0, contexts, blocks)

    work()
    return work


def seconds(work: Callable[[], object]) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1000


if __name__ == "__main__":
    main()
