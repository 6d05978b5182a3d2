"""Graphs of our own nodes as settings.

Walks upstream from the sampler and refuses by name what has no equivalent on the command line. Knows our
nodes and ComfyUI's Load nodes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..export.exported import Exported, Files
from ..job.job import BUNDLED
from ..settings.definition import Settings, names_on
from ..settings.presets import Preset, load_preset
from ..settings.roles import Node as Slots
from ..settings.roles import Values
from ..settings.validation import validate
from . import widgets
from .graph import Graph, Node, linked, refusal, value
from .notes import Notes
from .orders import CONTROL, with_names

SAMPLERS = ("InfiniteTalkSampler",)
PRESET = "InfiniteTalkPreset"
PORTRAIT, SPEECH = BUNDLED / "drawn_portrait.png", BUNDLED / "speech.wav"
_LOADERS = {"image": ("LoadImage", "image"), "video": ("LoadVideo", "file"), "audio": ("LoadAudio", "audio")}


def read(graph: Graph, sampler: str, files: Files) -> Exported:
    """The settings of one of our samplers.

    Raises:
        InputError: something in the graph has no equivalent, is missing, or is not allowed.
    """
    notes = Notes([*seed_note(graph, sampler)])
    graph = _with_names(graph)
    owner = graph.nodes[sampler]
    values: Values = {}
    with notes.part():
        model = _linked(graph, owner, "model", "InfiniteTalkModelLoader")
        values |= _values(graph, model, widgets.LOADER, files, notes)
        chain = _LoraChain.of(graph, model, files)
        values |= _ruled(_Presetting.of(graph, model).after(chain), _Presetting.of(graph, owner), files)
        values |= widgets.lora_settings(chain.loras(files))
    ruled = {name: values[name] for name in widgets.SAMPLER if name in values}
    values |= {**_values(graph, owner, widgets.SAMPLER, files, notes), **ruled}
    with notes.part():
        speech = _linked(graph, owner, "speech", "InfiniteTalkAudioEncoder")
        values |= _values(graph, speech, ("wav2vec_dir",), files, notes)
        values |= _voice(graph, speech, files, notes)
    with notes.part():
        values["save_file"] = save_name(str(value(graph, owner, widgets.PREFIX, widgets.PREFIX_DEFAULT)))
    with notes.part():
        values |= sources(graph, sampler, files)
    settings = Settings.of(values)
    with notes.part():
        validate(settings)
    notes.check(graph.name)
    return Exported(settings, (*notes.said, *files.notes()))


def _with_names(graph: Graph) -> Graph:
    """The graph with our widgets under their names; one that was added after the file was saved has its default.

    Raises:
        InputError: a node of ours has more widgets than we know of.
    """
    orders = widgets.saved_orders()
    for node in graph.nodes.values():
        if node.kind in orders and len(node.positional) > len(orders[node.kind][0]):
            raise refusal(graph, node, "it has more widgets than in this version; update InfiniteTalk")
    named = with_names(graph, {**orders, **{kind: ({widget: str},) for kind, widget in _LOADERS.values()}})
    by_position = [node.id for node in graph.nodes.values() if node.positional and node.kind in orders]
    return replace(named, nodes={**named.nodes, **{id: _completed(named.nodes[id]) for id in by_position}})


def _completed(node: Node) -> Node:
    defaults = Settings()
    (order,) = widgets.saved_orders()[node.kind]
    added = {name: widgets.widget_value(name, getattr(defaults, name)) for name in order if hasattr(defaults, name)}
    return replace(node, values={**added, **node.values})


def sources(graph: Graph, sampler: str, files: Files) -> dict[str, Path]:
    """The files that the reference and the speech come from, by setting."""
    graph = _with_names(graph)
    owner = graph.nodes[sampler]
    speech = _linked(graph, owner, "speech", "InfiniteTalkAudioEncoder")
    references = [slot for slot in ("image", "video") if slot in owner.links]
    if len(references) != 1:
        linked_now = "both are" if references else "neither is"
        raise refusal(graph, owner, f"it needs an image or a video, one of them; {linked_now} linked")
    (slot,) = references
    found: dict[str, Path] = {slot: _source(graph, owner, slot, PORTRAIT, files)}
    heard = _mix(graph, speech) or speech
    return {**found, "audio": _source(graph, heard, "audio", SPEECH, files)}


def _mix(graph: Graph, speech: Node) -> Node | None:
    """The node that takes the voice out of a mix for this encoder, if there is one."""
    voice = linked(graph, speech, "audio")
    return voice if voice.kind == "InfiniteTalkVoice" else None


def _voice(graph: Graph, speech: Node, files: Files, notes: Notes) -> Values:
    """The network that separates the voice, and which sound the video carries."""
    voice = _mix(graph, speech)
    if voice is None:
        if speech.links.get("soundtrack") not in (None, speech.links["audio"]):
            raise refusal(graph, speech, "its soundtrack is another sound than its audio; link the same, or none")
        return {}
    found = _values(graph, voice, names_on(Slots.VOICE), files, notes)
    carried = speech.links.get("soundtrack", speech.links["audio"])
    if carried not in (voice.links.get("audio"), speech.links["audio"]):
        raise refusal(graph, speech, "its soundtrack is neither the mix nor the voice; link one of them, or none")
    if carried == speech.links["audio"] and found.get("separate_voice") is not None:
        found["output_sound"] = "voice"
    return found


def _source(graph: Graph, owner: Node, slot: str, bundled: Path, files: Files) -> Path:
    kind, widget = _LOADERS[slot]
    origin = linked(graph, owner, slot)
    if origin.kind == "InfiniteTalkDemo":
        return bundled
    if origin.kind != kind:
        what = f"its {slot} comes from {origin}, which has no equivalent on the command line"
        raise refusal(graph, owner, f"{what}: save its result and load it with {kind}")
    name = value(graph, origin, widget)
    if not isinstance(name, str) or not name:
        raise refusal(graph, origin, "it names no file; choose one")
    return files.source(name)


@dataclass(frozen=True)
class _Presetting:
    """The preset that is linked to a node, and that node's other linked inputs, which it leaves alone."""

    preset: Preset | None
    linked: frozenset[str]

    @classmethod
    def of(cls, graph: Graph, owner: Node) -> _Presetting:
        linked_now = widgets.linked_names(owner.values, owner.links)
        if "preset" not in owner.links:
            return cls(None, linked_now)
        node = _linked(graph, owner, "preset", PRESET)
        return cls(load_preset(str(value(graph, node, "preset"))), linked_now)

    def after(self, chain: _LoraChain) -> _Presetting:
        """The same; LoRAs that are linked after those of this preset are none beside it."""
        same = self.preset is not None and chain.preset is not None and chain.preset.name == self.preset.name
        return replace(self, linked=self.linked - {"lora"}) if same else self


