"""Graphs of our sampler around ComfyUI's own model as settings.

The sampler takes the place of the core's nodes for a window, of what samples it and of the decoder, and takes the same
inputs; so do their settings come about. What is its own is how windows follow each other, which is the engine's.
"""

from __future__ import annotations

from dataclasses import replace

from ...export.exported import Exported, Files
from ...settings.definition import Settings
from ...settings.roles import Values
from ...settings.validation import validate
from ..foreign import conditioning, media
from ..foreign.conditioning import prompt_settings
from ..graph import Graph, Node, feeding, number, refusal, text, whole
from ..notes import Notes
from ..orders import Order, with_names
from ..ours import save_name
from ..widgets import PREFIX_DEFAULT
from . import reader, sampling

SAMPLERS = (sampling.STREAMED,)
ORDERS: dict[str, tuple[Order, ...]] = {
    sampling.STREAMED: (
        {"width": int, "height": int, "cfg": float, "audio_scale": float, "length": int, "motion_frame_count": int}
        | {"max_frame_num": int, "color_correction_strength": float, "seam_frames": int, "crf": int}
        | {"filename_prefix": str},
    ),
}


def read(graph: Graph, sampler: str, files: Files) -> Exported:
    """The settings of one of these samplers.

    Raises:
        InputError: something in the graph has no equivalent, or is missing.
    """
    orders = {**media.ORDERS, **conditioning.ORDERS, **sampling.ORDERS, **reader.ORDERS, **ORDERS}
    graph, notes = with_names(graph, orders), Notes()
    node = graph.nodes[sampler]
    values = reader.conditions(graph, node, files, notes) | _own(graph, node, notes)
    with notes.part():
        slot = "video" if "video" in node.links else "image"
        values |= reader.shown(graph, node, slot, files, notes)
    with notes.part():
        values |= reader.image_encoder(graph, node, slot, files, notes)
    with notes.part():
        sampled = sampling.sampled_by(graph, node, notes)
        values |= {**sampled.settings, "base_seed": sampled.seed, "noise": "comfy_counting"}
        words = "conditioning" if sampled.model.kind == "BasicGuider" else "positive"
        values |= prompt_settings(graph, sampled.model, words, "negative", files, notes)
        values |= sampling.model_settings(graph, node, sampled.model, files, notes)
    with notes.part():
        _check_sound(graph, node, values, files, notes)
    settings = Settings.of(values)
    with notes.part():
        validate(settings)
    notes.check(graph.name)
    notes.extend(media.idle(_without_export(graph), node))
    return Exported(settings, (*notes.said, *files.notes()), notes.take)


def _without_export(graph: Graph) -> Graph:
    """The graph without the nodes that only make this command."""
    return replace(graph, nodes={id: node for id, node in graph.nodes.items() if node.kind != "InfiniteTalkExport"})


def _own(graph: Graph, node: Node, notes: Notes) -> Values:
    """How windows follow each other and are finished, and the video's name."""
    values: Values = {}
    with notes.part():
        values["color_correction_strength"] = float(number(graph, node, "color_correction_strength", 1.0))
    with notes.part():
        values["seam_frames"] = whole(graph, node, "seam_frames", 0)
    with notes.part():
        values["crf"] = whole(graph, node, "crf", 18)
    with notes.part():
        if longest := whole(graph, node, "max_frame_num", 0):
            values["max_frame_num"] = longest
    with notes.part():
        values["save_file"] = save_name(text(graph, node, "filename_prefix", PREFIX_DEFAULT))
    return values


def _check_sound(graph: Graph, node: Node, values: Values, files: Files, notes: Notes) -> None:
    """The finished video carries the file that the speech is from.

    Raises:
        InputError: in the graph it carries another.
    """
    if feeding(graph, node, "audio") is None:
        notes.append(f"{node}: audio is not linked, so its video is silent; the command's carries the speech.")
        return
    carried = media.sound(graph, node, "audio", files, notes.quiet())
    if carried.source != values.get("audio"):
        raise refusal(graph, node, "carries another sound than the one that is spoken; link that to its audio")
