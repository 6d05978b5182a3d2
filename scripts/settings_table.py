"""Writes docs/settings.md and settings.zh-CN.md, tables of all settings and presets, from ``Settings`` and presets/.

``python -m infinitetalk.scripts.settings_table`` rewrites them; a test fails where one is out of date. Chinese comes
from pages_zh.toml, and for settings that are not there from the text of their widget in node_texts_zh.toml.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pipeline.settings.definition import NEGATIVE_PROMPT, PROMPT, Settings, setting_infos, setting_types
from ..pipeline.settings.flags import describe_setting, value_to_text
from ..pipeline.settings.presets import Preset, load_preset, preset_names
from ..pipeline.settings.roles import (
    CONTENT,
    EFFECTS,
    FRAMES,
    JOB,
    LATER,
    MACHINE,
    MODELS,
    NEUTRAL,
    OWNERS,
    RUN,
    UNREAD,
    VIDEO,
    SettingInfo,
    SettingType,
    Value,
)

DOCS = Path(__file__).parent.parent / "docs"
FILE, CHINESE_FILE = DOCS / "settings.md", DOCS / "settings.zh-CN.md"
CHINESE = Path(__file__).parent / "pages_zh.toml"
HELPS = Path(__file__).parent.parent / "pipeline" / "facts" / "chinese.toml"  # what --help says
WIDGETS = Path(__file__).parent / "node_texts_zh.toml"

HEAD = """\
# Settings

[中文](settings.zh-CN.md)

Every setting is a flag of the command line and a field of `Settings` under the same name. This page is made
from the code by `python -m infinitetalk.scripts.settings_table`.

Rules for the command line:

- Given flags win over `--preset`, the preset over the config, the config over the defaults. `--preset` also takes a
  file of yours like those in `presets/` (`--preset mine.toml`); its values are recorded, not its name.
- `infinitetalk.toml` in the working folder, else in the user's folder of configs (`~/.config/infinitetalk/`,
  `%APPDATA%\\infinitetalk\\`), or `--config FILE`: `[settings]` with `ckpt_dir`, `infinitetalk_dir`, `wav2vec_dir` and
  what never changes a frame, `[presets.NAME]` with anything. `infinitetalk doctor` tells which counts.
- Switches (true/false) take an optional value: `--t5_cpu`, `--t5_cpu true` and `--t5_cpu false` all work.
- The word `none` undoes what a preset sets, where none is a value: `--lora_dir none`. (A file of that name is
  `./none`.)
- `--image`, `--video`, `--audio`, `--prompt` and `--negative_prompt` win over the JSON file. It is read for what they
  leave open, and whenever `--input_json` names another file than the default. Without one, a picture and a sound are
  enough; the prompt is then "{prompt}".
- `--ckpt_dir`, `--infinitetalk_dir` and `--wav2vec_dir` may be left out where the models lie as `infinitetalk download`
  puts them: under `weights/` of the current folder, or else of the clone.
- Relative paths inside the JSON file are looked up in the current folder, then in the JSON file's folder, then in the
  folder above that.
- Two defaults differ from upstream's, which cut a video without a word: `mode` (upstream: clip) and `max_frame_num`
  (upstream: 1000). `input_json`, `audio_save_dir` and the other names and defaults are upstream's where upstream has
  the flag.
- What is not available yet is refused with a sentence, never accepted and ignored.

The last column is what follows from a setting's roles. Whose it is: of the *job* (what one video is made from), of the
*models* (fixed while they are loaded), of the *video* (may change from one to the next), of the *run* alone (no video
carries it). And what of it an unfinished run must have in common with the one that goes on: its *value*, the *content*
of the file that it names, what this *machine* chose by it, or *nothing*, since it changes no frame.

The negative prompt, where none is given:

> {negative_prompt}
"""

PRESETS_HEAD = """
## Presets

