"""The small model that comes with the program: drawn faces that talk, without a download.

It is what ``make demo`` and the loader's "demo (bundled)" use; its card is ``assets/demo_model/README.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets"
FOLDER = ASSETS / "demo_model"
FACE_READER = FOLDER / "face_reader.safetensors"  # what ``infinitetalk evaluate`` reads frames with


@dataclass(frozen=True)
class DemoCheckpoint:
    """Values of the settings of these names."""

    ckpt_dir: Path = FOLDER / "Wan2.1-I2V-14B-480P"
    infinitetalk_dir: Path = FOLDER / "InfiniteTalk" / "single" / "infinitetalk.safetensors"
    wav2vec_dir: Path = FOLDER / "chinese-wav2vec2-base"


def demo_checkpoint() -> DemoCheckpoint:
    """Where the bundled model lies."""
    return DemoCheckpoint()
