"""Graphs in API format around ComfyUI's own InfiniteTalk model: with our sampler, and with the core's nodes."""

from __future__ import annotations

from .comfy_graphs import node

Graph = dict[str, dict]
SMALL = {"width": 64, "height": 64, "length": 17, "motion_frame_count": 5, "max_frame_num": 29}
NAMES = {  # of files that lie apart from those of the same names with other sizes
    "diffusion_models": "core/Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors",
    "model_patches": "core/wan2.1_infiniteTalk_single_fp16.safetensors",
    "loras": "core/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors",
    "text_encoders": "core/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "clip_vision": "core/clip_vision_h.safetensors",
    "vae": "core/wan_2.1_vae.safetensors",
    "audio_encoders": "core/wav2vec2-chinese-base_fp16.safetensors",
}


def cut(seconds: float) -> dict:
    return node("TrimAudioDuration", audio=["whole", 0], start_index=0.0, duration=seconds)


def loaded(seconds: float) -> Graph:
    """What a graph of the core's nodes begins with: models, words, picture and speech."""
    return {
        "unet": node("UNETLoader", unet_name=NAMES["diffusion_models"], weight_dtype="default"),
        "lora": node("LoraLoaderModelOnly", model=["unet", 0], lora_name=NAMES["loras"], strength_model=1.0),
        "model": node("ModelSamplingSD3", model=["lora", 0], shift=7.0),
        "patch": node("ModelPatchLoader", name=NAMES["model_patches"]),
        "vae": node("VAELoader", vae_name=NAMES["vae"]),
        "clip": node("CLIPLoader", clip_name=NAMES["text_encoders"], type="wan", device="default"),
        "positive": node("CLIPTextEncode", clip=["clip", 0], text="A cat is talking."),
        "negative": node("CLIPTextEncode", clip=["clip", 0], text="blurred"),
        "image": node("LoadImage", image="portrait.png"),
        "eye": node("CLIPVisionLoader", clip_name=NAMES["clip_vision"]),
        "seen": node("CLIPVisionEncode", clip_vision=["eye", 0], image=["image", 0], crop="none"),
        "whole": node("LoadAudio", audio="speech.wav"),
        "audio": cut(seconds),
        "ear": node("AudioEncoderLoader", audio_encoder_name=NAMES["audio_encoders"]),
        "heard": node("AudioEncoderEncode", audio_encoder=["ear", 0], audio=["audio", 0]),
        "solver": node("KSamplerSelect", sampler_name="euler"),
        "levels": node("BasicScheduler", model=["model", 0], scheduler="simple", steps=2, denoise=1.0),
        "noise": node("RandomNoise", noise_seed=42),
    }


def streamed(seconds: float = 0.6, nodes: Graph | None = None, **changes: object) -> Graph:
    """A graph in API format with our sampler; ``changes`` are its inputs, None takes one away."""
    inputs = {
        **{"guider": ["guider", 0], "model_patch": ["patch", 0], "sampler": ["solver", 0], "sigmas": ["levels", 0]},
        **{"noise": ["noise", 0], "vae": ["vae", 0], "audio_encoder_output_1": ["heard", 0]},
        **{"clip_vision_output": ["seen", 0], "image": ["image", 0], "audio": ["audio", 0]},
        **{"width": 64, "height": 64, "cfg": 1.0, "audio_scale": 1.0, "length": 17, "motion_frame_count": 5},
        **{"max_frame_num": 0, "color_correction_strength": 1.0, "seam_frames": 0, "crf": 18},
        **{"filename_prefix": "core/video", **changes},
    }
    given = {name: value for name, value in inputs.items() if value is not None}
    guider = node("BasicGuider", model=["model", 0], conditioning=["positive", 0])
    return {**loaded(seconds), "guider": guider, "sampler": node("InfiniteTalkCoreSampler", **given), **(nodes or {})}


def one_window(seconds: float = 0.6) -> Graph:
    """The core's own graph for one window."""
    inputs = {
        **{"mode": "single_speaker", "model": ["model", 0], "model_patch": ["patch", 0]},
        **{"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0]},
        **{"width": 64, "height": 64, "length": 17, "clip_vision_output": ["seen", 0], "start_image": ["image", 0]},
        **{"audio_encoder_output_1": ["heard", 0], "motion_frame_count": 5, "audio_scale": 1.0},
    }
    return {
        **loaded(seconds),
        "window": node("WanInfiniteTalkToVideo", **inputs),
        "guider": node("BasicGuider", model=["window", 0], conditioning=["window", 1]),
        "sampled": node(
            "SamplerCustomAdvanced",
            **{"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["solver", 0], "sigmas": ["levels", 0]},
            latent_image=["window", 3],
        ),
        "decoded": node("VAEDecode", samples=["sampled", 0], vae=["vae", 0]),
        "saved": node("SaveImage", images=["decoded", 0], filename_prefix="core/window"),
    }


def small(graph: Graph) -> Graph:
    """The bundled workflow as it is queued, with the small files and at a size for a CPU."""
    ours = {each["class_type"]: each["inputs"] for each in loaded(1.0).values()}
    files = set(NAMES.values())
    for each in graph.values():
        for slot, value in ours.get(each["class_type"], {}).items():
            if isinstance(value, str) and value in files:
                each["inputs"][slot] = value
        if each["class_type"] == "InfiniteTalkCoreSampler":
            each["inputs"] |= SMALL
    return graph
