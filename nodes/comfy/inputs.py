"""Widgets made from the engine's settings, and which of them are linked.

Names, ranges, defaults and help are the engine's; what their values mean is in ``pipeline.graphs.widgets``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from ...pipeline.graphs.widgets import DEMO, NONE, OPTIONAL, SWITCH, linked_names, unset
from ...pipeline.settings.definition import NEGATIVE_PROMPT, Settings, setting_infos, setting_types
from ...pipeline.settings.roles import SettingInfo
from . import files

if TYPE_CHECKING:
    from comfy_execution.graph import DynamicPrompt

_WORDS = {"dit_path": (DEMO, NONE), "infinitetalk_dir": (NONE, DEMO), "wav2vec_dir": (DEMO,), "lora_dir": ()}
_LARGEST_INT = 2**31 - 1
_WIDEST = 100.0  # of a number without a limit


def widget(name: str, id: str | None = None, help: str | None = None) -> io.Input:
    """The widget of a setting.

    Args:
        id: its name, where it has another one.
        help: instead of the setting's.
    """
    info, expected = setting_infos()[name], setting_types()[name]
    default, id = getattr(Settings(), name), id or name
    help = help or _help(info)
    if expected.kind is Path:
        options = [*_WORDS.get(name, (NONE,)), *files.names(name)]
        return io.Combo.Input(id, options=options, tooltip=help)
    if expected.kind is bool and expected.optional:
        return io.Combo.Input(id, options=list(SWITCH), default="auto", tooltip=help)
    if expected.kind is bool:
        return io.Boolean.Input(id, default=default, tooltip=help, optional=name in OPTIONAL)
    if info.choices:
        options = [*([NONE] if expected.optional else []), *info.choices]
        return io.Combo.Input(id, options=options, default=default or NONE, tooltip=help)
    if expected.kind in (int, float):
        return _number(name, id, help)
    if name == "negative_prompt":
        default = NEGATIVE_PROMPT
    return io.String.Input(id, default=default or "", multiline=info.free_text, tooltip=help)


def linked_now(prompt: DynamicPrompt) -> frozenset[str]:
    """The inputs of the node that runs now whose values come by a link."""
    context = get_executing_context()
    return frozenset() if context is None else linked_names(prompt.get_node(context.node_id)["inputs"])


def _help(info: SettingInfo) -> str:
    text = info.help.replace("--ckpt_dir", "the checkpoint folder").replace("--", "")
    if text.split()[0].islower():
        text = text[0].upper() + text[1:]
    return text + (f" [{info.unit}]" if info.unit else "") + "."


def _number(name: str, id: str, help: str) -> io.Input:
    info, expected = setting_infos()[name], setting_types()[name]
    default, least, most = getattr(Settings(), name), info.min, info.max
    if expected.several:
        (default,) = default
    if expected.optional:
        default = least = unset(name)
        help = f"{help} {default}: left out."
    if expected.kind is int:
        low, high = 0 if least is None else int(least), _LARGEST_INT if most is None else int(most)
        if name == "base_seed":
            return io.Int.Input(id, default=default, min=low, max=high, control_after_generate=True, tooltip=help)
        step = 4 if name == "frame_num" else 1
        optional = name in OPTIONAL
        return io.Int.Input(id, default=default, min=low, max=high, step=step, tooltip=help, optional=optional)
    least, most = -_WIDEST if least is None else least, _WIDEST if most is None else most
    return io.Float.Input(id, default=float(default), min=least, max=most, step=0.01, round=0.0001, tooltip=help)
