"""The checkpoint's weights in the layouts of other publishers: Kijai's, Comfy-Org's and MeiGen's files.

Each function takes tensors under their official names (see ``random_checkpoint``) and returns those
that the other file holds. Those that quantise take any names, so they apply to the base, the audio
layers, both in one, and the text encoder under either publisher's names. Written from the published
files' names, sizes and programs, not from the engine's loaders.
"""

from __future__ import annotations

import json

import torch

Weights = dict[str, torch.Tensor]
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2

# What Kijai's files keep in floats, by parts of the names: their sizes agree with it.
KIJAI_KEEPS = (
    *("norm", "bias", "head", "time_", "patch_embedding", "text_embedding", "img_emb", "modulation"),
    *("audio_proj.", "token_embedding", "pos_embedding"),
)
# Not layers with a matrix product, so that ComfyUI and quanto leave them.
_TABLES = (
    "token_embedding.weight",
    "pos_embedding.embedding.weight",
    "shared.weight",
    "relative_attention_bias.weight",
)

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
    return {prefix + name: _floats(tensor, dtype) for name, tensor in weights.items()}


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


def plain_fp8(
    weights: Weights, dtype: torch.dtype = E4M3, keep: tuple[str, ...] = (), rest: torch.dtype = torch.bfloat16
) -> Weights:
    """fp8 without scales: everything in Comfy-Org's ``..._fp8_e4m3fn``, all but ``KIJAI_KEEPS`` in Kijai's.

    Args:
        keep: parts of names that stay in floats, in ``rest``.
    """
    return {name: _floats(tensor, rest if _kept(name, keep) else dtype) for name, tensor in weights.items()}


def old_scaled_fp8(
    weights: Weights,
    dtype: torch.dtype = E4M3,
    *,
    prefix: str = "",
    keep: tuple[str, ...] = (),
    rest: torch.dtype = torch.float16,
    rows: bool = False,
    inputs: bool = False,
    full_precision: bool = False,
) -> Weights:
    """``..._fp8_scaled`` of 2025: every matrix of Comfy-Org's files has ``scale_weight``; all but ``KIJAI_KEEPS`` of
    Kijai's (``..._scaled_KJ``), whose other tensors are float32 in the audio layers.

    Args:
        prefix: of all names, the marker's too.
        keep: parts of names that stay in floats, in ``rest``.
        rows: a scale for each row, as some converters write it, instead of one.
        inputs: with scales for the activations, as in Comfy-Org's base.
        full_precision: the marker that asks ComfyUI not to multiply in fp8 (two elements instead of none).
    """
    result = {"scaled_fp8": torch.zeros(2 if full_precision else 0).to(dtype)}
    for name, tensor in weights.items():
        if _is_matrix(name, tensor) and not _kept(name, keep):
            layer = name.removesuffix(".weight")
            result[name], result[f"{layer}.scale_weight"] = _divided(tensor, dtype, rows)
            if inputs:
                result[f"{layer}.scale_input"] = torch.tensor(0.037)
        else:
            result[name] = _floats(tensor, rest)
    return {prefix + name: tensor for name, tensor in result.items()}


def comfy_quant(
    weights: Weights,
    form: str = "float8_e4m3fn",
    *,
    prefix: str = "",
    keep: tuple[str, ...] = (),
    rest: torch.dtype = torch.bfloat16,
    rows: bool = False,
    described: str = "tensors",
) -> tuple[Weights, dict[str, str]]:
    """ComfyUI's layout since the end of 2025: tensors, and the header's texts.

    Args:
        form: float8_e4m3fn, float8_e5m2 or int8_tensorwise.
        rows: scales [out, 1] instead of one.
        described: where it says what the layers are kept in: "tensors" (``comfy_quant``), "header", or "nowhere"
            (files of lightx2v).
    """
    dtype = {"float8_e4m3fn": E4M3, "float8_e5m2": E5M2, "int8_tensorwise": torch.int8}[form]
    result: Weights = {}
    layers = {}
    for name, tensor in weights.items():
        if not _is_matrix(name, tensor) or _kept(name, keep):
            result[prefix + name] = _floats(tensor, rest)
            continue
        layer = prefix + name.removesuffix(".weight")
        result[f"{layer}.weight"], result[f"{layer}.weight_scale"] = _divided(tensor, dtype, rows)
        layers[layer] = {"format": form}
        if dtype.is_floating_point:
            result[f"{layer}.input_scale"] = torch.tensor(0.037)
        if described == "tensors":
            result[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(layers[layer]).encode()), dtype=torch.uint8)
    header = json.dumps({"format_version": "1.0", "layers": layers})
    return result, {"_quantization_metadata": header} if described == "header" else {}


def quanto(
    weights: Weights, kind: str, dtype: torch.dtype = torch.bfloat16, keep: tuple[str, ...] = ()
) -> tuple[Weights, dict[str, dict[str, str]]]:
    """What optimum-quanto saves of a model in ``dtype``, and its quantisation map: MeiGen's ``quant_models``.

    Args:
        kind: int8, fp8 (e4m3) or fp8_e5m2.
    """
    numbers = {"int8": torch.int8, "fp8": E4M3, "fp8_e5m2": E5M2}[kind]
    qtype = {"int8": "qint8", "fp8": "qfloat8_e4m3fn", "fp8_e5m2": "qfloat8_e5m2"}[kind]
    result: Weights = {}
    layers = {}
    for name, tensor in weights.items():
        tensor = _floats(tensor, dtype)
        if not _is_matrix(name, tensor) or _kept(name, keep):
            result[name] = tensor
            continue
        layer = name.removesuffix(".weight")
        scale = tensor.abs().amax(dim=1, keepdim=True) / _largest(numbers)
        result[f"{name}._data"] = _rounded(tensor / scale, numbers)
        result[f"{name}._scale"] = scale
        result[f"{layer}.input_scale"] = result[f"{layer}.output_scale"] = torch.ones((), dtype=dtype)
        layers[layer] = {"weights": qtype, "activations": "none"}
    return {name: tensor.clone() for name, tensor in result.items()}, layers


def _floats(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cast, but for bytes and other integers."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _kept(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name for part in parts)


def _is_matrix(name: str, tensor: torch.Tensor) -> bool:
    return tensor.dim() == 2 and name.endswith(".weight") and not name.endswith(_TABLES)


def _largest(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).max if dtype.is_floating_point else 127


def _rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not dtype.is_floating_point:
        tensor, info = tensor.round(), torch.iinfo(dtype)
    else:
        info = torch.finfo(dtype)
    return tensor.clamp(info.min, info.max).to(dtype)


def _divided(tensor: torch.Tensor, dtype: torch.dtype, rows: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """8-bit numbers of a matrix, and the float32 scale that they are to be multiplied with: [] or [out, 1]."""
    tensor = tensor.float()
    largest = tensor.abs().amax(dim=1, keepdim=True) if rows else tensor.abs().amax()
    scale = largest / _largest(dtype)
    return _rounded(tensor / scale, dtype), scale


def _renamed(name: str, table: dict[str, str]) -> str:
    old = next(old for old in table if name.startswith(old + "."))
    return table[old] + name[len(old) :]
