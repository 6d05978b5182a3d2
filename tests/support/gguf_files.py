"""Writes small GGUF checkpoints for tests, with the tensors and types that published files have.

What stays unquantised, and what happens to narrow matrices, is as in city96's files (ComfyUI-GGUF,
``tools/convert.py``, its patch for llama.cpp, and ``fix_5d_tensors.py``), which Kijai's follow: one-dimensional
and very small tensors, modulation and the 5-D patch embedding in F32, the other embeddings, the head and matrices
whose rows are no whole number of blocks in F16. The ``gguf`` package writes the file and quantises the 0/1 types;
it cannot quantise the K and IQ types, so they are quantised here, rounding to nearest with the best of a few
scales for each group, a little less well than llama.cpp's search does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch

Weights = dict[str, torch.Tensor]

_PLAIN_PARTS = ("patch_embedding.", "text_embedding.", "time_projection.", "time_embedding.", "img_emb.", "head.")
_SMALL = 1024  # tensors of up to so many numbers stay in F32
_BLOCK = 256
_SHRINKS = np.linspace(0.7, 1.0, 13, dtype=np.float32)
_IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
# types of some matrices in llama.cpp's mixtures (img_tensor_get_type in city96's patch)
MIXTURES: dict[str, tuple[str, Mapping[str, str]]] = {
    "Q4_K_M": ("Q4_K", {".v.weight": "Q6_K", ".ffn.2.weight": "Q6_K"}),
    "Q5_K_M": ("Q5_K", {".v.weight": "Q6_K", ".ffn.2.weight": "Q6_K"}),
}
_T5_NAMES = {
    "norm1": "attn_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.o": "attn_o",
    "pos_embedding.embedding": "attn_rel_b",
    "norm2": "ffn_norm",
    "ffn.gate.0": "ffn_gate",
    "ffn.fc1": "ffn_up",
    "ffn.fc2": "ffn_down",
}


def write_gguf(path: Path, weights: Weights, kind: str, architecture: str = "wan", prefix: str = "") -> None:
    """Write float32 weights under their official names.

    Args:
        kind: a type for every matrix, such as "Q5_K" or "F16", or a mixture's name ("Q4_K_M").
        architecture: what llama.cpp calls the model, "t5encoder" for umT5.
        prefix: before every name.
    """
    usual, others = MIXTURES.get(kind, (kind, {}))
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, tensor in weights.items():
        wanted = next((other for ending, other in others.items() if name.endswith(ending)), usual)
        stored = stored_as(name, tuple(tensor.shape), wanted)
        writer.add_tensor(prefix + name, quantise(tensor, stored), raw_dtype=gguf.GGMLQuantizationType[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored_as(name: str, shape: tuple[int, ...], kind: str) -> str:
    """The type that a tensor gets in a file of ``kind``."""
    if len(shape) in (0, 1, 5) or np.prod(shape) <= _SMALL or name.endswith("modulation"):
        return "F32"
    rows_fit = shape[-1] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0] == 0
    kept = len(shape) != 2 or name.startswith(_PLAIN_PARTS) or "attn_rel_b" in name
    return kind if rows_fit and not kept else "F16"


def t5_names(weights: Weights) -> Weights:
    """umT5's encoder, from Wan's names to llama.cpp's."""
    renamed = {
        "token_embd.weight": weights["token_embedding.weight"],
        "enc.output_norm.weight": weights["norm.weight"],
    }
    for name, tensor in weights.items():
        if name.startswith("blocks."):
            _, n, rest = name.removesuffix(".weight").split(".", 2)
            renamed[f"enc.blk.{n}.{_T5_NAMES[rest]}.weight"] = tensor
    return renamed


