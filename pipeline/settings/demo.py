"""The small model that comes with the program: drawn faces that talk, without a download.

It is what ``--preset demo`` and the loader's "demo (bundled)" use; its card is ``assets/demo_model/README.md``. Its
files and settings are data, in presets/demo.toml.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from .definition import Settings
from .presets import ASSETS, DEMO, load_preset, settings_with_preset
from .roles import Value

FOLDER = ASSETS / "demo_model"
FACE_READER = FOLDER / "face_reader.safetensors"  # what ``infinitetalk evaluate`` reads frames with


@dataclass(frozen=True)
class DemoCheckpoint:
    """Values of the settings of these names."""

    ckpt_dir: Path
    infinitetalk_dir: Path
    wav2vec_dir: Path


def demo_checkpoint() -> DemoCheckpoint:
    """Where the bundled model lies."""
    files = load_preset(DEMO).bundled_paths()
    return DemoCheckpoint(*(Path(str(files[field.name])) for field in fields(DemoCheckpoint)))


def demo_settings(**changes: Value) -> Settings:
    """The bundled model without its LoRA and with no job, 192x192, 4 steps, even seams; ``changes`` win."""
    without = settings_with_preset(DEMO, lora_dir=None, image=None, audio=None, prompt=None)
    return without.replace(preset=None).replace(**changes)
