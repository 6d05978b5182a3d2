"""The presets: settings by name, as data in presets/*.toml.

A file has up to four tables. ``[settings]`` gives values of ``Settings``; ``lora_dir`` and ``quant_dir`` are names to
be looked up under the weights folder. ``[weights]`` names the models that the preset was made for, under the same
folder; ``[bundled]`` gives files that come with the program, under assets/. ``[about]`` has titles and what the
preset promises. Knows nothing of flags.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, in_short
from ..facts.downloads import needed
from ..facts.published import Part
from .definition import Settings, names_with, setting_types
from .roles import JOB, Values

FOLDER = Path(__file__).parents[2] / "presets"
ASSETS = Path(__file__).parents[2] / "assets"
DEMO = "demo"
_FOLLOWERS = ("lora_dir", "lora_scale"), ("quant", "quant_dir")  # the second is of the first
_WAYS = ("blocks_to_swap", "num_persistent_param_in_dit"), ("image", "video")  # to say the same


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
    if name.endswith(".toml"):
        return _own_preset(Path(name))
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


def _own_preset(path: Path) -> Preset:
    tables = read_toml(path, "--preset")
    if "settings" not in tables:
        raise InputError(f"--preset: {path} has no table [settings]; give a file like those in presets/.")
    return Preset(str(path), own_settings(path, tables["settings"], "--preset"), About(path.stem, path.stem, path.stem))


def read_toml(path: Path, flag: str) -> dict[str, Any]:
    """The tables of a file of the user's.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{flag}: {path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:  # of TOML, or not UTF-8
        raise InputError(f"{flag}: {path} is not TOML in UTF-8 ({in_short(error)}); mend it.") from error


def own_settings(path: Path, table: Any, flag: str) -> Values:
    """Settings of a user's file; folders and files that lie beside it are named from there.

    Raises:
        InputError: an unknown setting, or one that is of a single video.
    """
    if not isinstance(table, dict):
        raise InputError(f"{flag}: {path} has settings that are no table; write name = value under [settings].")
    found: Values = {}
    for name, value in table.items():
        if name not in setting_types() or name in (*names_with(JOB), "preset"):
            near = difflib.get_close_matches(name, setting_types(), n=1)
            hint = f"did you mean {near[0]}?" if near and near[0] != name else "docs/settings.md lists all."
            raise InputError(f"{flag}: {path} gives {name!r}, which is no setting for a file; {hint}")
        found[name] = _from_file(path.parent, name, value)
    return found


def _from_file(folder: Path, name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_file(folder, name, single) for single in value)
    if setting_types()[name].kind is not Path or not isinstance(value, str):
        return value
    given = Path(value).expanduser()
    beside = folder / given
    return beside if beside.exists() or name in ("ckpt_dir", "infinitetalk_dir", "wav2vec_dir") else given


def settings_with_preset(name: str, **given: object) -> Settings:
    """The settings of a preset; those in ``given`` win.

    A preset's ``lora_scale`` belongs to its ``lora_dir``, and its ``quant_dir`` to its ``quant``: where the
    one is set to None, the other goes too. Of two ways to say what stays on the card or what is seen, the given one
    counts; a given ``input_json`` takes the place of the preset's picture, speech and prompt.

    Raises:
        InputError: there is no such preset.
    """
    return _with_preset(load_preset(name), given)


def settings_with_values(usual: Values, given: Mapping[str, object]) -> Settings:
    """The same with the values of a preset of one's own, which are recorded in place of its name."""
    return _with_preset(Preset(".toml", usual, About("", "", "")), given)


def _with_preset(preset: Preset, given: Mapping[str, object]) -> Settings:
    owners: Values = {owner: None for owner, _ in _FOLLOWERS}
    usual: Values = {**owners, **preset.bundled_paths(), **preset.settings}
    preset_name = None if preset.name.endswith(".toml") else preset.name
    return Settings.of({**layered(usual, given), "preset": preset_name})


def layered(usual: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Values by setting; those in ``given`` win, and what belongs to those that lose goes with them, as
    ``settings_with_preset`` has it.
    """
    if given.get("input_json") is not None:
        usual = {setting: value for setting, value in usual.items() if setting not in names_with(JOB)}
    values: dict[str, object] = {**usual, **given}
    for owner, follower in _FOLLOWERS:
        if owner in values and values[owner] is None and follower not in given:
            values.pop(follower, None)
    for ways in _WAYS:
        for way, other in (ways, ways[::-1]):
            if given.get(way) is not None and other not in given:
                values.pop(other, None)
    return values
