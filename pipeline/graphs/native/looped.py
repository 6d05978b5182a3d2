"""Graphs of comfyui-infinitetalk-native-sampler's node, which makes all windows of a video with ComfyUI's own parts.

It conditions each window as WanInfiniteTalkToVideo does, samples it as a KSampler does, with the next seed for each,
and ends with the sound. Knows that node; the parts are read where the core's are.
"""

from __future__ import annotations

from ...export.exported import Exported, Files
from ...settings.definition import Settings
from ...settings.roles import Values
from ...settings.validation import validate
from ..foreign import conditioning, media
from ..foreign.conditioning import prompt_settings
from ..graph import Graph, Node, number, refusal
from ..notes import Notes
from ..orders import CONTROL, Order, with_names
from . import reader, sampling

SAMPLERS = (sampling.LOOPED,)
ORDERS: dict[str, tuple[Order, ...]] = {
    sampling.LOOPED: (
        {"width": int, "height": int, "length": int, "motion_frame_count": int, "audio_scale": float, "seed": int}
        | {CONTROL: str, "steps": int, "cfg": float, "sampler_name": str, "scheduler": str, "denoise": float}
        | {"framerate": int},
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
    values: Values = {"color_correction_strength": 0.0, **reader.conditions(graph, node, files, notes)}
    with notes.part():
        _check(graph, node)
    with notes.part():
        values |= reader.shown(graph, node, "start_image", files, notes)
    with notes.part():
        values |= reader.image_encoder(graph, node, "start_image", files, notes)
    with notes.part():
        sampled = sampling.sampled_by(graph, node, notes)
        values |= {**sampled.settings, "base_seed": sampled.seed, "noise": "comfy_counting"}
    values |= prompt_settings(graph, node, "positive", "negative", files, notes)
    with notes.part():
        values |= sampling.model_settings(graph, node, node, files, notes)
    settings = Settings.of(values)
    with notes.part():
        settings = settings.replace(**media.output(graph, node, settings.audio, files, notes)).replace(
            whole_windows=False
        )
    with notes.part():
        validate(settings)
    notes.check(graph.name)
    notes.near("its last frame, in which the sound ends")
    notes.extend(media.idle(graph, node))
    return Exported(settings, (*notes.said, *files.notes()), notes.take)


def _check(graph: Graph, node: Node) -> None:
    """One speaker, at the model's rate.

    Raises:
        InputError: there are two, or frames are of another length.
    """
    if "audio_encoder_output_2" in node.links:
        raise refusal(graph, node, "audio_encoder_output_2 is linked, but there is one speaker here; unlink it")
    if (rate := number(graph, node, "framerate", media.FPS)) != media.FPS:
        raise refusal(graph, node, f"framerate is {rate:g}, but the model speaks at {media.FPS}; set it to that")
