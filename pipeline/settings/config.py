"""A config file, infinitetalk.toml: where models lie, how this machine is used, and presets of one's own.

What is given as a flag wins over the preset, the preset over the config, the config over the defaults. ``[settings]``
takes only what never changes a frame, so that a command, recorded or exported, means the same with every config;
anything else goes into ``[presets.NAME]``, which a command names, and whose values are what is recorded. Paths are
relative to the file. Reads no other file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from .definition import names_with
from .presets import own_settings, read_toml
from .roles import JOB, NEUTRAL, Values

NAME = "infinitetalk.toml"
NONE = "none"
FOLDERS = ("ckpt_dir", "infinitetalk_dir", "wav2vec_dir")
PRECEDENCE = "flags, then the preset, then the config, then the defaults"


@dataclass(frozen=True)
class Config:
    """A config file's settings and presets, both by name; ``path`` is None where there is none."""

    path: Path | None = None
    settings: Values = field(default_factory=dict)
    presets: dict[str, Values] = field(default_factory=dict)


def allowed() -> tuple[str, ...]:
    """The settings that a config may give."""
    return (*FOLDERS, *(name for name in names_with(NEUTRAL) if name not in (*names_with(JOB), "preset")))


def places(environment: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Where a config is looked for: the working folder, then the user's folder of configs."""
    environment = os.environ if environment is None else environment
    if sys.platform == "win32":
        user = Path(environment.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        user = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(NAME), user / "infinitetalk" / NAME


def find_config(word: str | None = None) -> Config:
    """The config of this name; ``none``: none; None: the first that is there.

    Raises:
        InputError: there is no such file, or something in it is not right.
    """
    if word == NONE:
        return Config()
    if word is not None:
        return load_config(Path(word))
    return next((load_config(path) for path in places() if path.is_file()), Config())


def load_config(path: Path) -> Config:
    """What the file says.

    Raises:
        InputError: it cannot be read, or names what is no setting or may not be there.
    """
    tables = read_toml(path, "--config")
    for name in tables:
        if name not in ("settings", "presets"):
            raise InputError(f"--config: {path} has an unknown table {name!r}; there are settings and presets.")
    settings = own_settings(path, tables.get("settings", {}), "--config")
    for name in settings:
        if name not in allowed():
            raise InputError(
                f"--config: {path} sets {name}, which may change the video of every command; put it into "
                "[presets.NAME], and give --preset NAME."
            )
    presets = tables.get("presets", {})
    if not isinstance(presets, dict):
        raise InputError(f"--config: {path} has presets that are no tables; write [presets.NAME].")
    return Config(path, settings, {name: own_settings(path, values, "--config") for name, values in presets.items()})
