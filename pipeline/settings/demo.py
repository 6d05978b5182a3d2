"""The small model that comes with the program: drawn faces that talk, without a download.

It is what ``make demo`` and the loader's "demo (bundled)" use; its card is ``assets/demo_model/README.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .definition import Settings

ASSETS = Path(__file__).parents[2] / "assets"
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


def demo_settings(**changes: object) -> Settings:
    """The bundled model as it is meant to be used: 192x192, 4 steps, no guidance, even seams; ``changes`` win."""
    usual = {
        **vars(demo_checkpoint()),
        **{"size": "192x192", "sample_steps": 4, "sample_shift": 5.0},
        **{"sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 1.0, "seam_frames": 4},
    }
    return Settings(**{**usual, **changes})
