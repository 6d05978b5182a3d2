"""Graphs in API format for a ComfyUI that has the small checkpoint, and what its messages say."""

from __future__ import annotations

from collections.abc import Iterable

from .comfy_host import Message
from .random_checkpoint import TINY

PACK = "My InfiniteTalk 1.0"  # any folder name will do, with spaces and dots in it
SIZES = TINY
LIGHTX2V = "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors"
FUSIONX = "Wan2.1_I2V_14B_FusionX_LoRA.safetensors"
VOICE = "MelBandRoformer_fp16.safetensors"
QUANTISED = "infinitetalk_single_fp8.safetensors"
LOADER = {
    **{"dit_path": "Wan2.1-I2V-14B-480P", "infinitetalk_dir": "infinitetalk.safetensors"},
    **{"text_encoder": "none", "clip_vision": "none", "vae": "none", "tokenizer": "none"},
    **{"quant": "none", "quant_dir": "none", "quant_matmul": "auto", "lora_mode": "auto"},
    **{"lora_ignore_unmatched": False, "dtype": "auto", "attention": "auto", "kernels": "auto"},
    **{"offload_model": "auto", "t5_cpu": False, "blocks_to_swap": -1, "num_persistent_param_in_dit": -1},
    **{"vae_dtype": "auto", "vram_limit": 0, "vae_tiles": 0, "gpus": 1, "dit_fsdp": False},
}
SAMPLER = {
    **{"prompt": "A cat is talking.", "negative_prompt": "blurred", "size": "64x64", "mode": "streaming"},
    **{"frame_num": 17, "motion_frame": 5, "max_frame_num": 0, "color_correction_strength": 1.0},
    **{"sample_steps": 2, "sample_shift": 7.0, "sample_solver": "euler"},
    **{"sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 2.0, "base_seed": 42, "use_apg": False},
    **{"apg_momentum": -0.75, "apg_norm_threshold": 55.0, "use_teacache": False, "teacache_thresh": 0.2},
    **{"crf": 18, "filename_prefix": "video/InfiniteTalk", "sample_audio_guide_steps": 0, "seam_frames": 0},
}


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


def texts(messages: Iterable[Message]) -> list[str]:
    return [m.payload[4:].decode(errors="replace") for m in messages if m.type == "progress_text"]


def executed(messages: Iterable[Message]) -> list[str]:
    return [m.data["node"] for m in messages if m.type == "executing" and m.data["node"]]
