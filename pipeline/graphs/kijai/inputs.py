"""What goes into the sampler of a graph of ComfyUI-WanVideoWrapper: prompt, reference, windows, speech.

Knows the nodes that make text, image and speech embeddings there; knows nothing of sampling.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...export.exported import Files
from ...settings.roles import Values
from ..foreign import media
from ..foreign.conditioning import negative_prompt, of_kind, plain_prompt, prompt_settings
from ..graph import Graph, Node, computed, feeding, linked, number, refusal, text, value, whole

_SPEECH_MUST_BE = {"fps": 25, "audio_scale": 1}
_SPEECH_OFF = ("add_noise_floor", "smooth_transients")
_CLIP_MUST_BE = {"strength_1": 1, "tiles": 0}


def text_settings(graph: Graph, node: Node, files: Files, notes: list[str]) -> Values:
    """Prompts and the text encoder, from the node that goes into text_embeds.

    Raises:
        InputError: the prompt is more than a text for the whole video, or made in another way.
    """
    if node.kind == "WanVideoTextEmbedBridge":
        return prompt_settings(graph, node, "positive", "negative", files, notes)
    if node.kind not in ("WanVideoTextEncode", "WanVideoTextEncodeCached"):
        raise refusal(graph, node, "this way of making the prompt has no equivalent here; use WanVideoTextEncode")
    if "extender_args" in node.links:
        raise refusal(graph, node, "a language model rewrites the prompt; unlink extender_args")
    prompt = text(graph, node, "positive_prompt")
    if "|" in prompt or "[1]" in prompt:
        raise refusal(graph, node, "has several prompts, for parts of the video; here is one for all of it")
    cached = node.kind == "WanVideoTextEncodeCached"
    encoder = node if cached else of_kind(graph, node, "t5", "LoadWanVideoT5TextEncoder")
    if (stored := value(graph, encoder, "quantization", "disabled")) != "disabled":
        notes.append(f"{encoder}: quantization {stored} is left out; the text encoder stays as its file has it.")
    notes.append(
        f"{encoder}: that pack brings a tokenizer along; here it is looked for beside the text encoder, or given with "
        "--tokenizer."
    )
    return {
        "prompt": plain_prompt(graph, node, prompt),
        "text_encoder": files.model("text_encoder", text(graph, encoder, "model_name")),
        "t5_cpu": value(graph, node, "device", "gpu") == "cpu",
        **negative_prompt(text(graph, node, "negative_prompt")),
    }


def frame_settings(graph: Graph, node: Node, files: Files, notes: list[str]) -> Values:
    """Reference, size, windows, colours, VAE and image encoder, from the node that goes into image_embeds.

    Raises:
        InputError: it is no InfiniteTalk node, or what it is fed with has no equivalent.
    """
    if node.kind != "WanVideoImageToVideoMultiTalk":
        raise refusal(graph, node, "makes no InfiniteTalk video; WanVideoImageToVideoMultiTalk does")
    if value(graph, node, "mode", "auto") == "multitalk":
        raise refusal(graph, node, "its mode is multitalk, an older model; set it to infinitetalk")
    shown = media.picture(graph, node, "start_image", files, notes)
    if shown.setting == "video":
        notes.append(
            f"{node}: the graph shows window n the frame n of the video, nearly a still picture; here the video is "
            "read by time, as InfiniteTalk was made for."
        )
    vae = of_kind(graph, node, "vae", "WanVideoVAELoader")
    match = text(graph, node, "colormatch")
    if match != "disabled":
        notes.append(
            f"{node}: colormatch {match} became --color_correction_strength 1.0, another method for the same: "
            "colours are pulled to the reference's by mean and spread in LAB, as upstream does."
        )
    if value(graph, node, "output_path", ""):
        notes.append(f"{node}: output_path is left out; each window is added to the video as soon as it is done.")
    return {
        shown.setting: shown.source,
        "size": media.size(graph, node, shown.resize, notes),
        "frame_num": (whole(graph, node, "frame_window_size") - 1) // 4 * 4 + 1,
        "motion_frame": whole(graph, node, "motion_frame"),
        "color_correction_strength": 0.0 if match == "disabled" else 1.0,
        "vae": files.model("vae", text(graph, vae, "model_name")),
        **_image_encoder(graph, node, shown, files, notes),
    }


def _image_encoder(graph: Graph, node: Node, shown: media.Picture, files: Files, notes: list[str]) -> Values:
    encode = feeding(graph, node, "clip_embeds")
    if encode is None:
        notes.append(f"{node}: clip_embeds is not linked; here the picture always goes through the image encoder too.")
        return {}
    if encode.kind != "WanVideoClipVisionEncode":
        raise refusal(graph, encode, "this use of the image encoder has no equivalent; use WanVideoClipVisionEncode")
    for slot in ("image_2", "negative_image"):
        if slot in encode.links:
            raise refusal(graph, encode, f"{slot} has no equivalent here; unlink it")
    for name, usual in _CLIP_MUST_BE.items():
        if number(graph, encode, name, usual) != usual:
            raise refusal(graph, encode, f"{name} has no equivalent here; set it to {usual}")
    if media.picture(graph, encode, "image_1", files, []).source != shown.source:
        raise refusal(graph, encode, "encodes another picture than the one that is shown; link the same")
    loader = of_kind(graph, encode, "clip_vision", "CLIPVisionLoader", "LoadWanVideoClipTextEncoder")
    name = text(graph, loader, "clip_name" if loader.kind == "CLIPVisionLoader" else "model_name")
    return {"clip_vision": files.model("clip_vision", name)}


def speech_settings(graph: Graph, node: Node, files: Files, notes: list[str]) -> Values:
    """The speech, its guidance, its length and its encoder, from the node that goes into multitalk_embeds.

    Raises:
        InputError: there are several speakers, or what is done to the speech has no equivalent.
    """
    if node.kind != "MultiTalkWav2VecEmbeds":
        raise refusal(graph, node, "this kind of speech has no equivalent here; use MultiTalkWav2VecEmbeds")
    for slot in ("audio_2", "audio_3", "audio_4"):
        if slot in node.links:
            raise refusal(graph, node, f"{slot} is linked, but there is one speaker here; unlink it")
    for name, usual in _SPEECH_MUST_BE.items():
        if (found := number(graph, node, name, usual)) != usual:
            raise refusal(graph, node, f"{name} is {found:g}, which has no equivalent here; set it to {usual}")
    for name in _SPEECH_OFF:
        if value(graph, node, name, False):
            raise refusal(graph, node, f"{name} has no equivalent here; switch it off")
    if not value(graph, node, "normalize_loudness"):
        notes.append(f"{node}: normalize_loudness is off; here loudness is always normalised, as upstream does.")
    heard = media.sound(graph, node, "audio_1", files, notes)
    limits = [limit for limit in (heard.frames, _frame_count(graph, node, notes)) if limit is not None]
    return {
        "audio": heard.source,
        "sample_audio_guide_scale": float(number(graph, node, "audio_cfg_scale")),
        "wav2vec_dir": _speech_encoder(graph, linked(graph, node, "wav2vec_model"), files),
        **({"max_frame_num": min(limits)} if limits else {}),
    }


def _frame_count(graph: Graph, node: Node, notes: list[str]) -> int | None:
    """The number of frames if it is known; a computed one mostly follows the sound's length, as the command does."""
    source = computed(graph, node, "num_frames")
    if source is None:
        return whole(graph, node, "num_frames")
    notes.append(
        f"{node}: num_frames is computed by {source} when the graph runs. It is left out: the command's video is as "
        "long as the speech, to the frame; --max_frame_num (25 a second) would cut it."
    )
    return None


def _speech_encoder(graph: Graph, loader: Node, files: Files) -> Path:
    if loader.kind not in ("Wav2VecModelLoader", "DownloadAndLoadWav2VecModel"):
        raise refusal(graph, loader, "this speech encoder has no equivalent here; use Wav2VecModelLoader")
    name = text(graph, loader, "model")
    if name.startswith("facebook/"):
        raise refusal(graph, loader, f"{name} does not go with InfiniteTalk; choose chinese-wav2vec2-base")
    if loader.kind == "Wav2VecModelLoader":
        return files.model("wav2vec_dir", name)
    try:  # downloaded by hand, as the guide has it; or by the node, under its owner's name
        return files.model("wav2vec_dir", name.rsplit("/", 1)[-1])
    except InputError:
        return files.model("wav2vec_dir", name)
