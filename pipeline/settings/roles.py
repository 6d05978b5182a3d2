"""The words that a setting is described in: its help and range, what it is for, and its place in ComfyUI.

Who asks for a role instead of keeping a list of names: the generator (``MODELS``), resume's identity (``FRAMES``),
``info``, the exporters and the nodes. Knows no setting by name.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from pathlib import Path

Single = bool | int | float | str | Path
Value = Single | tuple[Single, ...] | None
Values = dict[str, Value]  # by the setting's name
Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]


class Role(Flag):
    """What a setting is for: one of ``OWNERS``, one of ``EFFECTS``, and what else is true of it."""

    # whose it is
    JOB = auto()  # says what one video is made from and where it goes
    MODELS = auto()  # belongs to the generator: which models, how they are kept, where they run
    VIDEO = auto()  # how a video is made; may change from one to the next
    RUN = auto()  # of this one run: says nothing about the video, which does not carry it
    LATER = auto()  # not available yet: any value but the default is refused
    UNREAD = auto()  # upstream's; nothing reads it here

    # what it does to the frames, and so what resume compares
    FRAMES = auto()  # its value decides them
    CONTENT = auto()  # it names what decides them: the content is compared, not the name
    MACHINE = auto()  # the last bits depend on what is chosen by it on this machine, which is compared instead
    NEUTRAL = auto()  # it never changes one

    # what else is true
    FOLLOWS = auto()  # where it is left out, ``validation.resolve`` fills it in from others
    UPSTREAM = auto()  # upstream's script has the flag
    UNSAID = auto()  # upstream's has not, which need not be said: it matters to nobody, or something else says it


JOB, MODELS, VIDEO, RUN, LATER, UNREAD = Role.JOB, Role.MODELS, Role.VIDEO, Role.RUN, Role.LATER, Role.UNREAD
FRAMES, CONTENT, MACHINE, NEUTRAL = Role.FRAMES, Role.CONTENT, Role.MACHINE, Role.NEUTRAL
FOLLOWS, UPSTREAM, UNSAID = Role.FOLLOWS, Role.UPSTREAM, Role.UNSAID
OWNERS = JOB | MODELS | VIDEO | RUN | LATER | UNREAD
EFFECTS = FRAMES | CONTENT | MACHINE | NEUTRAL


class Node(StrEnum):
    """The nodes that have widgets of settings, as ComfyUI knows them."""

    LOADER = "InfiniteTalkModelLoader"
    LORA = "InfiniteTalkLoRA"
    SPEECH = "InfiniteTalkAudioEncoder"
    VOICE = "InfiniteTalkVoice"
    SAMPLER = "InfiniteTalkSampler"


@dataclass(frozen=True)
class SettingInfo:
    """What ``setting`` was told; ``widgets`` are places among the values that ComfyUI saves for a node."""

    help: str
    roles: Role
    group: str
    choices: tuple[str, ...]
    min: float | None
    max: float | None
    unit: str
    free_text: bool
    refusal: str
    widgets: dict[Node, int]
    upstream_default: Value

    @property
    def landed(self) -> bool:
        """Whether the feature is there."""
        return Role.LATER not in self.roles


@dataclass(frozen=True)
class SettingType:
    """The type of a setting: ``kind`` is bool, int, float, str or Path."""

    kind: type[Single]
    optional: bool
    several: bool

    @classmethod
    def of(cls, hint: object) -> SettingType:
        """The type that a field's annotation says."""
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        optional = types.NoneType in members
        (inner,) = (member for member in members if member is not types.NoneType)
        several = typing.get_origin(inner) is tuple
        return cls(typing.get_args(inner)[0] if several else inner, optional, several)

    def meant(self, value: Value | list[Single]) -> Value | list[Single]:
        """A list as several values, a text as a path; what is of another type stays, for ``validation`` to judge."""
        if self.several and isinstance(value, list | tuple):
            return tuple(Path(single) if self._is_path(single) else single for single in value)
        return Path(value) if self._is_path(value) else value

    def _is_path(self, value: Value | list[Single]) -> typing.TypeGuard[str]:
        return self.kind is Path and isinstance(value, str)


def json_value(value: Value) -> Json:
    """A setting's value as JSON has it."""
    if isinstance(value, tuple):
        return [json_value(single) for single in value]
    return str(value) if isinstance(value, Path) else value


def setting(
    default: Value,
    help: str,
    roles: Role,
    *,
    group: str,
    choices: tuple[str, ...] = (),
    min: float | None = None,
    max: float | None = None,
    unit: str = "",
    free_text: bool = False,
    refusal: str = "",
    loader: int | None = None,
    lora: int | None = None,
    speech: int | None = None,
    voice: int | None = None,
    sampler: int | None = None,
    upstream_default: Value = None,
) -> typing.Any:
    """A field of ``Settings`` and what everyone needs to know about it.

    Args:
        help: one line, without the default.
        roles: what it is for.
        min, max: inclusive range of each number.
        unit: what the number counts.
        free_text: any text is a value, the word "none" too.
        refusal: why any value but the default is refused.
        loader, lora, speech, voice, sampler: its place among the values that ComfyUI saves for that node. Saved graphs
            hold values by position, so a place is for ever, and a new widget comes behind all others.
        upstream_default: what upstream's script takes where the flag is left out, if that is not ``default``.
    """
    theirs = default if upstream_default is None else upstream_default
    places = {Node.LOADER: loader, Node.LORA: lora, Node.SPEECH: speech, Node.VOICE: voice, Node.SAMPLER: sampler}
    widgets = {node: place for node, place in places.items() if place is not None}
    about = SettingInfo(help, roles, group, choices, min, max, unit, free_text, refusal, widgets, theirs)
    return dataclasses.field(default=default, metadata={"info": about})
