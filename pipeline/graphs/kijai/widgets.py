"""The widgets of ComfyUI-WanVideoWrapper's nodes, in the order in which ComfyUI saves them.

The order of every version since MultiTalk came (June 2025): widgets were appended, or, for block swap and
compilation, put in between. Checked against versions up to 1.4.7; knows no meanings.
"""

from __future__ import annotations

from ..orders import CONTROL, Order

_SAMPLER: Order = {
    "steps": int,
    "cfg": float,
    "shift": float,
    "seed": int,
    CONTROL: str,
    "force_offload": bool,
    "scheduler": str,
    "riflex_freq_index": int,
    "denoise_strength": float,
    "batched_cfg": bool,
    "rope_function": str,
    "start_step": int,
    "end_step": int,
    "add_noise_to_samples": bool,
}
_SCHEDULER: Order = {
    "scheduler": str,
    "steps": int,
    "shift": float,
    "start_step": int,
    "end_step": int,
    "enhance_hf": bool,
}
_LORA: Order = {"lora": str, "strength": float, "low_mem_load": bool, "merge_loras": bool}
_FIVE_LORAS: Order = {
    name: kind for number in range(5) for name, kind in ((f"lora_{number}", str), (f"strength_{number}", float))
}
_SPEECH_MODEL: Order = {"model": str, "base_precision": str, "load_device": str}
_SWAP: Order = {
    "blocks_to_swap": int,
    "offload_img_emb": bool,
    "offload_txt_emb": bool,
    "use_non_blocking": bool,
    "vace_blocks_to_swap": int,
}

KIJAI_ORDERS: dict[str, tuple[Order, ...]] = {
    "WanVideoSampler": (_SAMPLER, {name: kind for name, kind in _SAMPLER.items() if name != CONTROL}),
    "WanVideoSamplerSettings": (_SAMPLER, {name: kind for name, kind in _SAMPLER.items() if name != CONTROL}),
    "WanVideoSamplerv2": (
        {"cfg": float, "seed": int, CONTROL: str, "force_offload": bool, "add_noise_to_samples": bool},
        {"cfg": float, "seed": int, "force_offload": bool, "add_noise_to_samples": bool},
    ),
    "WanVideoSamplerExtraArgs": ({"riflex_freq_index": int, "rope_function": str},),
    "WanVideoScheduler": (_SCHEDULER,),
    "WanVideoSchedulerv2": (_SCHEDULER,),
    "WanVideoModelLoader": (
        {"model": str, "base_precision": str, "quantization": str, "load_device": str, "attention_mode": str}
        | {"rms_norm_function": str},
    ),
    "WanVideoLoraSelect": (_LORA,),
    "WanVideoLoraSelectMulti": ({**_FIVE_LORAS, "low_mem_load": bool, "merge_loras": bool},),
    "WanVideoBlockSwap": (
        {**_SWAP, "prefetch_blocks": int, "block_swap_debug": bool},
        {**_SWAP, "block_swap_debug": bool},
    ),
    "MultiTalkModelLoader": ({"model": str, "base_precision": str},),
    "WanVideoImageToVideoMultiTalk": (
        {"width": int, "height": int, "frame_window_size": int, "motion_frame": int, "force_offload": bool}
        | {"colormatch": str, "tiled_vae": bool, "mode": str, "output_path": str},
    ),
    "MultiTalkWav2VecEmbeds": (
        {"normalize_loudness": bool, "num_frames": int, "fps": float, "audio_scale": float, "audio_cfg_scale": float}
        | {"multi_audio_type": str, "add_noise_floor": bool, "smooth_transients": bool},
    ),
    "Wav2VecModelLoader": (_SPEECH_MODEL,),
    "DownloadAndLoadWav2VecModel": (_SPEECH_MODEL,),
    "WanVideoTextEncode": (
        {"positive_prompt": str, "negative_prompt": str, "force_offload": bool, "use_disk_cache": bool, "device": str},
        {"positive_prompt": str, "negative_prompt": str, "force_offload": bool},
    ),
    "WanVideoTextEncodeCached": (
        {"model_name": str, "precision": str, "positive_prompt": str, "negative_prompt": str, "quantization": str}
        | {"use_disk_cache": bool, "device": str},
    ),
    "WanVideoTextEncodeSingle": ({"prompt": str, "force_offload": bool, "use_disk_cache": bool, "device": str},),
    "LoadWanVideoT5TextEncoder": ({"model_name": str, "precision": str, "load_device": str, "quantization": str},),
    "WanVideoVAELoader": ({"model_name": str, "precision": str, "use_cpu_cache": bool, "verbose": bool},),
    "LoadWanVideoClipTextEncoder": ({"model_name": str, "precision": str, "load_device": str},),
    "WanVideoClipVisionEncode": (
        {"strength_1": float, "strength_2": float, "crop": str, "combine_embeds": str, "force_offload": bool}
        | {"tiles": int, "ratio": float},
    ),
    "WanVideoTeaCache": (
        {"rel_l1_thresh": float, "start_step": int, "end_step": int, "cache_device": str, "use_coefficients": bool}
        | {"mode": str},
    ),
}
