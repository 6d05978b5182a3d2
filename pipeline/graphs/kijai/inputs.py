"""What goes into the sampler of a graph of ComfyUI-WanVideoWrapper: prompt, reference, windows, speech.

Knows the nodes that make text, image and speech embeddings there; knows nothing of sampling.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...export.exported import Files
from ...facts.colours import BROKEN, COLOURS
from ...media.audio import FPS
from ...settings.roles import Values
from ..foreign import media, sizes
from ..foreign.arithmetic import computed_number
from ..foreign.conditioning import negative_prompt, of_kind, prompt_settings, weights
from ..foreign.prompts import wrapper_prompt
from ..foreign.resizing import steps_of
from ..graph import Graph, Node, computed, feeding, left_open, linked, number, refusal, text, value, whole
from ..notes import Notes

_SPEECH_MUST_BE = {"fps": 25}
_LENGTHS = tuple(number / 10 for number in range(1, 36_000, 7))  # seconds that speech may last, to try
_SPEECH_OFF = ("add_noise_floor", "smooth_transients")
_CLIP_MUST_BE = {"tiles": 0}


def text_settings(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    """Prompts and the text encoder, from the node that goes into text_embeds.

    Raises:
        InputError: the prompt is more than a text for the whole video, or made in another way.
    """
    if node.kind == "WanVideoTextEmbedBridge":
        return prompt_settings(graph, node, "positive", "negative", files, notes)
    if node.kind not in ("WanVideoTextEncode", "WanVideoTextEncodeCached"):
        raise refusal(graph, node, "this way of making the prompt has no equivalent here; use WanVideoTextEncode")
    if "extender_args" in node.links:
        notes.refuse(refusal(graph, node, "a language model rewrites the prompt; unlink extender_args"))
    found: Values = {}
    with notes.part():
        found["prompt"] = _prompt(graph, node)
    with notes.part():
        found |= negative_prompt(text(graph, node, "negative_prompt"))
    with notes.part():
        found["t5_cpu"] = value(graph, node, "device", "gpu") == "cpu"
    with notes.part():
        found["text_encoder"] = _text_encoder(graph, node, files, notes)
    return found


def _prompt(graph: Graph, node: Node) -> str:
    if (unfilled := left_open(node, "positive_prompt")) is not None:
        return unfilled
    prompt = text(graph, node, "positive_prompt")
    if "|" in prompt or "[1]" in prompt:
        raise refusal(
            graph, node, "has several prompts, for parts of the video; here is one for all of it: write one, without |"
        )
    try:
        return wrapper_prompt(prompt)
    except InputError as error:
        raise refusal(graph, node, str(error)) from error


def _text_encoder(graph: Graph, node: Node, files: Files, notes: Notes) -> Path:
    cached = node.kind == "WanVideoTextEncodeCached"
    encoder = node if cached else of_kind(graph, node, "t5", "LoadWanVideoT5TextEncoder")
    if (stored := value(graph, encoder, "quantization", "disabled")) != "disabled":
        notes.append(f"{encoder}: quantization {stored} is left out; the text encoder stays as its file has it.")
    notes.append(
        f"{encoder}: that pack brings a tokenizer along; here it is looked for beside the text encoder, or given with "
        "--tokenizer."
    )
    return weights(graph, encoder, "model_name", "text_encoder", files)


def frame_settings(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    """Reference, size, windows, colours, VAE and image encoder, from the node that goes into image_embeds.

    Raises:
        InputError: it is no InfiniteTalk node, or what it is fed with has no equivalent.
    """
    if node.kind != "WanVideoImageToVideoMultiTalk":
        raise refusal(graph, node, "makes no InfiniteTalk video; WanVideoImageToVideoMultiTalk does")
    with notes.part():
        if value(graph, node, "mode", "auto") == "multitalk":
            raise refusal(graph, node, "its mode is multitalk, an older model; set it to infinitetalk")
    found: Values = {"pack": "kijai"}
    with notes.part():
        found |= _shown(graph, node, files, notes)
    with notes.part():
        found["frame_num"] = (whole(graph, node, "frame_window_size") - 1) // 4 * 4 + 1
    with notes.part():
        found["motion_frame"] = whole(graph, node, "motion_frame")
    with notes.part():
        found |= _colours(graph, node, notes)
    with notes.part():
        found |= sizes.size(graph, node, files, notes)
    with notes.part():
        found |= _resizing(graph, node, str(found.get("size", "")), files, notes)
    with notes.part():
        vae = of_kind(graph, node, "vae", "WanVideoVAELoader")
        found["vae"] = weights(graph, vae, "model_name", "vae", files)
    if value(graph, node, "output_path", ""):
        notes.append(f"{node}: output_path is left out; each window is added to the video as soon as it is done.")
    return found


def _shown(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    """The reference, and the image encoder, which has to see the same."""
    found: Values = {}
    start = None
    with notes.part():
        start = media.picture(graph, node, "start_image", files, notes, exact=True)
        found[start.setting] = start.source
        if start.setting == "video":
            notes.other(
                "the video is read by time",
                f"{node}: the graph shows window n the frame n of the video, nearly a still picture; here the video is "
                "read by time, as InfiniteTalk was made for.",
            )
    return found | _image_encoder(graph, node, start, files, notes)


def _resizing(graph: Graph, node: Node, size: str, files: Files, notes: Notes) -> Values:
    """``--resize``: what nodes do to the picture, and then this one, which stretches it where sizes differ."""
    nodes = media.picture(graph, node, "start_image", files, notes.quiet(), exact=True).resizing
    sides = tuple(int(side) for side in size.split("x")) if "x" in size else ()
    video = (sides[0], sides[1]) if len(sides) == 2 else None
    steps = steps_of(graph, nodes, video, sizes.Where(files, notes.quiet()))
    if steps is None:
        names = ", ".join(map(str, nodes))
        notes.near(
            "how the picture is resized",
            f"{names}: how the picture is resized is not known in full, or has no equivalent; it is scaled bilinearly "
            "until it covers the video's size, and its middle is cut out.",
        )
        return {}
    return {"resize": steps or ("lanczos,stretch",)}


def _colours(graph: Graph, node: Node, notes: Notes) -> Values:
    match = text(graph, node, "colormatch")
    if match == "disabled":
        return {"color_correction_strength": 0.0}
    if match in BROKEN:
        raise refusal(graph, node, f"colormatch {match} makes every frame NaN in that pack; choose mkl, or disabled")
    row = next((row for row in COLOURS.values() if match in row.color_matcher), None)
    if row is None:
        raise refusal(graph, node, f"colormatch {match} has no equivalent here; choose mkl, or disabled")
    told = f"{node}: colormatch {match} became --color_method {row.name}: {row.exactness}."
    notes.near("colours where many pixels are equal", told) if "hm" in match else notes.append(told)
    return {"color_correction_strength": 1.0, "color_method": row.name}


def _image_encoder(graph: Graph, node: Node, start: media.Picture | None, files: Files, notes: Notes) -> Values:
    encode = feeding(graph, node, "clip_embeds")
    if encode is None:
        notes.other(
            "the picture goes through the image encoder",
            f"{node}: clip_embeds is not linked; here the picture always goes through the image encoder too.",
        )
        return {}
    if encode.kind != "WanVideoClipVisionEncode":
        raise refusal(graph, encode, "this use of the image encoder has no equivalent; use WanVideoClipVisionEncode")
    for slot in ("image_2", "negative_image"):
        if slot in encode.links:
            notes.refuse(refusal(graph, encode, f"{slot} has no equivalent here; unlink it"))
    for name, usual in _CLIP_MUST_BE.items():
        with notes.part():
            if number(graph, encode, name, usual) != usual:
                raise refusal(graph, encode, f"{name} has no equivalent here; set it to {usual}")
    with notes.part():
        again = media.picture(graph, encode, "image_1", files, notes.quiet(), exact=True)
        if start is not None and again.source != start.source:
            raise refusal(graph, encode, "encodes another picture than the one that is shown; link the same")
    found: Values = {}
    with notes.part():
        found["image_strength"] = float(number(graph, encode, "strength_1", 1))
    loader = of_kind(graph, encode, "clip_vision", "CLIPVisionLoader", "LoadWanVideoClipTextEncoder")
    widget = "clip_name" if loader.kind == "CLIPVisionLoader" else "model_name"
    return found | {"clip_vision": weights(graph, loader, widget, "clip_vision", files)}


def speech_settings(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    """The speech, its guidance, its length and its encoder, from the node that goes into multitalk_embeds.

    Raises:
        InputError: there are several speakers, or what is done to the speech has no equivalent.
    """
    if node.kind != "MultiTalkWav2VecEmbeds":
        raise refusal(graph, node, "this kind of speech has no equivalent here; use MultiTalkWav2VecEmbeds")
    for slot in ("audio_2", "audio_3", "audio_4"):
        if slot in node.links:
            notes.refuse(refusal(graph, node, f"{slot} is linked, but there is one speaker here; unlink it"))
    for name, usual in _SPEECH_MUST_BE.items():
        with notes.part():
            if (said := number(graph, node, name, usual)) != usual:
                raise refusal(graph, node, f"{name} is {said:g}, which has no equivalent here; set it to {usual}")
    for name in _SPEECH_OFF:
        with notes.part():
            if value(graph, node, name, False):
                raise refusal(graph, node, f"{name} has no equivalent here; switch it off")
    with notes.part():
        if not value(graph, node, "normalize_loudness"):
            notes.other(
                "loudness is normalised",
                f"{node}: normalize_loudness is off; here loudness is always normalised, as upstream does.",
            )
    found: Values = {}
    limits: list[int | None] = []
    with notes.part():
        heard = media.sound(graph, node, "audio_1", files, notes)
        found["audio"] = heard.source
        if heard.separator is not None:
            found["separate_voice"] = heard.separator
        limits.append(heard.frames)
    with notes.part():
        found["speech_strength"] = float(number(graph, node, "audio_scale", 1))
    with notes.part():
        limits.append(_frame_count(graph, node, files, notes))
    if known := [limit for limit in limits if limit is not None]:
        found["max_frame_num"] = min(known)
    with notes.part():
        found["sample_audio_guide_scale"] = float(number(graph, node, "audio_cfg_scale"))
    with notes.part():
        found["wav2vec_dir"] = _speech_encoder(graph, linked(graph, node, "wav2vec_model"), files)
    return found


def _frame_count(graph: Graph, node: Node, files: Files, notes: Notes) -> int | None:
    """The number of frames if it is known; a computed one mostly follows the sound's length, as the command does."""
    source = computed(graph, node, "num_frames")
    if source is None:
        return whole(graph, node, "num_frames")

    def length(of: Node, slot: str) -> float | None:
        return media.sound(graph, of, slot, files, notes.quiet()).seconds

    def frames(seconds: float | None = None) -> int | None:
        found = computed_number(graph, node.links["num_frames"], length if seconds is None else lambda *_: seconds)
        return None if found is None else int(found)

    if all((count := frames(seconds)) is not None and count >= int(seconds * FPS) for seconds in _LENGTHS):
        notes.append(
            f"{node}: num_frames, computed by {source}, is never less than the speech has; the command's video is as "
            "long as the speech, to the frame."
        )
        return None
    if (count := frames()) is not None:
        return max(count, 1)
    notes.near(
        "its length, which the graph computes",
        f"{node}: num_frames is computed by {source} when the graph runs. It is left out: the command's video is as "
        "long as the speech, to the frame; --max_frame_num (25 a second) would cut it.",
    )
    return None


def _speech_encoder(graph: Graph, loader: Node, files: Files) -> Path:
    if loader.kind not in ("Wav2VecModelLoader", "DownloadAndLoadWav2VecModel"):
        raise refusal(graph, loader, "this speech encoder has no equivalent here; use Wav2VecModelLoader")
    name = text(graph, loader, "model")
    if name.startswith("facebook/"):
        raise refusal(graph, loader, f"{name} does not go with InfiniteTalk; choose chinese-wav2vec2-base")
    if loader.kind == "Wav2VecModelLoader":
        return weights(graph, loader, "model", "wav2vec_dir", files)
    try:  # downloaded by hand, as the guide has it; or by the node, under its owner's name
        return files.model("wav2vec_dir", name.rsplit("/", 1)[-1])
    except InputError:
        return weights(graph, loader, "model", "wav2vec_dir", files)
