"""What people are told in ComfyUI: labels of widgets, and the engine's sentences with widgets in the place of flags.

Ids of nodes and widgets are in saved graphs and never change; labels may. Knows no ComfyUI.
"""

from __future__ import annotations

import re

from ...pipeline.settings.definition import names_on, setting_infos
from ...pipeline.settings.roles import Node

TITLES = {
    Node.LOADER: "Model Loader",
    Node.LORA: "LoRA node",
    Node.SPEECH: "Audio Encoder",
    Node.VOICE: "Separate Voice",
    Node.SAMPLER: "Streaming Sampler",
}
LABELS = {
    **{"dit_path": "diffusion model", "infinitetalk_dir": "InfiniteTalk model", "text_encoder": "text encoder"},
    **{"clip_vision": "CLIP vision", "vae": "VAE", "tokenizer": "tokenizer", "quant": "quantisation"},
    **{"quant_dir": "quantised model", "quant_matmul": "8-bit products", "lora_mode": "LoRA mode"},
    **{"lora_ignore_unmatched": "ignore unmatched LoRA keys", "dtype": "dtype", "attention": "attention"},
    **{"kernels": "kernels", "offload_model": "offload models", "t5_cpu": "text encoder on CPU"},
    **{"blocks_to_swap": "blocks to swap", "num_persistent_param_in_dit": "resident parameters"},
    **{"vae_dtype": "VAE dtype", "vram_limit": "VRAM limit", "lora_dir": "LoRA", "lora_scale": "strength"},
    **{"wav2vec_dir": "speech encoder", "separate_voice": "voice separation model"},
    **{"prompt": "prompt", "negative_prompt": "negative prompt", "size": "size", "width": "width", "height": "height"},
    **{
        "mode": "mode",
        "frame_num": "frames per window",
        "motion_frame": "motion frames",
        "max_frame_num": "max frames",
    },
    **{"color_correction_strength": "color correction", "sample_steps": "steps", "sample_shift": "shift"},
    **{"sample_solver": "sampler", "sample_text_guide_scale": "text cfg", "sample_audio_guide_scale": "audio cfg"},
    **{"sample_audio_guide_steps": "audio cfg steps", "base_seed": "seed", "use_apg": "APG"},
    **{"apg_momentum": "APG momentum", "apg_norm_threshold": "APG norm threshold", "use_teacache": "TeaCache"},
    **{"teacache_thresh": "TeaCache threshold", "crf": "crf", "filename_prefix": "filename prefix"},
    **{"seam_frames": "seam frames", "vae_tiles": "VAE tiles", "gpus": "GPUs", "dit_fsdp": "share weights"},
}
# what everybody may want to choose, in the order in which people do; all else is advanced
EVERYDAY: dict[Node, tuple[str, ...]] = {
    Node.LOADER: (
        *("dit_path", "infinitetalk_dir", "text_encoder", "clip_vision", "vae", "quant", "quant_dir"),
        "blocks_to_swap",
    ),
    Node.SAMPLER: (
        *("prompt", "negative_prompt", "size", "width", "height", "max_frame_num", "sample_steps", "sample_shift"),
        *("sample_solver", "sample_text_guide_scale", "sample_audio_guide_scale", "base_seed", "filename_prefix"),
    ),
    **{node: names_on(node) for node in (Node.LORA, Node.SPEECH, Node.VOICE)},
}
_ELSEWHERE = {  # flags that are no widget of the same name: what is meant by them here, and on which node
    "ckpt_dir": (LABELS["dit_path"], Node.LOADER),
    "save_file": (LABELS["filename_prefix"], Node.SAMPLER),
    "image": ("image", Node.SAMPLER),
    "video": ("video", Node.SAMPLER),
    "audio": ("audio", Node.SPEECH),
}
_PHRASES = (  # what is done by other means here
    ("leave the LoRA out (--lora_dir none)", "take the LoRA node out of the graph"),
    ("leave it out (--quant_dir none)", 'set "quantised model" to none'),
    ("or leave it to --ckpt_dir", "or none to take the one in the checkpoint folder"),
    (" where it is not in --ckpt_dir", " where it is not in the checkpoint folder"),
    ("another --save_file", "another filename prefix"),
    ("use --device auto or cpu", "start ComfyUI with another --cuda-device, or with --cpu"),
)
_FLAG = re.compile(r"--[a-z0-9_]+\b")
_BARE = re.compile(r"(?<=  )[a-z0-9_]+(?=: )|^[a-z0-9_]+(?=: )", re.MULTILINE)
_DOWNLOAD = re.compile(r"infinitetalk download (?!or\b)[\w-]+(?: [\w-]+)*")


def label(name: str) -> str:
    """What a widget is called on its node."""
    return LABELS.get(name, name)


def place(node: Node, name: str) -> int | None:
    """Where on its node a widget is shown, from 0; None of what is advanced."""
    shown = EVERYDAY[node]
    return shown.index(name) if name in shown else None


def in_comfyui(text: str) -> str:
    """A sentence of the engine as ComfyUI's users know things: widgets and their nodes instead of flags.

    A node is named where its first widget is.
    """
    for ours, theirs in _PHRASES:
        text = text.replace(ours, theirs)
    named: set[Node] = set()

    def widget(found: re.Match[str]) -> str:
        known = _widget(found[0].removeprefix("--"))
        if known is None:
            return found[0]
        shown, node = known
        title = "" if node in named else f" of the {TITLES[node]}"
        named.add(node)
        return f'"{shown}"{title}'

    text = _FLAG.sub(widget, _BARE.sub(widget, text))
    return _DOWNLOAD.sub(lambda found: found[0] + " --comfyui DIR" * ("--comfyui" not in found[0]), text)


def _widget(flag: str) -> tuple[str, Node] | None:
    """The label of a setting's widget, and its node."""
    if flag in _ELSEWHERE:
        return _ELSEWHERE[flag]
    info = setting_infos().get(flag)
    if info is None or not info.widgets:
        return None
    return label(flag), next(iter(info.widgets))
