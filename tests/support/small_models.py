"""The small random models of streaming.json, loaded as a run loads them, in float32 on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ...pipeline.models.image_encoder import load_image_encoder
from ...pipeline.models.transformer.attention import choose_attention
from ...pipeline.models.transformer.block import Operations
from ...pipeline.models.transformer.blocks import TransformerBlocks
from ...pipeline.models.transformer.files import open_transformer
from ...pipeline.models.transformer.loading import load_transformer
from ...pipeline.models.transformer.matrices import StorageRequest, plan_weights
from ...pipeline.models.transformer.pointwise import choose_pointwise
from ...pipeline.models.vae.model import load_vae
from ...pipeline.run.streaming import Models
from ..golden import streaming
from .places import DATA

DESCRIPTION = json.loads((DATA / "streaming.json").read_text(encoding="utf-8"))
CPU = torch.device("cpu")


def small_models(folder: Path) -> Models:
    """All that a window needs, from a checkpoint that is written into an empty folder."""
    streaming.write_checkpoint(folder, DESCRIPTION["config"], DESCRIPTION["shapes"])
    blocks = TransformerBlocks(CPU, resident=99)
    tensors = open_transformer(folder, folder / "InfiniteTalk" / "infinitetalk.safetensors")
    operations = Operations(choose_attention("sdpa", CPU, torch.float32), choose_pointwise("plain", CPU))
    transformer = load_transformer(
        plan_weights(tensors, StorageRequest(torch.float32), operations.matmuls), operations, blocks
    )
    clip = load_image_encoder(folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", CPU, torch.float32)
    return Models(transformer, blocks, clip, load_vae(folder / "Wan2.1_VAE.pth"), CPU)
