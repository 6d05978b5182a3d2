"""Graphs of ComfyUI's own InfiniteTalk nodes as settings.

There each window is a node of its own, WanInfiniteTalkToVideo, with a sampler behind it, and the next one is fed
with all frames so far. A chain of them is one video: its windows must agree, and its length becomes
``max_frame_num``. Noise, solvers, and what is done to speech and picture are core's (``--pack comfy``); what has no
equivalent is refused. Knows windows; ``native_sampling`` knows what samples them.
"""

from __future__ import annotations

from collections.abc import Callable

from ...export.exported import Exported, Files
from ...settings.definition import Settings
from ...settings.roles import Values
from ...settings.validation import validate
from ..foreign import conditioning, media, sizes
from ..foreign.conditioning import of_kind, prompt_settings, weights
from ..foreign.resizing import steps_of
from ..graph import Graph, Node, after, before, feeding, number, refusal, text, whole
from ..notes import Notes
from ..orders import Order, with_names
from . import sampling as native_sampling
from .sampling import Sampling

SAMPLERS = ("WanInfiniteTalkToVideo",)
LATENT = 3  # the output that a sampler takes
ORDERS: dict[str, tuple[Order, ...]] = {
    "WanInfiniteTalkToVideo": (
        {"mode": str, "width": int, "height": int, "length": int, "motion_frame_count": int, "audio_scale": float},
    ),
    "ModelPatchLoader": ({"name": str},),
    "AudioEncoderLoader": ({"audio_encoder_name": str},),
    "CLIPVisionEncode": ({"crop": str},),
    "VAELoader": ({"vae_name": str},),
}
_MOST_WINDOWS = 500  # half an hour of video
_FIT = "bilinear,middle"  # what WanInfiniteTalkToVideo does to a picture


def earlier_windows(graph: Graph) -> set[str]:
    """The windows that others go on from: not a video by themselves."""
    windows = [node for node in graph.nodes.values() if node.kind in SAMPLERS]
    previous = [feeding(graph, window, "previous_frames") for window in windows]
    behind = before(graph, *(node for node in previous if node is not None))
    return {window.id for window in windows if window.id in behind}


def read(graph: Graph, sampler: str, files: Files) -> Exported:
    """The settings of the video that ends with a window.

    Raises:
        InputError: something in the graph has no equivalent, is missing, or windows differ.
    """
    graph = with_names(graph, {**media.ORDERS, **conditioning.ORDERS, **native_sampling.ORDERS, **ORDERS})
    windows = _chain(graph, graph.nodes[sampler])
    first, notes = windows[0], Notes()
    values = _alike(
        graph, windows, lambda window: _window(graph, window, files, notes if window is first else notes.quiet()), notes
    )
    samplings: list[Sampling] = []
    for window in windows:
        with notes.part():
            said = notes if window is first else notes.quiet()
            samplings.append(native_sampling.read(graph, window, LATENT, said))
    if len(samplings) == len(windows):
        values |= _sampling(samplings, notes)
        with notes.part():
            values |= native_sampling.model_settings(graph, first, samplings[0].model, files, notes)
    settings = Settings.of(values)
    settings = settings.replace(max_frame_num=_length(settings, len(windows), notes))
    if len(samplings) == len(windows):
        with notes.part():
            settings = settings.replace(**media.output(graph, samplings[-1].node, settings.audio, files, notes))
    with notes.part():
        validate(settings)
    if any(node.kind == "VAEDecodeTiled" for node in after(graph, windows[0]).values()):
        notes.near("the tiles of the VAE")
    notes.check(graph.name)
    notes.extend(media.idle(graph, graph.nodes[sampler]))
    return Exported(settings, (*notes.said, *files.notes()), notes.take)


