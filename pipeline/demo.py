"""The small checkpoint that comes without a download: where it lies, and making it where it is missing.

It is what ``make demo`` uses: random weights in the real layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".demo" / "weights"


@dataclass(frozen=True)
class DemoCheckpoint:
    """Values of the settings of these names."""

    ckpt_dir: Path = FOLDER / "Wan2.1-I2V-14B-480P"
    infinitetalk_dir: Path = FOLDER / "InfiniteTalk" / "single" / "infinitetalk.safetensors"
    wav2vec_dir: Path = FOLDER / "chinese-wav2vec2-base"


def demo_checkpoint() -> DemoCheckpoint:
    """The checkpoint; it is written first if it is not there (some megabytes, about a second)."""
    complete = FOLDER / "complete"
    if not complete.exists():
        from ..tools.random_checkpoint import write

        write(FOLDER)
        complete.touch()
    return DemoCheckpoint()
