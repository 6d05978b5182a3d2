"""Widgets made from the engine's settings, and which of them are linked.

Names, ranges, defaults and help are the engine's; what their values mean is in ``pipeline.graphs.widgets``, what they
are called and which everybody sees in ``words``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from ...pipeline.facts.buckets import GRID, LARGEST, SMALLEST
from ...pipeline.graphs.widgets import (
    DEMO,
    FIRST_OPTIONAL,
    NONE,
    OWN_SIZE,
    PREFIX,
    PREFIX_DEFAULT,
    PREFIX_PLACE,
    SIDE_PLACES,
    SIZES,
    SWITCH,
    USUAL_SIDES,
    linked_names,
    unset,
    widget_value,
)
from ...pipeline.settings.definition import NEGATIVE_PROMPT, Settings, names_on, setting_infos, setting_types
from ...pipeline.settings.roles import Node, SettingInfo, Value
from . import files
from .words import label, place

if TYPE_CHECKING:
    from comfy_execution.graph import DynamicPrompt

_WORDS = {"dit_path": (DEMO, NONE), "infinitetalk_dir": (NONE, DEMO), "wav2vec_dir": (DEMO,), "lora_dir": ()}
_HELP = {
    "size": "480 or 720 with the picture's aspect, or the width and the height given below, in steps of 16 pixels."
}
_LARGEST_INT = 2**31 - 1
_WIDEST = 100.0  # of a number without a limit


def widgets(node: Node) -> list[io.Input]:
    """All widgets of a node in the order in which ComfyUI saves their values.

    Those that came later are optional: a graph in API format that was saved before does without.
    """
    extra = _EXTRA.get(node, {})
    made = []
    for saved, name in sorted([*((setting_infos()[name].widgets[node], name) for name in names_on(node)), *extra]):
        input = extra[saved, name]() if (saved, name) in extra else widget(name, node)
        input.optional = saved >= FIRST_OPTIONAL[node]
        made.append(input)
    return made


def widget(name: str, node: Node, id: str | None = None, help: str | None = None, default: Value = None) -> io.Input:
    """The widget of a setting.

    Args:
        id: its name, where it has another one.
        help, default: instead of the setting's.
    """
    info, expected = setting_infos()[name], setting_types()[name]
    id = id or name
    given = _Given(id, help or _HELP.get(name) or _help(info), _shown(node, name), label(name))
    if default is None:
        default = getattr(Settings(), name)
    if name == "size":
        return given.to(io.Combo.Input, options=[*SIZES, OWN_SIZE], default=widget_value(name, default))
    if expected.kind is Path:
        return given.to(io.Combo.Input, options=[*_WORDS.get(name, (NONE,)), *files.names(name)])
    if expected.kind is bool and expected.optional:
        return given.to(io.Combo.Input, options=list(SWITCH), default="auto")
    if expected.kind is bool:
        return given.to(io.Boolean.Input, default=default)
    if info.choices:
        options = [*([NONE] if expected.optional else []), *info.choices]
        return given.to(io.Combo.Input, options=options, default=default or NONE)
    if expected.kind in (int, float):
        return _number(name, given, default)
    if name == "negative_prompt":
        default = NEGATIVE_PROMPT
    return given.to(io.String.Input, default=default or "", multiline=info.free_text)


@dataclass(frozen=True)
class _Given:
    """What every kind of widget is given: its id, its help, what the page is told besides, and its label."""

    id: str
    help: str
    more: dict[str, object]
    label: str

    def to(self, kind: type[io.Input], **options: object) -> io.Input:
        made = kind(self.id, display_name=self.label, tooltip=self.help, **options)
        made.extra_dict = {**(made.extra_dict or {}), **self.more}  # which older hosts do not take for every kind
        return made


def _shown(node: Node, name: str) -> dict[str, object]:
    """What the page is told of a widget: where it stands, or that it is shown on demand alone."""
    where = place(node, name)
    return {"advanced": True} if where is None else {"place": where}


def linked_now(prompt: DynamicPrompt) -> frozenset[str]:
    """The inputs of the node that runs now whose values come by a link."""
    context = get_executing_context()
    return frozenset() if context is None else linked_names(prompt.get_node(context.node_id)["inputs"])


def _help(info: SettingInfo) -> str:
    text = info.help.replace("--ckpt_dir", "the checkpoint folder")
    text = re.sub("--([a-z0-9_]+)", lambda found: label(found[1]), text)
    if text.split()[0].islower():
        text = text[0].upper() + text[1:]
    return text + (f" [{info.unit}]" if info.unit else "") + "."


def _number(name: str, given: _Given, default: Value) -> io.Input:
    info, expected = setting_infos()[name], setting_types()[name]
    least, most = info.min, info.max
    if expected.several and isinstance(default, tuple):
        (default,) = default
    if expected.optional:
        default = least = unset(name)
        given = replace(given, help=f"{given.help} {default}: left out.", more={**given.more, "unset": default})
    if expected.kind is int:
        low, high = 0 if least is None else int(least), _LARGEST_INT if most is None else int(most)
        if name == "base_seed":
            return given.to(io.Int.Input, default=default, min=low, max=high, control_after_generate=True)
        step = 4 if name == "frame_num" else 1
        return given.to(io.Int.Input, default=default, min=low, max=high, step=step)
    least, most = -_WIDEST if least is None else least, _WIDEST if most is None else most
    return given.to(io.Float.Input, default=default, min=least, max=most, step=0.01, round=0.0001)


def _prefix() -> io.Input:
    text = (
        "Folder and beginning of the name, under ComfyUI's output folder. A number follows; %date:yyyy-MM-dd% and "
        "%Node.widget% are filled in."
    )
    given = _Given(PREFIX, text, _shown(Node.SAMPLER, PREFIX), label(PREFIX))
    return given.to(io.String.Input, default=PREFIX_DEFAULT)


def _side(name: str, default: int) -> io.Input:
    text = f"{name.capitalize()} of the video in pixels, where size is {OWN_SIZE}."
    given = _Given(name, text, _shown(Node.SAMPLER, name), label(name))
    return given.to(io.Int.Input, default=default, min=SMALLEST, max=LARGEST, step=GRID)


# widgets that are no settings, by their place among the values that ComfyUI saves for the node
_EXTRA: dict[Node, dict[tuple[int, str], Callable[[], io.Input]]] = {
    Node.SAMPLER: {
        (PREFIX_PLACE, PREFIX): _prefix,
        **{(p, name): partial(_side, name, USUAL_SIDES[name]) for name, p in SIDE_PLACES.items()},
    }
}
