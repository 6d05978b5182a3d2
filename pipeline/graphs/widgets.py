"""What the values of our nodes' widgets mean: words for what is left out, and how files are named.

Which node has which widget, in the order in which ComfyUI saves them. One source for the nodes, which make
their widgets from it, and for the export, which reads them back. Knows nothing of ComfyUI itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ..errors import InputError
from ..export.exported import Files
from ..facts.downloads import STAND_INS
from ..settings.definition import NEGATIVE_PROMPT, names_on, setting_infos, setting_types
from ..settings.demo import demo_checkpoint
from ..settings.presets import Preset
from ..settings.roles import Node, Value, Values
from .orders import CONTROL, Order
from .places import FOLDERS

NONE = "none"
DEMO = "demo (bundled)"
SWITCH = {"auto": None, "true": True, "false": False}

LOADER, SAMPLER = names_on(Node.LOADER), names_on(Node.SAMPLER)
TEXTS = tuple(name for name in SAMPLER if setting_infos()[name].free_text)
NUMBERS = tuple(name for name in SAMPLER if name not in TEXTS)
PREFIX, PREFIX_DEFAULT = "filename_prefix", "video/InfiniteTalk"
SEED = "base_seed"  # which no preset rules: it is the graph's, or comes from a list of seeds
BY_LINK = "linked_widgets"  # an input of the prompt alone: widgets whose value the page has taken from a link
PREFIX_PLACE = 21  # among the values that ComfyUI saves for the sampler
# its widgets for --size: the words for the two that go by the picture, and the sides where neither is chosen
SIZES = {"480, as the picture": "infinitetalk-480", "720, as the picture": "infinitetalk-720"}
OWN_SIZE = "width x height"
SIDE_PLACES = {"width": 24, "height": 25}
USUAL_SIDES = {"width": 832, "height": 480}
# the place of the first widget that graphs in API format may lack, since they were saved before it was there
FIRST_OPTIONAL = {Node.LOADER: 20, Node.LORA: 2, Node.SPEECH: 1, Node.VOICE: 1, Node.SAMPLER: 24}
OPTIONAL = tuple(
    name for node in Node for name in names_on(node) if setting_infos()[name].widgets[node] >= FIRST_OPTIONAL[node]
)
_NAMES = {"lora_dir": "lora", "lora_scale": "scale"}  # of widgets, where they are not the setting's

_WEIGHTS_ENDINGS = (".safetensors", ".gguf", ".pth", ".pt", ".bin", ".ckpt", ".sft")


def saved_orders() -> dict[str, tuple[Order, ...]]:
    """How ComfyUI saves the widgets of our nodes: names and types in order, by kind of node."""
    orders = {str(node): (_saved_order(node),) for node in Node}
    return {"InfiniteTalkPreset": ({"preset": str},), **orders}


def _saved_order(node: Node) -> Order:
    infos = setting_infos()
    order = {infos[name].widgets[node]: (_NAMES.get(name, name), _saved_type(name)) for name in names_on(node)}
    if node is Node.SAMPLER:
        order |= {infos[SEED].widgets[node] + 1: (CONTROL, str), PREFIX_PLACE: (PREFIX, str)}
        order |= {place: (side, int) for side, place in SIDE_PLACES.items()}
    return dict(order[place] for place in sorted(order))


def _saved_type(name: str) -> type:
    expected = setting_types()[name]
    if expected.kind is Path or expected.kind is bool and expected.optional:
        return str
    return expected.kind


def unset(name: str) -> int:
    """How a widget spells that an optional number is left out: 0, or -1 where 0 is a value."""
    least = setting_infos()[name].min
    return 0 if least is not None and least > 0 else -1


def setting_values(given: Mapping[str, object], files: Files) -> Values:
    """Settings from the values of widgets, by name.

    Args:
        given: beside the size, its width and height, if there are widgets for them.

    Raises:
        InputError: a file is not there any more, or a value is not one of the widget's.
    """
    values: Values = {}
    for name, value in given.items():
        if name in SIDE_PLACES:
            continue
        if name == "size":
            value = size_of(value, {side: given.get(side, usual) for side, usual in USUAL_SIDES.items()})
        expected = setting_types()[name]
        if expected.kind is Path:
            values |= _file_setting(name, value, files)
        elif expected.kind is bool and expected.optional:
            values[name] = _of_switch(name, value)
        elif expected.kind in (int, float):
            values[name] = _number(name, value)
        elif not isinstance(value, expected.kind):
            kind = "a text" if expected.kind is str else "true or false"
            raise InputError(f"--{name}: {value!r} found, {kind} expected.")
        elif name in TEXTS:
            values[name] = None if (name, value) == ("negative_prompt", NEGATIVE_PROMPT) else value
        else:
            values[name] = None if expected.optional and value == NONE else value
    return values


def size_of(chosen: object, sides: Mapping[str, object]) -> object:
    """The setting that the widgets for the size mean; what earlier versions had there, its own text, stays."""
    if chosen == OWN_SIZE:
        return "x".join(str(_of_kind(side, int, sides[side])) for side in SIDE_PLACES)
    return SIZES.get(chosen, chosen) if isinstance(chosen, str) else chosen


def size_widgets(size: str) -> Values:
    """A size as its widgets show it: the word, and the sides where it names them."""
    if size in SIZES.values():
        return {"size": widget_value("size", size)}
    width, _, height = size.lower().partition("x")
    return {"size": OWN_SIZE, "width": int(width), "height": int(height)}


def _of_switch(name: str, value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value not in SWITCH:
        raise InputError(f"{name}: {value!r} found, one of {', '.join(SWITCH)} expected.")
    return SWITCH[value]


def _number(name: str, value: object) -> float | None:
    expected = setting_types()[name]
    converted = _of_kind(name, int if expected.kind is int else float, value)
    return None if expected.optional and value == unset(name) else converted


def _of_kind(name: str, kind: type[int] | type[float], value: object) -> float:
    wanted = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name}: {value!r} found, {wanted} expected.")
    try:
        converted = kind(value)
    except (OverflowError, ValueError):
        raise InputError(f"{name}: {value!r} found, {wanted} expected.") from None
    if kind is int and converted != value:
        raise InputError(f"{name}: {value!r} found, {wanted} expected.")
    return converted


def strength(value: object) -> float:
    """A LoRA's strength, from its widget."""
    return float(_number("lora_scale", value) or 0)