def _chain(graph: Graph, last: Node) -> list[Node]:
    """The windows of a video, the first first."""
    windows = [last]
    while (previous := feeding(graph, windows[0], "previous_frames")) is not None:
        earlier = _nearest_windows(graph, previous)
        if len(windows) > _MOST_WINDOWS or len(earlier) > _MOST_WINDOWS:
            raise refusal(graph, last, f"has more than {_MOST_WINDOWS} windows before it; give a shorter chain")
        if len(earlier) > 1:  # frames of several windows together: the one that all others are behind
            behind = before(graph, *(source for node in earlier for source in _sources(graph, node)))
            earlier = [node for node in earlier if node.id not in behind]
        if len(earlier) != 1:
            raise refusal(graph, windows[0], f"previous_frames comes from {previous}, which no window is behind")
        windows.insert(0, earlier[0])
    return windows


def _sources(graph: Graph, node: Node) -> list[Node]:
    return [graph.nodes[origin.node] for origin in node.links.values() if origin.node in graph.nodes]


def _nearest_windows(graph: Graph, node: Node) -> list[Node]:
    """The windows that something of a node comes from, without those that only come before them."""
    found: dict[str, Node] = {}
    seen: set[str] = set()
    ahead = [node]
    while ahead:
        node = ahead.pop()
        if node.id in seen:
            continue
        seen.add(node.id)
        if node.kind in SAMPLERS:
            found[node.id] = node
        else:
            ahead += _sources(graph, node)
    return list(found.values())


def _alike(graph: Graph, windows: list[Node], settings_of: Callable[[Node], Values], notes: Notes) -> Values:
    """What all windows say."""
    found = [settings_of(window) for window in windows]
    for window, settings in zip(windows[1:], found[1:], strict=True):
        for name, said in settings.items():
            if found[0].get(name, said) != said:
                both = f"{name} ({said} and {found[0][name]})"
                notes.refuse(
                    refusal(graph, window, f"differs from {windows[0]} in {both}; windows of a video are alike here")
                )
    return found[0]


