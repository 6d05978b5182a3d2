"""How long commands that only tell something take from the shell: seconds of a whole process, the best of three.

python -m infinitetalk.benchmarks.startup
python -m infinitetalk.benchmarks.startup --other CHECKOUT    # processor seconds of imports in both, in turns
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..pipeline.settings.demo import ASSETS, FACE_READER

GRAPH = ASSETS.parent / "workflows" / "infinitetalk_demo.json"
COMMANDS = (
    ["--help"],
    ["generate", "--help"],
    ["presets"],
    ["recommend", "--vram", "12"],
    ["info", "VIDEO"],
    ["inspect", str(FACE_READER)],
    ["export", str(GRAPH)],
    ["doctor", "--quick"],
    ["generate", "--preset", "demo", "--ckpt_dir", "nowhere"],
)
IMPORTS = {  # by what needs them
    "the pack in ComfyUI": "import infinitetalk",
    "the engine": "import infinitetalk.pipeline",
    "a run": "from infinitetalk.pipeline import Generator",
}
TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout, whose imports are timed in turns with this one's")
    other = parser.parse_args().other
    commands() if other is None else imports(other)


def imports(other: Path) -> None:
    """Print a line for each import: the medians of both checkouts."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {"this": ASSETS.parent, "other": other.resolve()}
        for name, checkout in paths.items():
            Path(folder, name).mkdir()
            Path(folder, name, "infinitetalk").symlink_to(checkout, target_is_directory=True)
        for what, code in IMPORTS.items():
            taken: dict[str, list[float]] = {name: [] for name in paths}
            for _ in range(TURNS):
                for name in paths:
                    taken[name].append(_processor_seconds(code, Path(folder, name)))
            told = ", ".join(f"{name} {statistics.median(each):.2f} s" for name, each in taken.items())
            print(f"{what:<25}{told}", flush=True)


def _processor_seconds(code: str, path: Path) -> float:
    before = os.times()
    environment = {**os.environ, "PYTHONPATH": str(path)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=path, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def commands() -> None:
    """Print a line for each command."""
    with tempfile.TemporaryDirectory() as folder:
        video = str(Path(folder, "demo.mp4"))
        _seconds(["generate", "--preset", "demo", "--max_frame_num", "17", "--quiet", "--save_file", video])
        for argv in COMMANDS:
            words = [video if word == "VIDEO" else word for word in argv]
            shown = " ".join(Path(word).name for word in argv)
            print(f"infinitetalk {shown:<55}{min(_seconds(words) for _ in range(3)):.2f} s")


def _seconds(argv: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "infinitetalk", *argv], capture_output=True, check=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
