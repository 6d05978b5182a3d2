"""The checkpoint's weights in the layouts of other publishers: Kijai's and Comfy-Org's single safetensors files.

Each function takes tensors under their official names (see ``random_checkpoint``) and returns those
that the other file holds. Written from the published files' names, not from the engine's loaders.
"""

from __future__ import annotations

import torch

Weights = dict[str, torch.Tensor]

T5_TO_COMFY = {
    "norm1": "layer.0.layer_norm",
    "attn": "layer.0.SelfAttention",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
CLIP_TO_HUGGING_FACE = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def cast(weights: Weights, dtype: torch.dtype = torch.bfloat16, prefix: str = "") -> Weights:
    """The same names, cast, under ``prefix``: Comfy-Org's base (``model.diffusion_model.`` or none), Kijai's files."""
    return {prefix + name: tensor.to(dtype) for name, tensor in weights.items()}


def comfy_text_encoder(weights: Weights, sentencepiece_model: bytes, dtype: torch.dtype = torch.float16) -> Weights:
    """``umt5_xxl_fp16.safetensors``: Hugging Face's names, and the tokenizer's file as a tensor of bytes."""
    renamed = {
        "shared.weight": weights["token_embedding.weight"],
        "encoder.final_layer_norm.weight": weights["norm.weight"],
    }
    for name, tensor in weights.items():
        if name.startswith("blocks."):
            _, n, rest = name.split(".", 2)
            renamed[f"encoder.block.{n}.{_renamed(rest, T5_TO_COMFY)}"] = tensor
    result = cast(renamed, dtype)
    result["spiece_model"] = torch.frombuffer(bytearray(sentencepiece_model), dtype=torch.uint8)
    return result


def hugging_face_image_encoder(weights: Weights, dtype: torch.dtype = torch.float16) -> Weights:
    """``clip_vision_h.safetensors``: Hugging Face's names with separate q, k and v."""
    visual = {name.removeprefix("visual."): tensor for name, tensor in weights.items() if name.startswith("visual.")}
    result = {
        "embeddings.class_embedding": visual["cls_embedding"].flatten(),
        "embeddings.position_embedding.weight": visual["pos_embedding"][0],
        "embeddings.patch_embedding.weight": visual["patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        result[f"pre_layrnorm.{kind}"] = visual[f"pre_norm.{kind}"]  # misspelt in the published files, too
        result[f"post_layernorm.{kind}"] = visual[f"post_norm.{kind}"]
    for name, tensor in visual.items():
        if not name.startswith("transformer."):
            continue
        _, n, rest = name.split(".", 2)
        layer = f"encoder.layers.{n}"
        if rest.startswith("attn.to_qkv."):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                result[f"{layer}.self_attn.{letter}_proj.{rest.rpartition('.')[2]}"] = part.contiguous()
        else:
            result[f"{layer}.{_renamed(rest, CLIP_TO_HUGGING_FACE)}"] = tensor
    result = cast(result, dtype, "vision_model.")
    result["visual_projection.weight"] = visual["head"].T.contiguous().to(dtype)
    return result


def _renamed(name: str, table: dict[str, str]) -> str:
    old = next(old for old in table if name.startswith(old + "."))
    return table[old] + name[len(old) :]
