"""ComfyUI's quantised checkpoints, old and new: scales and markers beside each weight.

Old (2024 to 2025): a marker tensor ``scaled_fp8``, perhaps prefixed, and ``X.scale_weight`` for each fp8 matrix.
New: ``X.weight_scale``, and what ``X`` is kept as in JSON, either in a tensor of bytes ``X.comfy_quant`` or in the
header's ``_quantization_metadata`` (ComfyUI's QUANTIZATION.md; comfy/ops.py for what it really reads). Files of
lightx2v have the new scales alone. A scale is one number or one for each row. Scales of the activations
(``input_scale``, ``scale_input``) are dropped: activations are scaled as they come.

The engine's own converted files keep this layout, with one scale for each row:

    X.weight        int8 or fp8 [out, in]
    X.weight_scale  float32, for int8 [out, 1] as ComfyUI writes it, for fp8 [out] as convert_to_quant does
    X.comfy_quant   {"format": "int8_tensorwise"}, "float8_e4m3fn_rowwise" or "float8_e5m2_rowwise"

so ComfyUI itself reads int8 matrices, and refuses fp8 ones, which it only knows with one scale. What is not
quantised is as in a plain file (``writing`` writes it). Knows no models.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from ..facts.json_text import read_json
from ..facts.storages import ROW_SCALED, STORAGES
from .entry import Entry
from .scaled import fits, scaled

_HEADER = "_quantization_metadata"
_MARKER = "scaled_fp8"
_SCALES = (".weight_scale", ".scale_weight")
_DROPPED = (".comfy_quant", ".input_scale", ".scale_input")
_FORMATS = {form: storage.dtype for storage in STORAGES for form in storage.comfy}
# What the JSON may also say without changing what the numbers mean; convrot, say, means that they are rotated.
_HARMLESS = {"format", "params", "full_precision_matrix_mult", "per_row", "orig_dtype", "orig_shape"}
# of nvfp4, SVDQuant, GPTQ, AWQ and bitsandbytes
_OTHERS = re.compile(r"(.+)\.(pre_quant_scale|smooth_factor|wscales|qweight|qzeros|SCB)")
_COMPANION = re.compile(r"(.+)\.weight[._].+")
# Several models may lie in one file, each quantised or not.
_COMPONENTS = ("model.diffusion_model.", "text_encoders.", "cond_stage_model.", "vae.", "first_stage_model.")


def read_scaled(entries: dict[str, Entry], path: Path, metadata: dict[str, str], what: str) -> dict[str, Entry]:
    """Scales folded into their weights, markers left out; a plain file stays as it is.

    Raises:
        InputError: a layer is kept in a way that is not read here, or its scales are missing.
    """
    described = _described_dtypes(entries, path, metadata, what)
    _check_companions(entries, path, what)
    marks = [name for name in entries if name.endswith(_SCALES) or _is_marker(name)]
    scaled_parts = set(_COMPONENTS) | {""} if _MARKER in entries else {_component(name) for name in marks}
    result: dict[str, Entry] = {}
    missing: list[str] = []
    for name, entry in entries.items():
        layer = name.removesuffix(".weight")
        if _is_marker(name) or name.endswith((*_SCALES, *_DROPPED)):
            continue
        if layer == name or _is_recognised(entry):
            result[name] = entry
            continue
        dtype = described.get(layer, entry.dtype)
        scale = next((entries[layer + end] for end in _SCALES if layer + end in entries), None)
        if not (dtype in ROW_SCALED or _is_float(dtype)):
            raise _not_read(what, path, layer, f"its weight is {dtype}")
        if scale is not None and not fits(entry, scale):
            found = f"{list(scale.shape)} scales in {scale.dtype} for a weight of {list(entry.shape)}"
            raise _not_read(what, path, layer, f"{found}; read are one for all or one for each row")
        if scale is None and (
            layer in described or dtype == "int8" or (_is_fp8_matrix(entry) and _component(name) in scaled_parts)
        ):
            missing.append(name)
        result[name] = entry if scale is None else scaled(entry, scale, dtype)
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{what}: {path} lacks the scales of {missing[0]}{others}, without which its 8-bit numbers mean nothing. "
            "Is the download complete? Else give the bf16 or fp16 file of the same model."
        )
    return result


def _is_marker(name: str) -> bool:
    return name == _MARKER or name.endswith(f".{_MARKER}")


def _is_recognised(entry: Entry) -> bool:
    """Whether another format has told what it is."""
    quantised = entry.storage is not None and entry.storage.quantised
    return quantised or entry.scale is not None or entry.numbers.blocks is not None


def _is_fp8_matrix(entry: Entry) -> bool:
    return len(entry.shape) == 2 and entry.dtype in ROW_SCALED


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def _component(name: str) -> str:
    return next((prefix for prefix in _COMPONENTS if name.startswith(prefix)), "")


def _not_read(what: str, path: Path, layer: str, why: str) -> InputError:
    return InputError(
        f"{what}: {path} keeps {layer} in a way that is not read here ({why}). "
        "Give a bf16, fp16, fp8, int8 or GGUF file of the same model."
    )


def _check_companions(entries: dict[str, Entry], path: Path, what: str) -> None:
    """Refuse what lies beside a weight and is not known: it would change what the weight means."""
    for name in entries:
        beside = _COMPANION.fullmatch(name)
        if beside and f"{beside[1]}.weight" in entries and not name.endswith(_SCALES):
            raise _not_read(what, path, beside[1], f"it has {name}")
        other = _OTHERS.fullmatch(name)
        if other:
            raise _not_read(what, path, other[1], f"it has {name}")


def _described_dtypes(entries: dict[str, Entry], path: Path, metadata: dict[str, str], what: str) -> dict[str, str]:
    """What the JSON of the header and of the tensors says each layer's numbers are."""
    descriptions = _header(path, metadata, what)
    prefixed = {layer: f"{_COMPONENTS[0]}{layer}" for layer in descriptions}
    descriptions = {prefixed[k] if f"{prefixed[k]}.weight" in entries else k: v for k, v in descriptions.items()}
    for name, entry in entries.items():
        if name.endswith(".comfy_quant"):
            text = entry.numbers.source.content(entry.numbers).rstrip(b"\0")
            descriptions[name.removesuffix(".comfy_quant")] = _json(text, path, name, what)
    described = {}
    for layer, description in descriptions.items():
        weight = entries.get(f"{layer}.weight")
        if weight is None:  # described in this header, but in another file
            continue
        described[layer] = _described_dtype(description, weight.dtype, path, layer, what)
    return described


