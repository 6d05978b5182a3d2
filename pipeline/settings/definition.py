"""``Settings``: every setting, once, joined from ``sources``, ``making`` and ``running``, and what is asked about them.

Each is declared there by name, type, default, range, one line of help, and its roles. The command line's flags, the
widgets, the presets, docs/settings.md and everything that follows from what a setting is for are made from this;
whether values are right is for ``validation``. Nothing heavy is imported.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from .making import SamplingSettings, VideoSettings
from .roles import Json, Node, Role, SettingInfo, SettingType, Value, json_value
from .running import OutputSettings, SpeedSettings
from .sources import InputSettings, WeightsSettings

PROMPT = "A person is talking to the camera."  # where picture and speech are given and nothing says what is to be seen
PIXELS_480 = 640 * 960  # frames up to this size go with upstream's values for 480, larger ones with those for 720
NEGATIVE_PROMPT = (  # what the models were tuned with: sample_neg_prompt in upstream's wan_multitalk_14B.py
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, "
    "messy background, three legs, many people in the background, walking backwards"
)


# fields of the last base come first
@dataclass(frozen=True)
class Settings(OutputSettings, SpeedSettings, SamplingSettings, VideoSettings, WeightsSettings, InputSettings):
    """What to make and how. Paths may be given as strings, several values as a list."""

    def __post_init__(self) -> None:
        for name, expected in setting_types().items():
            value = getattr(self, name)
            object.__setattr__(self, name, expected.meant(value))

    def as_json(self) -> dict[str, Json]:
        """All values by name, as JSON has them: paths are texts, several values a list."""
        return {name: json_value(getattr(self, name)) for name in setting_types()}

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Settings:
        """The settings that have these values, of whatever types: ``validate`` judges them.

        Raises:
            TypeError: there is no setting of such a name.
        """
        return cls(**values)  # type: ignore[arg-type]  # what comes from files and flags may be anything

    def replace(self, **changes: Value) -> Settings:
        """The same settings with some changed."""
        return Settings.of({**vars(self), **changes})


@cache
def setting_infos() -> dict[str, SettingInfo]:
    """What is known about every setting, by name, in the order of ``Settings``."""
    return {field.name: field.metadata["info"] for field in dataclasses.fields(Settings)}


@cache
def names_with(roles: Role) -> tuple[str, ...]:
    """The settings that have all of these roles, in the order of ``Settings``."""
    return tuple(name for name, info in setting_infos().items() if roles in info.roles)


@cache
def names_on(node: Node) -> tuple[str, ...]:
    """The settings that have a widget on this node of ComfyUI, in the order in which their values are saved."""
    places = {name: info.widgets[node] for name, info in setting_infos().items() if node in info.widgets}
    return tuple(sorted(places, key=places.__getitem__))


@cache
def setting_types() -> dict[str, SettingType]:
    """The type of every setting, by name."""
    hints = typing.get_type_hints(Settings)
    return {field.name: SettingType.of(hints[field.name]) for field in dataclasses.fields(Settings)}
