"""Small random files of the models that ComfyUI's own nodes load, as it tells them by their keys.

Where the core takes a size for granted, the size is the real one: 768 features of speech in 12 layers, 40 blocks of
audio attention with 40 heads, text of 4096 and pictures of 1280 numbers. Its networks of text and pictures take all
sizes for granted; ``comfy_small_core`` makes them small in a server.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from . import lora_files, other_layouts, random_checkpoint
from .core_graphs import NAMES
from .random_tokenizer import write_tokenizer

SIZES = random_checkpoint.Sizes(
    dim=160,
    heads=1,
    layers=2,
    ffn=64,
    text_dim=4096,
    text_attn=128,
    text_ffn=64,
    text_layers=1,
    clip_dim=1280,
    clip_layers=2,
    audio_hidden=768,
    audio_layers=12,
    audio_ffn=3072,
    audio_conv=512,
    audio_tokens=32,
    audio_token_dim=32,
    audio_intermediate=16,
)
BLOCKS = 40  # of the core's audio attention


def write(models: Path, tokenizer: Path) -> dict[str, Path]:
    """Put them where the core looks for them; returns their paths by folder."""
    vocabulary = write_tokenizer(tokenizer)
    spiece = (tokenizer / "spiece.model").read_bytes()
    text = other_layouts.comfy_text_encoder(random_checkpoint.text_encoder_weights(SIZES, vocabulary), spiece)
    image = other_layouts.hugging_face_image_encoder(random_checkpoint.image_encoder_weights(SIZES))
    # by these two keys the core knows which encoders the files hold, however deep they are
    text["encoder.block.23.layer.1.DenseReluDense.wi_1.weight"] = torch.zeros(10240, 1)
    image["vision_model.encoder.layers.30.layer_norm1.weight"] = torch.zeros(1)
    image["visual_projection.weight"] = torch.zeros(1024, SIZES.clip_dim)
    contents = {
        "diffusion_models": random_checkpoint.transformer_weights(SIZES),
        "model_patches": random_checkpoint.infinitetalk_weights(replace(SIZES, layers=BLOCKS)),
        "loras": lora_files.lightx2v_i2v(SIZES),
        "text_encoders": text,
        "clip_vision": image,
        "vae": random_checkpoint.vae_weights(SIZES),
        "audio_encoders": other_layouts.cast(random_checkpoint.speech_encoder_weights(SIZES), torch.float16),
    }
    paths = {}
    for folder, tensors in contents.items():
        paths[folder] = models / folder / NAMES[folder]
        paths[folder].parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, paths[folder])
    return paths
