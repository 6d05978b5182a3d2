"""Saves the bundled workflow around ComfyUI's own model, as ``save_workflows`` saves the others.

``python -m infinitetalk.scripts.core_workflow COMFYUI PYTHON``, of a ComfyUI that has WanInfiniteTalkToVideo.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .save_workflows import CHINESE, ENCODERS, IMAGE_MODELS, LIGHTX2V, URLS, WAV2VEC, Node, downloads, note, save

NAME = "infinitetalk_core_sampler"
UNET, PATCH = IMAGE_MODELS[0], "wan2.1_infiniteTalk_single_fp16.safetensors"
PATCH_URL = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/model_patches"
MODELS = (UNET, PATCH, *ENCODERS.values(), *WAV2VEC.values(), LIGHTX2V)
URLS.setdefault(PATCH, ("model_patches", PATCH_URL))  # which the engine has from another publisher

WORKFLOW: dict[str, Node] = {
    "note": note(
        "# A talking video of any length by ComfyUI's own nodes\n\n"
        "Model, LoRA, sampler, guider and VAE are ComfyUI's: put in what you like. *Core Sampler* makes window after "
        "window with them; finished ones are on disk at once, and a cancelled or killed run goes on when it is queued "
        "again.\n\n" + downloads(*MODELS) + f"\n\n{CHINESE['core_sampler']}",
        (-640, 0),
        (600, 480),
    ),
    "unet": Node("UNETLoader", (0, 0), {"unet_name": UNET}, models=(UNET,), size=(360, 90)),
    "lora": Node(
        "LoraLoaderModelOnly",
        (0, 130),
        {"lora_name": LIGHTX2V, "strength_model": 1.0},
        {"model": ("unet", 0)},
        (LIGHTX2V,),
        (360, 90),
    ),
    "shift": Node("ModelSamplingSD3", (0, 260), {"shift": 11.0}, {"model": ("lora", 0)}, size=(360, 60)),
    "patch": Node("ModelPatchLoader", (0, 370), {"name": PATCH}, models=(PATCH,), size=(360, 60)),
    "vae": Node("VAELoader", (0, 480), {"vae_name": ENCODERS["vae"]}, models=(ENCODERS["vae"],), size=(360, 60)),
    "clip": Node(
        "CLIPLoader",
        (0, 590),
        {"clip_name": ENCODERS["text_encoder"], "type": "wan"},
        models=(ENCODERS["text_encoder"],),
        size=(360, 110),
    ),
    "prompt": Node(
        "CLIPTextEncode",
        (400, 590),
        {"text": "A person is talking to the camera."},
        {"clip": ("clip", 0)},
        size=(360, 140),
    ),
    "guider": Node(
        "BasicGuider", (800, 590), links={"model": ("shift", 0), "conditioning": ("prompt", 0)}, size=(240, 60)
    ),
    "image": Node("LoadImage", (400, 0), {"image": "portrait.png"}, size=(360, 330)),
    "eye": Node(
        "CLIPVisionLoader",
        (400, 370),
        {"clip_name": ENCODERS["clip_vision"]},
        models=(ENCODERS["clip_vision"],),
        size=(360, 60),
    ),
    "seen": Node(
        "CLIPVisionEncode",
        (400, 470),
        {"crop": "none"},
        {"clip_vision": ("eye", 0), "image": ("image", 0)},
        size=(360, 80),
    ),
    "audio": Node("LoadAudio", (800, 0), {"audio": "speech.wav"}, size=(320, 140)),
    "ear": Node(
        "AudioEncoderLoader",
        (800, 180),
        {"audio_encoder_name": WAV2VEC["wav2vec_dir"]},
        models=tuple(WAV2VEC.values()),
        size=(320, 60),
    ),
    "heard": Node(
        "AudioEncoderEncode",
        (800, 280),
        links={"audio_encoder": ("ear", 0), "audio": ("audio", 0)},
        size=(320, 60),
    ),
    "solver": Node("KSamplerSelect", (800, 380), {"sampler_name": "euler"}, size=(320, 60)),
    "levels": Node(
        "BasicScheduler",
        (800, 440),
        {"scheduler": "simple", "steps": 4, "denoise": 1.0},
        {"model": ("shift", 0)},
        size=(320, 110),
    ),
    "noise": Node("RandomNoise", (1080, 590), {"noise_seed": 42}, size=(320, 90)),
    "sampler": Node(
        "InfiniteTalkCoreSampler",
        (1440, 0),
        {"width": 640, "height": 640},
        {
            "guider": ("guider", 0),
            "model_patch": ("patch", 0),
            "sampler": ("solver", 0),
            "sigmas": ("levels", 0),
            "noise": ("noise", 0),
            "vae": ("vae", 0),
            "audio_encoder_output_1": ("heard", 0),
            "clip_vision_output": ("seen", 0),
            "image": ("image", 0),
            "audio": ("audio", 0),
        },
        size=(440, 900),
    ),
    "export": Node("InfiniteTalkExport", (1920, 0), {}, size=(460, 420)),
}

if __name__ == "__main__":
    save(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), {NAME: WORKFLOW})