def _ruled(loader: _Presetting, sampler: _Presetting, files: Files) -> Values:
    """What linked presets rule, and the preset's name where one rules both."""
    values: Values = {}
    if loader.preset is not None:
        values |= widgets.ruled_by_loader(loader.preset, loader.linked, files)
    if sampler.preset is not None:
        values |= widgets.ruled_by_sampler(sampler.preset, sampler.linked)
    if loader.preset is None or sampler.preset is None:
        return values
    if loader.preset.name != sampler.preset.name:
        names = f"{loader.preset.name}, {sampler.preset.name}"
        raise InputError(f"loader and sampler are linked to different presets ({names}); link them to one.")
    return {**values, "preset": sampler.preset.name}


@dataclass(frozen=True)
class _LoraChain:
    """LoRA files and their strengths in the order in which they are applied, after those of a preset if it has one."""

    preset: Preset | None
    own: tuple[tuple[Path, float], ...]

    @classmethod
    def of(cls, graph: Graph, model: Node, files: Files) -> _LoraChain:
        chain: list[tuple[Path, float]] = []
        slot, owner = "lora", model
        while slot in owner.links:
            origin = linked(graph, owner, slot)
            if origin.kind == PRESET:
                return cls(load_preset(str(value(graph, origin, "preset"))), tuple(chain[::-1]))
            owner, slot = _linked(graph, owner, slot, "InfiniteTalkLoRA"), "previous"
            lora, scale = (value(graph, owner, name) for name in ("lora", "scale"))
            chain.append((files.model("lora_dir", str(lora)), widgets.strength(scale)))
        return cls(None, tuple(chain[::-1]))

    def loras(self, files: Files) -> tuple[tuple[Path, float], ...]:
        first = () if self.preset is None else widgets.preset_loras(self.preset, files)
        return (*first, *self.own)


def save_name(prefix: str) -> Path:
    """A name for the video: what ComfyUI puts before its counter, without the folder."""
    name = PurePosixPath(prefix.replace("\\", "/")).name
    return Path(re.sub(r'[<>:"|?*\x00-\x1f]', "_", name) or "InfiniteTalk")


def seed_note(graph: Graph, sampler: str) -> tuple[str, ...]:
    """ComfyUI's page changes a seed from run to run unless told not to; a saved workflow tells."""
    node = _with_names(graph).nodes.get(sampler)
    control = "fixed" if node is None else node.values.get(CONTROL, "fixed")
    if control == "fixed":
        return ()
    return (
        f"The workflow changes its seed from run to run ({control}), so this may be that of the next run; for the seed "
        "of a finished video, export that video.",
    )


def _values(graph: Graph, owner: Node, names: tuple[str, ...], files: Files, notes: Notes) -> Values:
    """The settings of a node's widgets."""
    found: Values = {}
    for name in names:
        with notes.part():
            if name in widgets.OPTIONAL:
                given = {name: value(graph, owner, name, widgets.widget_value(name, getattr(Settings(), name)))}
            else:
                given = {name: value(graph, owner, name)}
            if given.get("size") == widgets.OWN_SIZE:
                given |= {side: value(graph, owner, side, usual) for side, usual in widgets.USUAL_SIDES.items()}
            try:
                found |= widgets.setting_values(given, files)
            except InputError as error:
                raise refusal(graph, owner, str(error)) from error
    return found


def _linked(graph: Graph, owner: Node, slot: str, kind: str) -> Node:
    """The node of this kind that an input comes from."""
    origin = linked(graph, owner, slot)
    if origin.kind != kind:
        raise refusal(graph, owner, f"its {slot} comes from {origin}, {kind} expected")
    return origin
