"""Recompute tests/data from a clone of MeiGen-AI/InfiniteTalk.

python -m infinitetalk.tests.golden --upstream PATH [component ...]

A component is a module of this package with ``make(upstream, out)``; all of them run by default.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch

OTHERS = ("voice", "colour_transfer", "resize")  # of other packs and packages, made on request
COMPONENTS = ("transformer", "sampling", "streaming", "speakers", "vae", "speech", "encoders", "media", "quanto")
FOLDER = Path(__file__).parent


def main() -> None:
    available = [name for name in COMPONENTS if (FOLDER / f"{name}.py").is_file()]
    parser = argparse.ArgumentParser(prog="python -m infinitetalk.tests.golden", description=__doc__.splitlines()[0])
    parser.add_argument("components", nargs="*", metavar="component", help=f"of {', '.join(available)}; default all")
    parser.add_argument(
        "--upstream",
        type=Path,
        required=True,
        help="a clone of MeiGen-AI/InfiniteTalk, or of the pack that a component is of",
    )
    parser.add_argument("--out", type=Path, default=FOLDER.parents[1] / "tests" / "data", help="default: tests/data")
    arguments = parser.parse_args()
    for name in arguments.components:
        if name not in (*available, *OTHERS):
            parser.error(f"there is no component {name}, only {', '.join(available)}")
    torch.set_num_threads(1)  # the order of sums, and with it the last bits, depends on the number of threads
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.components or available:
        importlib.import_module(f".{name}", __package__).make(arguments.upstream, arguments.out)


if __name__ == "__main__":
    main()