def _described_dtype(description: object, found: str, path: Path, layer: str, what: str) -> str:
    """What the numbers of a layer are, of which the file says ``description`` and which it stores as ``found``."""
    said = description if isinstance(description, dict) else {"format": str(description)}
    inner = said.get("params")
    said = {**said, **(inner if isinstance(inner, dict) else {})}
    form = said.get("format", {dtype: form for form, dtype in _FORMATS.items()}.get(found))
    dtype = _FORMATS.get(str(form))
    strange = [key for key, value in said.items() if value and key not in _HARMLESS]
    if dtype is None or strange:
        raise _not_read(what, path, layer, f"its format is {' with '.join([str(form), *strange[:1]])}")
    if found != dtype and not (found == "uint8" and _is_float(dtype)):  # older files have fp8 as bytes
        raise _not_read(what, path, layer, f"its format is {form}, but its weight {found}")
    return dtype


def _header(path: Path, metadata: dict[str, str], what: str) -> dict[str, object]:
    if _HEADER not in metadata:
        return {}
    header = _json(metadata[_HEADER], path, _HEADER, what)
    layers = header.get("layers") if isinstance(header, dict) else None
    if not isinstance(layers, dict):
        raise InputError(f"{what}: {path} has a {_HEADER} that names no layers. Download it again.")
    return layers


def _json(text: str | bytes, path: Path, name: str, what: str) -> object:
    try:
        return read_json(text)
    except ValueError as error:
        raise InputError(f"{what}: {path} has a {name} that is not valid JSON. Download it again.") from error