def quantise(tensor: torch.Tensor, kind: str) -> np.ndarray:
    """A float32 tensor as it lies in the file: floats, or uint8 [..., row bytes]."""
    array = tensor.detach().float().numpy()
    if kind not in _QUANTISERS:
        return gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind])
    quantiser, weights = _QUANTISERS[kind]
    blocks = quantiser(array.reshape(-1, weights))
    return blocks.reshape(*array.shape[:-1], array.shape[-1] // weights * blocks.shape[1])


def _best(
    groups: np.ndarray,
    candidates: Callable[[np.float32], tuple[np.ndarray, ...]],
    rounded: Callable[..., np.ndarray],
) -> tuple[np.ndarray, ...]:
    """The parameters, each [n, groups, 1], that leave the least squared error in each group [n, groups, w]."""
    best: tuple[np.ndarray, ...] = ()
    least = np.full((*groups.shape[:2], 1), np.inf, np.float32)
    for shrink in _SHRINKS:
        parameters = candidates(shrink)
        error = np.square(rounded(groups, *parameters) - groups).sum(-1, keepdims=True)
        better = error < least
        best = tuple(np.where(better, new, old) for new, old in zip(parameters, best or parameters, strict=True))
        least = np.where(better, error, least)
    return best


def _divided(numbers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """0 where the scale is 0."""
    return np.divide(
        numbers, scale, out=np.zeros(np.broadcast_shapes(numbers.shape, scale.shape), np.float32), where=scale != 0
    )


def _half(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [n] rounded to fp16: their bytes [n, 2], and as float32 [n, 1, 1]."""
    half = numbers.astype(np.float16)
    return half.reshape(-1, 1).view(np.uint8), half.astype(np.float32).reshape(-1, 1, 1)


def _bytes(integers: np.ndarray, bits: int) -> np.ndarray:
    """Integers [..., 8 / bits, w] put into bytes [..., w], the first lowest."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (integers.astype(np.uint8) << shifts).sum(-2, dtype=np.uint8)


def _with_minima(blocks: np.ndarray, groups: int, levels: int, largest: int) -> tuple[np.ndarray, ...]:
    """Blocks as ``d * scale * q - dmin * minimum`` with q in 0 .. ``levels``.

    Returns:
        The bytes of d and dmin, scales and minima [n, groups] in 0 .. ``largest``, q [n, 256].
    """
    grouped = blocks.reshape(len(blocks), groups, -1)
    lowest = np.minimum(grouped.min(-1, keepdims=True), 0)
    span = np.maximum(grouped.max(-1, keepdims=True), 0) - lowest

    def rounded(x: np.ndarray, scale: np.ndarray, minimum: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(_divided(x + minimum, scale)), 0, levels) * scale - minimum

    scale, minimum = _best(grouped, lambda shrink: (span * shrink / levels, -lowest * shrink), rounded)
    d_bytes, d = _half(scale.max((1, 2)) / largest)
    dmin_bytes, dmin = _half(minimum.max((1, 2)) / largest)
    scales = np.clip(np.rint(_divided(scale, d)), 0, largest)
    minima = np.clip(np.rint(_divided(minimum, dmin)), 0, largest)
    q = np.clip(np.rint(_divided(grouped + dmin * minima, d * scales)), 0, levels)
    return d_bytes, dmin_bytes, scales[..., 0], minima[..., 0], q.reshape(blocks.shape)


def _symmetric(
    blocks: np.ndarray, groups: int, nearest: Callable[[np.ndarray], np.ndarray], lowest: float, lowest_scale: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks as ``d * scale * v`` with ``v = nearest(...)`` from ``lowest`` up.

    Args:
        lowest_scale: scales go from here to ``-1 - lowest_scale``; 0 leaves them out (one group only).

    Returns:
        The bytes of d, the scales [n, groups], the values v [n, weights].
    """
    grouped = blocks.reshape(len(blocks), groups, -1)
    peak = np.take_along_axis(grouped, np.abs(grouped).argmax(-1, keepdims=True), -1)

    def rounded(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return nearest(_divided(x, scale)) * scale

    (scale,) = _best(grouped, lambda shrink: (peak * shrink / lowest,), rounded)
    largest = np.take_along_axis(scale, np.abs(scale).argmax(1, keepdims=True), 1)[:, 0, 0]
    d_bytes, d = _half(largest / (lowest_scale or 1))
    scales = (
        np.clip(np.rint(_divided(scale, d)), lowest_scale, -1 - lowest_scale) if lowest_scale else np.ones_like(scale)
    )
    return d_bytes, scales[..., 0], nearest(_divided(grouped, d * scales)).reshape(blocks.shape)


def _integers(lowest: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.clip(np.rint(x), lowest, -1 - lowest)


# the nearest value in each half, (k / 2, (k + 1) / 2] for k from -256 on: where it changes are halves
_IQ4_NEAREST = _IQ4_VALUES[np.searchsorted((_IQ4_VALUES[1:] + _IQ4_VALUES[:-1]) / 2, np.arange(-255, 257) / 2)]


def _nearest_iq4(x: np.ndarray) -> np.ndarray:
    return _IQ4_NEAREST[np.ceil(2 * x).clip(-255, 256).astype(np.int16) + 255]


def _q2_k(blocks: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, q = _with_minima(blocks, 16, 3, 15)
    both = _bytes(np.stack((scales, minima), 1), 4)
    return np.concatenate((both, _bytes(q.reshape(-1, 2, 4, 32), 2).reshape(-1, 64), d, dmin), 1)


def _q3_k(blocks: np.ndarray) -> np.ndarray:
    d, scales, q = _symmetric(blocks, 16, _integers(-4), -4, -32)
    q, scales = (q + 4).astype(np.uint8), (scales + 32).astype(np.uint8)
    high, low = _bytes(q.reshape(-1, 8, 32) >> 2, 1), _bytes(q.reshape(-1, 2, 4, 32) & 3, 2)
    low_scales, high_scales = _bytes(scales.reshape(-1, 2, 8) & 15, 4), _bytes(scales.reshape(-1, 4, 4) >> 4, 2)
    return np.concatenate((high, low.reshape(-1, 64), low_scales, high_scales, d), 1)


def _six_bits(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
    """8 scales and 8 minima of 6 bits in 12 bytes, as in Q4_K and Q5_K."""
    scales, minima = scales.astype(np.uint8), minima.astype(np.uint8)
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minima[:, :4] | minima[:, 4:] >> 4 << 6
    return np.concatenate((first, second, scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4), 1)


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, q = _with_minima(blocks, 8, 15, 63)
    return np.concatenate((d, dmin, _six_bits(scales, minima), _bytes(q.reshape(-1, 4, 2, 32), 4).reshape(-1, 128)), 1)


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, q = _with_minima(blocks, 8, 31, 63)
    q = q.astype(np.uint8)
    high, low = _bytes(q.reshape(-1, 8, 32) >> 4, 1), _bytes(q.reshape(-1, 4, 2, 32) & 15, 4)
    return np.concatenate((d, dmin, _six_bits(scales, minima), high, low.reshape(-1, 128)), 1)


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    d, scales, q = _symmetric(blocks, 16, _integers(-32), -32, -128)
    q = (q + 32).astype(np.uint8)
    low, high = _bytes(q.reshape(-1, 2, 2, 64) & 15, 4), _bytes(q.reshape(-1, 2, 4, 32) >> 4, 2)
    return np.concatenate((low.reshape(-1, 128), high.reshape(-1, 64), scales.astype(np.int8).view(np.uint8), d), 1)


def _iq4_nl(blocks: np.ndarray) -> np.ndarray:
    d, _, values = _symmetric(blocks, 1, _nearest_iq4, -127, 0)
    return np.concatenate((d, _bytes(np.searchsorted(_IQ4_VALUES, values).reshape(-1, 2, 16), 4)), 1)


def _iq4_xs(blocks: np.ndarray) -> np.ndarray:
    d, scales, values = _symmetric(blocks, 8, _nearest_iq4, -127, -32)
    scales = (scales + 32).astype(np.uint8)
    high, low = _bytes((scales >> 4).reshape(-1, 2, 4, 1), 2), _bytes((scales & 15).reshape(-1, 4, 2, 1), 4)
    q = _bytes(np.searchsorted(_IQ4_VALUES, values).reshape(-1, 8, 2, 16), 4)
    return np.concatenate((d, high[..., 0], low[..., 0], q.reshape(-1, 128)), 1)


_QUANTISERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "Q2_K": (_q2_k, _BLOCK),
    "Q3_K": (_q3_k, _BLOCK),
    "Q4_K": (_q4_k, _BLOCK),
    "Q5_K": (_q5_k, _BLOCK),
    "Q6_K": (_q6_k, _BLOCK),
    "IQ4_NL": (_iq4_nl, 32),
    "IQ4_XS": (_iq4_xs, _BLOCK),
}
