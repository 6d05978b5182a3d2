"""Pictures, videos and sound in graphs of other packs: which file they come from, and what happens to them.

Walks up from a node's input to a Load node, past what the command line does as well (resizing) or can leave
out (vocal separation, with a note), and down from a sampler to the node that writes the video. Knows the nodes of
ComfyUI itself, KJNodes, VideoHelperSuite and a few of others; knows no sampler.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ...export.exported import Files
from ...facts.downloads import VOICE_SEPARATOR
from ...facts.resizing import PADS
from ...media.audio import open_audio
from ...settings.roles import Values
from ..graph import Graph, Node, after, before, computed, linked, number, refusal, text, value, whole
from ..notes import Notes
from ..orders import Order
from .conditioning import of_kind, weights
from .sizes import RESIZING, SAME_SIZE
from .sources import PICTURES, source_of

FPS = 25

_ANY = object
ORDERS: dict[str, tuple[Order, ...]] = {
    "LoadImage": ({"image": str, "upload": _ANY},),
    "LoadImageOutput": ({"image": str, "upload": _ANY},),
    "LoadAudio": ({"audio": str, "audioUI": _ANY, "upload": _ANY},),
    "LoadVideo": ({"file": str, "upload": _ANY},),
    "ImageResizeKJv2": (
        {"width": int, "height": int, "upscale_method": str, "keep_proportion": str, "pad_color": str}
        | {"crop_position": str, "divisible_by": int, "device": str, "per_batch": int},
        {"width": int, "height": int, "upscale_method": str, "keep_proportion": str, "pad_color": str}
        | {"crop_position": str, "divisible_by": int},
    ),
    "ImageResizeKJ": (
        {
            "width": int,
            "height": int,
            "upscale_method": str,
            "keep_proportion": bool,
            "divisible_by": int,
            "crop": _ANY,
        },
    ),
    "ImageScale": ({"upscale_method": str, "width": int, "height": int, "crop": str},),
    "ImageResize+": (
        {"width": int, "height": int, "interpolation": str, "method": str, "condition": str, "multiple_of": int},
    ),
    "ImageScaleBy": ({"upscale_method": str, "scale_by": float},),
    "ImageScaleToTotalPixels": ({"upscale_method": str, "megapixels": float, "resolution_steps": int},),
    "ImageScaleToMaxDimension": ({"upscale_method": str, "largest_size": int},),
    "GetImageRangeFromBatch": ({"start_index": int, "num_frames": int},),
    "ImageFromBatch": ({"batch_index": int, "length": int},),
    "AudioSeparation": ({"chunk_fade_shape": str, "chunk_length": float, "chunk_overlap": float},),
    "MelBandRoFormerModelLoader": ({"model_name": str},),
    "AudioCrop": ({"start_time": str, "end_time": str},),
    "TrimAudioDuration": ({"start_index": float, "duration": float},),
    "SaveVideo": ({"filename_prefix": str, "format": str, "codec": str},),
    "CreateVideo": ({"fps": float},),
}

_FIRST_OF_BATCH = {"GetImageRangeFromBatch": "start_index", "ImageFromBatch": "batch_index"}
_HEARD = {"MultiTalkWav2VecEmbeds": "audio_1"}  # nodes that pass on what the speech encoder hears
_PASSED = {"InfiniteTalkAutoSampler": "audio"}  # and sound as it came
# nodes that take a voice out of a mix: their input, and the output that is the voice
_SEPARATION = {"AudioSeparation": ("audio", 3), "MelBandRoFormerSampler": ("audio", 0)}
_DEMUCS = "hdemucs_high_trained.pt"  # which torchaudio downloads for AudioSeparation
_CHUNKS = {"chunk_fade_shape": "linear", "chunk_length": 10, "chunk_overlap": 0.1}
_DECODERS = ("WanVideoDecode", "WanVideoPassImagesFromSamples", "VAEDecode", "VAEDecodeTiled")
_JOINS = ("ImageBatch", "BatchImagesNode", "ImageBatchMulti")  # one window to the next
_UNTOUCHED = (*_DECODERS, *_JOINS, "CreateVideo", "PreviewImage", *SAME_SIZE)
_VOICE = "separate_voice"
_WRITERS = ("VHS_VideoCombine", "SaveVideo")


@dataclass(frozen=True)
class Picture:
    """Where a picture comes from.

    Attributes:
        setting: "image" or "video".
        source: its file.
        resizing: the nodes that resize it, the first one first.
    """

    setting: str
    source: Path
    resizing: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Sound:
    """Where sound comes from, and what is done to it on the way.

    Attributes:
        frames: of video that its beginning is cut to; None: whole.
        separator: the network that takes the voice out of it.
        is_speech: whether it is what a node made of it for the speech encoder.
    """

    source: Path
    frames: int | None = None
    separator: Path | None = None
    is_speech: bool = False

    @property
    def seconds(self) -> float | None:
        """How long it lasts; None where the file is not here."""
        if not self.source.is_file():
            return None
        audio = open_audio(self.source)
        whole = audio.num_samples / audio.sample_rate
        return whole if self.frames is None else min(whole, self.frames / FPS)

    @property
    def kept(self) -> str:
        """What of it is heard, as --output_sound has it."""
        return "speech" if self.is_speech else "voice" if self.separator else "original"


def picture(graph: Graph, node: Node, slot: str, files: Files, notes: Notes, exact: bool = False) -> Picture:
    """The picture or video that goes into an input.

    Args:
        exact: whether the command resizes as the graph does, so that nothing is to be said of it.

    Raises:
        InputError: it is computed by a node that has no equivalent, or only a part of a video is used.
    """
    source = linked(graph, node, slot)
    resizing: list[Node] = []
    while source.kind in RESIZING or source.kind in SAME_SIZE:
        with notes.part():
            if source.kind in RESIZING:
                resizing.insert(0, source)
                _check_resize(graph, source, notes.quiet() if exact else notes, exact)
            elif value(graph, source, _FIRST_OF_BATCH.get(source.kind, ""), 0) != 0:
                raise refusal(
                    graph, source, "takes a frame out of the middle, which has no equivalent; save it as a file"
                )
        source = linked(graph, source, SAME_SIZE.get(source.kind, "image"))
    if source.kind in PICTURES:
        return Picture("image", source_of(graph, source, files), tuple(resizing))
    video = _video(graph, source, files, notes)
    if video is not None:
        return Picture("video", video, tuple(resizing))
    raise refusal(
        graph,
        node,
        f"its {slot} is made by {source}, which has no equivalent here; save that picture or video as a file and load "
        "it with LoadImage or VHS_LoadVideo",
    )


def _video(graph: Graph, source: Node, files: Files, notes: Notes) -> Path | None:
    if source.kind in ("GetVideoComponents", "LoadVideo"):
        return source_of(graph, source, files)
    if source.kind not in ("VHS_LoadVideo", "VHS_LoadVideoPath"):
        return None
    for name, usual in (("skip_first_frames", 0), ("frame_load_cap", 0), ("select_every_nth", 1)):
        with notes.part():
            if (found := value(graph, source, name, usual)) != usual:
                only = f"{name} is {found}, so only a part of the video is used"
                raise refusal(graph, source, f"{only}; cut the file, and set {usual}")
    return source_of(graph, source, files)


def _check_resize(graph: Graph, node: Node, notes: Notes, exact: bool) -> None:
    """Says what a node does to a picture other than cropping to the video's shape.

    Raises:
        InputError: that has no equivalent.
    """
    if node.kind not in ("ImageResizeKJv2", "ImageResizeKJ", "ImageScale", "ImageResize+"):
        return  # which keep the picture's shape
    how = {
        "ImageResizeKJv2": lambda: value(graph, node, "keep_proportion"),
        "ImageResizeKJ": lambda: "resize" if value(graph, node, "keep_proportion") else "stretch",
        "ImageScale": lambda: "crop" if value(graph, node, "crop") == "center" else "stretch",
        "ImageResize+": lambda: value(graph, node, "method"),
    }[node.kind]()
    if how in PADS and node.kind == "ImageResizeKJv2" and exact:
        return
    if how in (*PADS, "pillarbox_blur"):
        raise refusal(graph, node, f"{how} puts bars around the picture, which has no equivalent; crop it instead")
    if how in ("crop", "fill / crop"):
        position = value(graph, node, "crop_position", "center")
        if position != "center":
            notes.other(
                "another part of the picture is shown",
                f"{node}: crops at the {position}; here the middle of the picture is kept.",
            )
    elif how == "stretch":
        notes.other(
            "the picture is not stretched",
            f"{node}: stretches the picture; here it is cropped to the video's shape, undistorted.",
        )
    elif how != "total_pixels":
        notes.near(
            "how the picture is fitted",
            f"{node}: {how} fits the picture into a box; here it is cropped to the shape of --size.",
        )


def sound(graph: Graph, node: Node, slot: str, files: Files, notes: Notes) -> Sound:
    """The sound that goes into an input.

    Raises:
        InputError: it is computed by a node that has no equivalent, or its beginning is cut off.
    """
    frames: list[float] = []
    separator, is_speech = None, False
    while True:
        source = linked(graph, node, slot)
        if source.kind in _SEPARATION:
            following, voice = _SEPARATION[source.kind]
            if node.links[slot].output != voice:
                notes.refuse(refusal(graph, source, "an output that is not the voice drives the lips; link the voice"))
            with notes.part():
                separator = _separator(graph, source, files, notes)
            node, slot = source, following
        elif source.kind in _CUTS:
            with notes.part():
                frames.append(_CUTS[source.kind](graph, source) * FPS)
            node, slot = source, "audio"
        elif source.kind in _PASSED:
            node, slot = source, _PASSED[source.kind]
        elif source.kind in _HEARD:
            is_speech = True
            node, slot = source, _HEARD[source.kind]
        else:
            break
    found = _sound_file(graph, source, files, notes, frames)
    if found is None:
        raise refusal(
            graph,
            node,
            f"its {slot} is made by {source}, which has no equivalent here; save that sound as a file and load it "
            "with LoadAudio",
        )
    cuts = [round(cut) for cut in frames if cut > 0]
    return Sound(found, min(cuts) if cuts else None, separator, is_speech)


def _separator(graph: Graph, node: Node, files: Files, notes: Notes) -> Path:
    """The network that a node separates a voice with."""
    if node.kind == "MelBandRoFormerSampler":
        return weights(graph, of_kind(graph, node, "model", "MelBandRoFormerModelLoader"), "model_name", _VOICE, files)
    for name, usual in _CHUNKS.items():
        if (found := value(graph, node, name, usual)) != usual:
            notes.other(
                "the voice is separated in other chunks",
                f"{node}: {name} {found} is left out; here it is always {usual}.",
            )
    try:
        return files.model(_VOICE, _DEMUCS)
    except InputError:
        notes.append(
            f"{node}: its weights, {_DEMUCS}, are where torchaudio puts its downloads; --separate_voice names them, "
            f"get it with: {VOICE_SEPARATOR}"
        )
        return Path("weights", _DEMUCS)


def _sound_file(graph: Graph, source: Node, files: Files, notes: Notes, frames: list[float]) -> Path | None:
    if source.kind == "LoadAudio":
        return source_of(graph, source, files)
    if source.kind in ("VHS_LoadAudio", "VHS_LoadAudioUpload"):
        start = "seek_seconds" if source.kind == "VHS_LoadAudio" else "start_time"
        with notes.part():
            kept = _seconds_kept(graph, source, number(graph, source, start, 0), number(graph, source, "duration", 0))
            frames.append(kept * FPS)
        return source_of(graph, source, files)
    return _video(graph, source, files, notes)


def _crop(graph: Graph, node: Node) -> float:
    start, end = (_clock(graph, node, name) for name in ("start_time", "end_time"))
    return _seconds_kept(graph, node, start, end)


def _trim(graph: Graph, node: Node) -> float:
    return _seconds_kept(graph, node, number(graph, node, "start_index"), number(graph, node, "duration"))


# nodes that keep a part of the sound -> how many seconds from its beginning, 0 for all
_CUTS: dict[str, Callable[[Graph, Node], float]] = {"AudioCrop": _crop, "TrimAudioDuration": _trim}


def _seconds_kept(graph: Graph, node: Node, start: float, duration: float) -> float:
    if start != 0:
        raise refusal(graph, node, "cuts the beginning of the sound off, which has no equivalent; cut the file")
    return duration


def _clock(graph: Graph, node: Node, name: str) -> float:
    """Seconds of a text like "1:30"."""
    text = str(value(graph, node, name))
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise refusal(graph, node, f"{name} is {text!r}, where a time like 1:30 was expected")
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def output(graph: Graph, sampler: Node, speech: Path | None, files: Files, notes: Notes) -> Values:
    """``save_file``, ``crf`` and ``output_sound`` of what writes the video, and notes on what is done before it.

    Args:
        speech: the file that the command takes the video's sound from.
    """
    following = after(graph, sampler)
    writers = [node for node in following.values() if node.kind in _WRITERS]
    if not writers:
        notes.append("No node of the graph saves the video; the command names it by size, prompt and time.")
        return {}
    writer = writers[0]
    if len(writers) > 1:
        notes.append(f"The graph saves the video {len(writers)} times; the command does what {writer} does.")
    for name, node in before(graph, writer).items():
        if name in following and node is not writer and node.kind not in _UNTOUCHED:
            notes.append(f"{node}: comes after the sampler and is left out; run it on the finished video.")
    name = PurePosixPath(text(graph, writer, "filename_prefix").replace("\\", "/")).name
    name = re.sub(r'[<>:"|?*%\x00-\x1f]', "_", name)
    found: Values = {"save_file": Path(name)} if name else {}
    if writer.kind == "VHS_VideoCombine":
        found |= _combine(graph, writer, notes)
    return found | _carried_sound(graph, writer, speech, files, notes)


def _combine(graph: Graph, node: Node, notes: Notes) -> Values:
    """The quality of a VHS_VideoCombine, and notes on its other widgets."""
    form = text(graph, node, "format")
    trimmed: Values = {}
    with notes.part():
        trimmed["whole_windows"] = not value(graph, node, "trim_to_audio", False)
    if source := computed(graph, node, "frame_rate"):
        notes.append(f"{node}: frame_rate, computed by {source}, is left out; the model speaks at {FPS} a second.")
    elif (rate := number(graph, node, "frame_rate", FPS)) != FPS:
        notes.append(f"{node}: frame_rate {rate:g} is left out; the model speaks at {FPS} frames a second.")
    if value(graph, node, "pingpong", False):
        notes.append(f"{node}: pingpong is left out.")
    if form == "video/h264-mp4":
        return trimmed | ({"crf": whole(graph, node, "crf")} if "crf" in node.values else {})
    notes.append(f"{node}: format {form} is left out, the command writes H.264 in .mp4.")
    return trimmed


def _carried_sound(graph: Graph, writer: Node, speech: Path | None, files: Files, notes: Notes) -> Values:
    """Which sound the video carries: the original, the voice in it, or what the model hears."""
    owner = writer
    if writer.kind == "SaveVideo":
        owner = linked(graph, writer, "video")
    if "audio" not in owner.links:
        notes.append(f"{owner}: writes no sound; the command's video has the speech.")
        return {}
    try:
        written = sound(graph, owner, "audio", files, Notes())
    except InputError:
        written = None
    if written is None or written.source != speech:
        notes.append(f"{owner}: writes another sound than the one that drives the lips; the command writes that one.")
        return {}
    return {} if written.kept == "original" else {"output_sound": written.kept}


def idle(graph: Graph, sampler: Node) -> list[str]:
    """Notes on the nodes that the sampler's video has nothing from."""
    followed = after(graph, sampler)
    used = before(graph, sampler, *followed.values())
    notes = [f"{node}: nothing of the video comes from it." for name, node in graph.nodes.items() if name not in used]
    return notes + [f"{each.node}: {each.why} in the graph, so nothing of it is done here." for each in graph.skipped]
