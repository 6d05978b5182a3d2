"""The presets: settings by name, as data in presets/*.toml.

A file has three tables. ``[settings]`` gives values of ``Settings``; ``lora_dir`` and ``quant_dir`` are
names to be looked up under the weights folder. ``[weights]`` names the models that the preset was
made for, under the same folder. ``[about]`` has titles and what the preset promises. Knows nothing of flags.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .definition import Settings

FOLDER = Path(__file__).parents[2] / "presets"


@dataclass(frozen=True)
class Preset:
    """A preset's name and its file's three tables."""

    name: str
    settings: dict[str, object]
    weights: dict[str, str]
    about: dict[str, object]


def preset_names() -> tuple[str, ...]:
    """The names of all presets, in order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        InputError: there is none; lists those there are.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"--preset: {name!r} found. {hint}There are {', '.join(names)}.")
    with (FOLDER / f"{name}.toml").open("rb") as file:
        return Preset(name=name, **tomllib.load(file))


def settings_with_preset(name: str, **given: object) -> Settings:
    """The settings of a preset; those in ``given`` win.

    A preset's ``lora_scale`` belongs to its ``lora_dir``, and its ``quant_dir`` to its ``quant``: where the
    one is set to None, the other goes too. Of the two ways to say what stays on the card, the given one counts.

    Raises:
        InputError: there is no such preset.
    """
    values = {**load_preset(name).settings, **given, "preset": name}
    for owner, follower in (("lora_dir", "lora_scale"), ("quant", "quant_dir")):
        if values.get(owner) is None and follower not in given:
            values.pop(follower, None)
    ways = "blocks_to_swap", "num_persistent_param_in_dit"
    for way, other in (ways, ways[::-1]):
        if given.get(way) is not None and other not in given:
            values.pop(other, None)
    return Settings(**values)
