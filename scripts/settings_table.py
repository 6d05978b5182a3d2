"""Writes docs/settings.md, the table of all settings and presets, from ``Settings`` and presets/.

``python -m infinitetalk.scripts.settings_table`` rewrites it; a test fails where it is out of date.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..pipeline.settings.definition import NEGATIVE_PROMPT, SettingInfo, Settings, SettingType, setting_types
from ..pipeline.settings.flags import describe_setting, value_to_text
from ..pipeline.settings.presets import load_preset, preset_names

FILE = Path(__file__).parent.parent / "docs" / "settings.md"

HEAD = """\
# Settings

Every setting is a flag of the command line and a field of `Settings` under the same name. This page is made
from the code by `python -m infinitetalk.scripts.settings_table`.

Rules for the command line:

- Given flags win over `--preset`, the preset wins over the defaults.
- Switches (true/false) take an optional value: `--t5_cpu`, `--t5_cpu true` and `--t5_cpu false` all work.
- The word `none` undoes what a preset sets, where none is a value: `--lora_dir none`. (A file of that name is
  `./none`.)
- `--image`, `--video`, `--audio`, `--prompt` and `--negative_prompt` win over the JSON file. It is read for what they
  leave open, and whenever `--input_json` names another file than the default.
- Relative paths inside the JSON file are looked up in the current folder, then in the JSON file's folder, then in the
  folder above that.
- Two defaults differ from upstream's, which cut a video without a word: `mode` (upstream: clip) and `max_frame_num`
  (upstream: 1000). `input_json`, `audio_save_dir` and the other names and defaults are upstream's where upstream has
  the flag.
- What is not available yet is refused with a sentence, never accepted and ignored.

The negative prompt, where none is given:

> {negative_prompt}
"""

PRESETS_HEAD = """
## Presets

`--preset NAME` takes these settings from `presets/NAME.toml`. LoRA and quantised files are named as they lie under the
weights folder, which is the one that `--ckpt_dir` lies in, or `weights`. `peak_vram_gb` and `speedup` (against 40 steps
of three passes) are what the presets were published with, not measurements.
"""


def settings_page() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD.format(negative_prompt=NEGATIVE_PROMPT)]
    group = None
    for field in dataclasses.fields(Settings):
        info = field.metadata["info"]
        if info.group != group:
            group = info.group
            parts.append(f"\n## {group}\n\n| flag | values | what it does |\n|---|---|---|\n")
        values = _values(info, setting_types()[field.name])
        parts.append(f"| `--{field.name}` | {values} | {describe_setting(info, field.default)} |\n")
    return "".join(parts) + PRESETS_HEAD + _presets_table()


def _values(info: SettingInfo, expected: SettingType) -> str:
    if info.choices:
        return ", ".join(f"`{choice}`" for choice in info.choices)
    text = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}[expected.kind]
    if info.min is not None and info.max is not None:
        text += f", {info.min:g} to {info.max:g}"
    elif info.min is not None:
        text += f", from {info.min:g}"
    elif info.max is not None:
        text += f", up to {info.max}"
    return text + (", one or more" if expected.several else "")


def _presets_table() -> str:
    presets = [load_preset(name) for name in preset_names()]
    rows = {"": [preset.name for preset in presets]}
    for table in ("about", "weights", "settings"):
        for key in dict.fromkeys(key for preset in presets for key in getattr(preset, table)):
            rows[key] = [_cell(getattr(preset, table).get(key)) for preset in presets]
    lines = [f"| {' | '.join([key, *cells])} |" for key, cells in rows.items()]
    lines.insert(1, "|---" * (len(presets) + 1) + "|")
    return "\n" + "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, list):
        value = tuple(value)
    return "" if value is None else value_to_text(value)


if __name__ == "__main__":
    FILE.write_text(settings_page(), encoding="utf-8", newline="\n")