def _window(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    values: Values = {"color_correction_strength": 0.0, "whole_windows": True}
    with notes.part():
        mode = text(graph, node, "mode", "single_speaker")
        if mode != "single_speaker" or any(slot.endswith("audio_encoder_output_2") for slot in node.links):
            raise refusal(graph, node, f"its mode is {mode}, but there is one speaker here; set it to single_speaker")
    with notes.part():
        if "start_image" in node.links or "previous_frames" not in node.links:
            values |= shown(graph, node, "start_image", files, notes)
        else:
            notes.other("a later window is shown no picture", f"{node}: has no start_image; here every window has.")
    values |= prompt_settings(graph, node, "positive", "negative", files, notes)
    with notes.part():
        values |= image_encoder(graph, node, "start_image", files, notes)
    return values | conditions(graph, node, files, notes)


def conditions(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    """Speech, size, length, VAE and InfiniteTalk of a window, which our sampler takes by the same names."""
    values: Values = {"sample_audio_guide_scale": 1.0, "pack": "comfy"}
    with notes.part():
        values["speech_strength"] = float(number(graph, node, "audio_scale", 1.0))
    with notes.part():
        values |= _speech(graph, node, files, notes)
    with notes.part():
        values |= sizes.size(graph, node, files, notes)
    with notes.part():
        values["frame_num"] = (whole(graph, node, "length") - 1) // 4 * 4 + 1
    with notes.part():
        values["motion_frame"] = whole(graph, node, "motion_frame_count")
    with notes.part():
        values["vae"] = weights(graph, of_kind(graph, node, "vae", "VAELoader"), "vae_name", "vae", files)
    with notes.part():
        patch = of_kind(graph, node, "model_patch", "ModelPatchLoader")
        if "multitalk" in (name := text(graph, patch, "name")).lower() and "infinite" not in name.lower():
            raise refusal(graph, patch, f"{name} are MultiTalk's weights by their name; choose InfiniteTalk's")
        values["infinitetalk_dir"] = weights(graph, patch, "name", "infinitetalk_dir", files)
    return values


def shown(graph: Graph, node: Node, slot: str, files: Files, notes: Notes) -> Values:
    """The picture that goes into an input, and how it is resized."""
    start = media.picture(graph, node, slot, files, notes, exact=True)
    if start.setting == "video" and slot != "video":
        raise refusal(
            graph,
            node,
            "is fed with a video, whose frames it keeps as they are; here a video is a reference: load a picture, or "
            "use the nodes of this pack",
        )
    steps = steps_of(graph, start.resizing, None, sizes.Where(files, notes.quiet()))
    if steps is None:
        names = ", ".join(map(str, start.resizing))
        notes.near(
            "how the picture is resized",
            f"{names}: how the picture is resized is not known in full, or has no equivalent; it is scaled bilinearly "
            "until it covers the video's size, and its middle is cut out.",
        )
    return {start.setting: start.source, "resize": (*(steps or ()), _FIT)}


def _speech(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    encode = of_kind(graph, node, "audio_encoder_output_1", "AudioEncoderEncode")
    loader = of_kind(graph, encode, "audio_encoder", "AudioEncoderLoader")
    heard = media.sound(graph, encode, "audio", files, notes)
    limit = {} if heard.frames is None else {"max_frame_num": heard.frames}
    return {
        "audio": heard.source,
        **({} if heard.separator is None else {"separate_voice": heard.separator}),
        "wav2vec_dir": weights(graph, loader, "audio_encoder_name", "wav2vec_dir", files),
        **limit,
    }


def image_encoder(graph: Graph, node: Node, slot: str, files: Files, notes: Notes) -> Values:
    """CLIP, which sees the picture of an input."""
    encode = feeding(graph, node, "clip_vision_output")
    if encode is None:
        notes.append(
            f"{node}: clip_vision_output is not linked: --clip_crop off. The file of --clip_vision is not used then, "
            "but has to be there."
        )
        return {"clip_crop": "off"}
    if encode.kind != "CLIPVisionEncode":
        raise refusal(graph, encode, "this use of the image encoder has no equivalent; use CLIPVisionEncode")
    loader = of_kind(graph, encode, "clip_vision", "CLIPVisionLoader")
    found: Values = {"clip_vision": weights(graph, loader, "clip_name", "clip_vision", files)}
    with notes.part():
        if text(graph, encode, "crop", "center") == "none":
            found["clip_crop"] = "squeeze"
    if slot in node.links:
        start = media.picture(graph, node, slot, files, notes.quiet(), exact=True)
        seen = media.picture(graph, encode, "image", files, notes.quiet(), exact=True)
        if seen.source != start.source:
            raise refusal(graph, encode, "encodes another picture than the one that is shown; link the same")
        if seen.resizing != start.resizing:
            notes.near(
                "what CLIP sees",
                f"{encode}: sees the picture resized otherwise than {node}; here it sees what that node is given.",
            )
    return found


def _sampling(samplings: list[Sampling], notes: Notes) -> Values:
    """What all samplers say; seeds may differ."""
    first = samplings[0]
    for other in samplings[1:]:
        for name, said in other.settings.items():
            if (before_it := first.settings.get(name, said)) != said:
                both = f"{name} ({said} and {before_it})"
                sentence = f"differs from {first.node} in {both}; windows of one video are sampled alike here"
                notes.refuse(refusal(other.graph, other.node, sentence))
    seeds = tuple(sampling.seed for sampling in samplings)
    own: Values = {"window_seeds": seeds} if len(set(seeds)) > 1 else {}
    return {**first.settings, "base_seed": first.seed, "noise": "comfy", **own}


def _length(s: Settings, windows: int, notes: Notes) -> int:
    """Frames of all windows together, at most as many as the sound is cut to."""
    frames = s.frame_num + (windows - 1) * (s.frame_num - s.motion_frame)
    frames = frames if s.max_frame_num is None else min(frames, s.max_frame_num)
    notes.append(
        f"The graph makes {windows} window{'s' if windows > 1 else ''}: --max_frame_num {frames}. Leave it out, and "
        "the video is as long as the speech. Windows behind the end of the speech are not made."
    )
    notes.append(
        "ComfyUI's own nodes correct no colours: --color_correction_strength 0. Long videos drift less with 1."
    )
    notes.append(
        "ComfyUI's own nodes have no guidance by speech: --sample_audio_guide_scale 1. With 2, lips follow it more."
    )
    return frames
