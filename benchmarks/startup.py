"""How long commands that only tell something take from the shell: seconds of a whole process, the best of three.

python -m infinitetalk.benchmarks.startup
"""

from __future__ import annotations

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


def main() -> None:
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
