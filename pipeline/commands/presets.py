"""``infinitetalk presets``: the presets in a table."""

from __future__ import annotations

import argparse
import unicodedata
from pathlib import Path

from ..settings.flags import Parser
from ..settings.presets import Preset, load_preset, preset_names
from .console import say


def parser() -> Parser:
    """The flags of the command: none."""
    return Parser("infinitetalk presets", "", "The presets with their main settings, and what they promise.")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    say(presets_table())
    return 0


def presets_table() -> str:
    """All presets with their main settings, and what they promise."""
    head = ("preset", "steps", "text/audio", "LoRA", "weights", "size", "memory", "speed", "ours", "for")
    rows = [head, *(_row(load_preset(name)) for name in preset_names())]
    widths = [max(_width(row[column]) for row in rows) for column in range(len(head) - 1)]
    lines = [
        "  ".join([*(text + " " * (wide - _width(text)) for text, wide in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    foot = (
        "text/audio: guidance scales. memory: the peak that a preset is meant for. speed: against 40 steps with three\n"
        "passes, as the guide says for its RTX 4090; ours: the same, this engine on an H200 against upstream's code\n"
        "(docs/performance.md).\n"
        "--preset NAME takes one; flags beside it win. infinitetalk recommend chooses one."
    )
    return "\n".join([*lines, "", foot])


def _row(preset: Preset) -> tuple[str, ...]:
    s, about = preset.as_settings(), preset.about
    loras = zip(s.lora_dir, s.lora_scale, strict=True) if s.lora_dir else ()
    return (
        preset.name,
        f"{s.sample_steps} {s.sample_solver}",
        f"{s.sample_text_guide_scale:g} / {s.sample_audio_guide_scale:g}",
        ", ".join(f"{_short(name)} {scale:g}" for name, scale in loras) or "-",
        s.quant or "bf16",
        s.size.removeprefix("infinitetalk-"),
        f"{about.peak_vram_gb} GB",
        _times(about.speedup),
        _times(about.measured_speedup),
        f"{about.title_en} / {about.title_zh}",
    )


def _times(speed: float | None) -> str:
    return "-" if speed is None else f"{speed:g}x"


def _short(lora: Path) -> str:
    """A LoRA's name without what every file's name has: lightx2v, FusionX."""
    common = {"wan2.1", "wan21", "i2v", "14b", "480p", "lora", "cfg", "step", "distill", "rank128", "bf16"}
    return "_".join(word for word in lora.stem.split("_") if word.lower() not in common) or lora.stem


def _width(text: str) -> int:
    """Columns on a screen; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