def chosen_file(name: str, value: object, files: Files) -> Path | None:
    """The file or folder that choosing ``value`` in a setting's list of files means."""
    if not isinstance(value, str):
        raise InputError(f"{name}: {value!r} found, the name of a file expected.")
    if value == NONE:
        return None
    if value == DEMO:
        demo = demo_checkpoint()
        return demo.ckpt_dir if name == "dit_path" else getattr(demo, name)
    return files.model(name, value)


def _file_setting(name: str, value: object, files: Files) -> Values:
    path = chosen_file(name, value, files)
    if name != "dit_path" or path is None:
        return {name: path}
    is_folder = path.is_dir() or not path.exists() and path.suffix.lower() not in _WEIGHTS_ENDINGS
    return {"ckpt_dir" if is_folder else name: path}


def widget_value(name: str, value: Value) -> Value:
    """A setting's value as its widget shows it; a file's as it is."""
    expected = setting_types()[name]
    if expected.kind is bool and expected.optional:
        return next(word for word, meaning in SWITCH.items() if meaning is value)
    if name in TEXTS and value is None:
        return NEGATIVE_PROMPT if name == "negative_prompt" else ""
    if value is None:
        return unset(name) if expected.kind in (int, float) else NONE
    if name == "size":
        return next((word for word, meaning in SIZES.items() if meaning == value), value)
    return value


def linked_names(inputs: Mapping[str, object], links: Iterable[str] = ()) -> frozenset[str]:
    """The widgets of a node whose values come by a link, which no preset rules.

    Args:
        inputs: the node's, as a prompt has them.
        links: those that are known to be linked.
    """
    linked = (name for name, given in inputs.items() if isinstance(given, list))
    by_page = inputs.get(BY_LINK)
    return frozenset((*links, *linked, *(by_page.split() if isinstance(by_page, str) else ())))


def ruled_by_loader(preset: Preset, linked: Collection[str], files: Files) -> Values:
    """What a preset that is linked to the loader sets.

    Args:
        linked: inputs that something is linked to; the preset leaves these widgets alone.

    Raises:
        InputError: it brings a LoRA beside a linked one, or names files that are not there.
    """
    ruled = {*LOADER, *names_on(Node.LORA)} - {*linked}
    values = {name: value for name, value in preset.settings.items() if name in ruled}
    wanted = preset.as_settings()
    if wanted.lora_dir is not None:
        if "lora" in linked:
            raise InputError(
                f"preset {preset.name} brings its own LoRA; link the LoRA node after it (the preset's lora to its "
                "previous), or unlink one of them."
            )
        values |= lora_settings(preset_loras(preset, files))
    if wanted.quant_dir is not None and "quant_dir" in ruled:
        if "quant" in linked:  # a file of one storage says nothing about another
            del values["quant_dir"]
        else:
            values["quant_dir"] = _named("quant_dir", wanted.quant_dir, preset, files)
    return values


def preset_loras(preset: Preset, files: Files) -> tuple[tuple[Path, float], ...]:
    """The LoRAs that a preset brings, with their strengths.

    Raises:
        InputError: one is not there.
    """
    wanted = preset.as_settings()
    pairs = zip(wanted.lora_dir or (), wanted.lora_scale, strict=False)
    return tuple((_named("lora_dir", file, preset, files), float(scale)) for file, scale in pairs)


def lora_settings(loras: Iterable[tuple[Path, float]]) -> Values:
    """LoRAs and their strengths as settings."""
    chain = tuple(loras)
    if not chain:
        return {}
    return {"lora_dir": tuple(path for path, _ in chain), "lora_scale": tuple(scale for _, scale in chain)}


def _named(setting: str, file: Path, preset: Preset, files: Files) -> Path:
    """The file that a preset names, or the one that stands in for it."""
    names = [file.as_posix(), *filter(None, [STAND_INS.get(file.name)])]
    for name in names:
        found = files.preset_file(setting, name)
        if found is not None:
            return found
    instead = "" if len(names) == 1 else f" (nor is {names[1]}, which may take its place)"
    raise InputError(
        f"preset {preset.name} needs {file.name}, which is not in models/{FOLDERS[setting][0]}{instead}: put it there "
        f"(infinitetalk download --preset {preset.name} --comfyui DIR) and press R, or unlink the preset from the "
        "loader."
    )


def ruled_by_sampler(preset: Preset, linked: Collection[str] = ()) -> Values:
    """What a preset that is linked to the sampler sets; ``linked`` as for the loader."""
    free = {SEED, *linked, *(("size",) if not SIDE_PLACES.keys().isdisjoint(linked) else ())}
    return {name: value for name, value in preset.settings.items() if name in SAMPLER and name not in free}