`--preset NAME` takes these settings from `presets/NAME.toml`. LoRA and quantised files are named as they lie under the
weights folder, which is the one that `--ckpt_dir` lies in, or `weights`. `peak_vram_gb` and `speedup` (against 40 steps
of three passes) are what the presets were published with, for an RTX 4090; `measured_speedup` is this engine's on an
H200, against upstream's code ([how](performance.md)). `demo`, which is not in the table, takes
the small model, the portrait and the speech that come with the program.
"""


@dataclass(frozen=True)
class Language:
    """What a page is written with.

    Attributes:
        head, presets: what is written by hand, above the settings and above the presets.
        group, word: of an English name of a group, or a word.
        line: of a setting's name, what is known of it, and its default: what it does.
    """

    head: str
    presets: str
    group: Callable[[str], str]
    word: Callable[[str], str]
    line: Callable[[str, SettingInfo, Value], str]


def english() -> Language:
    return Language(HEAD, PRESETS_HEAD, str, str, lambda _, info, default: describe_setting(info, default))


def chinese() -> Language:
    """The texts of pages_zh.toml.

    Raises:
        KeyError: while a page is written: a text is missing.
    """
    texts = chinese_texts()
    widgets = tomllib.loads(WIDGETS.read_text(encoding="utf-8"))["slots"]
    words = texts["words"]

    def line(name: str, info: SettingInfo, default: Value) -> str:
        said = _help(name, texts["settings"], widgets)
        if default is not None and default is not False:
            said += f"（{words['default']}：{value_to_text(default)}）"
        return said + ("" if info.landed else f"（{words['landed']}）")

    def word(english: str) -> str:
        return words[english]

    def group(english: str) -> str:
        return texts["groups"][english]

    return Language(texts["page"]["head"].lstrip(), texts["page"]["presets"], group, word, line)


def with_chinese_helps() -> str:
    """The engine's chinese.toml, with what every setting does."""
    said, widgets = chinese_texts()["settings"], tomllib.loads(WIDGETS.read_text(encoding="utf-8"))["slots"]
    lines = [f"{name} = {json.dumps(_help(name, said, widgets), ensure_ascii=False)}\n" for name in setting_infos()]
    head, mark, _ = HELPS.read_text(encoding="utf-8").partition("[settings]\n")
    return head + mark + "".join(lines)


def _help(name: str, said: Mapping[str, str], widgets: Mapping[str, list[str]]) -> str:
    return said.get(name) or widgets[name][1].rstrip("。")


def chinese_texts() -> dict[str, Any]:
    """pages_zh.toml."""
    return tomllib.loads(CHINESE.read_text(encoding="utf-8"))


def settings_page(language: Language) -> str:
    """The whole page, as Markdown."""
    parts = [language.head.format(negative_prompt=NEGATIVE_PROMPT, prompt=PROMPT)]
    head = " | ".join(map(language.word, ("flag", "values", "what it does", "role")))
    group = None
    for name, info in setting_infos().items():
        if info.group != group:
            group = info.group
            parts.append(f"\n## {language.group(group)}\n\n| {head} |\n|---|---|---|---|\n")
        values = _values(info, setting_types()[name], language.word)
        said = language.line(name, info, getattr(Settings, name))
        parts.append(f"| `--{name}` | {values} | {said} | {_role(info, language.word)} |\n")
    return "".join(parts) + language.presets + _presets_table()


_OWNERS = {JOB: "job", MODELS: "models", VIDEO: "video", RUN: "run", LATER: "not available yet", UNREAD: "not read"}
_EFFECTS = {FRAMES: "value", CONTENT: "content", MACHINE: "machine", NEUTRAL: "nothing"}


def _role(info: SettingInfo, word: Callable[[str], str]) -> str:
    """Whose the setting is, and what of it resuming compares."""
    said = _OWNERS[info.roles & OWNERS]
    return word(said) if info.roles & (LATER | UNREAD) else f"{word(said)}, {word(_EFFECTS[info.roles & EFFECTS])}"


def _values(info: SettingInfo, expected: SettingType, word: Callable[[str], str]) -> str:
    if info.choices:
        return ", ".join(f"`{choice}`" for choice in info.choices)
    if expected.kind is bool:
        return "true, false"
    text = word({int: "whole number", float: "number", str: "text", Path: "path"}[expected.kind])
    if info.min is not None and info.max is not None:
        text += ", " + word("{min:g} to {max:g}").format(min=info.min, max=info.max)
    elif info.min is not None:
        text += ", " + word("from {min:g}").format(min=info.min)
    elif info.max is not None:
        text += ", " + word("up to {max}").format(max=info.max)
    return text + (f", {word('one or more')}" if expected.several else "")


def _presets_table() -> str:
    presets = [load_preset(name) for name in preset_names()]
    rows = {"": [preset.name for preset in presets]}
    for tables in zip(*map(_tables, presets), strict=True):
        for key in dict.fromkeys(key for table in tables for key in table):
            rows[key] = [_cell(table.get(key)) for table in tables]
    lines = [f"| {' | '.join([key, *cells])} |" for key, cells in rows.items()]
    lines.insert(1, "|---" * (len(presets) + 1) + "|")
    return "\n" + "\n".join(lines) + "\n"


def _tables(preset: Preset) -> tuple[Mapping[str, Value], ...]:
    return dataclasses.asdict(preset.about), preset.weights, preset.settings


def _cell(value: Value) -> str:
    return "" if value is None else value_to_text(value)


if __name__ == "__main__":
    FILE.write_text(settings_page(english()), encoding="utf-8", newline="\n")
    CHINESE_FILE.write_text(settings_page(chinese()), encoding="utf-8", newline="\n")
    HELPS.write_text(with_chinese_helps(), encoding="utf-8", newline="\n")
