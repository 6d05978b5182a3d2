"""The presets: settings by name, as data in presets/*.toml.

A file has up to four tables. ``[settings]`` gives values of ``Settings``; ``lora_dir`` and ``quant_dir`` are names to
be looked up under the weights folder. ``[weights]`` names the models that the preset was made for, under the same
folder; ``[bundled]`` gives files that come with the program, under assets/. ``[about]`` has titles and what the
preset promises. Knows nothing of flags.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..facts.downloads import Part, needed
from .definition import Settings, names_with
from .roles import JOB, Values

FOLDER = Path(__file__).parents[2] / "presets"
ASSETS = Path(__file__).parents[2] / "assets"
DEMO = "demo"


@dataclass(frozen=True)
class About:
    """What a preset is called and what it promises.

    Attributes:
        output_name: of the video in its script.
        peak_vram_gb: memory of the card that it is meant for; 0 where it promises nothing.
        speedup: against 40 steps with three passes, as the guide says for its card.
        measured_speedup: the same of this engine on an H200 (docs/performance.md).
    """

    title_en: str
    title_zh: str
    output_name: str
    peak_vram_gb: float = 0
    speedup: float | None = None
    measured_speedup: float | None = None


@dataclass(frozen=True)
class Preset:
    """A preset's name and its file's tables."""

    name: str
    settings: Values
    about: About
    weights: dict[str, str] = field(default_factory=dict)
    bundled: dict[str, str | list[str]] = field(default_factory=dict)

    def as_settings(self) -> Settings:
        """Its settings alone; files are named as they are to be looked up."""
        return Settings.of(self.settings)

    def parts(self, comfy: bool = False) -> tuple[Part, ...]:
        """What is to be downloaded for it, for the command line or for ComfyUI; nothing where all comes with it."""
        if self.bundled:
            return ()
        s = self.as_settings()
        return needed(
            None if s.quant_dir is None else s.quant_dir.as_posix(),
            [lora.as_posix() for lora in s.lora_dir or ()],
            comfy,
        )

    def bundled_paths(self) -> dict[str, Path | tuple[Path, ...]]:
        """The files that come with the program, by setting."""
        return {
            name: tuple(ASSETS / single for single in file) if isinstance(file, list) else ASSETS / file
            for name, file in self.bundled.items()
        }


def preset_names() -> tuple[str, ...]:
    """The names of the presets for the real models, in order; ``DEMO`` is beside them, and nobody is to choose it."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != DEMO))


def load_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        InputError: there is none; lists those there are.
    """
    names = (*preset_names(), DEMO)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"--preset: {name!r} found. {hint}There are {', '.join(names)}.")
    with (FOLDER / f"{name}.toml").open("rb") as file:
        tables = tomllib.load(file)
    settings: Values = {
        key: tuple(value) if isinstance(value, list) else value for key, value in tables["settings"].items()
    }
    return Preset(name, settings, About(**tables["about"]), tables.get("weights", {}), tables.get("bundled", {}))


def settings_with_preset(name: str, **given: object) -> Settings:
    """The settings of a preset; those in ``given`` win.

    A preset's ``lora_scale`` belongs to its ``lora_dir``, and its ``quant_dir`` to its ``quant``: where the
    one is set to None, the other goes too. Of two ways to say what stays on the card or what is seen, the given one
    counts; a given ``input_json`` takes the place of the preset's picture, speech and prompt.

    Raises:
        InputError: there is no such preset.
    """
    preset = load_preset(name)
    usual: Values = {**preset.bundled_paths(), **preset.settings}
    if given.get("input_json") is not None:
        usual = {setting: value for setting, value in usual.items() if setting not in names_with(JOB)}
    values: dict[str, object] = {**usual, **given, "preset": name}
    for owner, follower in (("lora_dir", "lora_scale"), ("quant", "quant_dir")):
        if values.get(owner) is None and follower not in given:
            values.pop(follower, None)
    for ways in (("blocks_to_swap", "num_persistent_param_in_dit"), ("image", "video")):
        for way, other in (ways, ways[::-1]):
            if given.get(way) is not None and other not in given:
                values.pop(other, None)
    return Settings.of(values)
