"""Files of optimum-quanto, read without it: MeiGen's int8 and fp8 models, and Wan2GP's.

A quantised weight ``X.weight`` is two tensors, ``X.weight._data`` (int8 or fp8) and ``X.weight._scale`` (one for
each output channel, in the dtype that the model had); ``X.input_scale`` and ``X.output_scale`` are for quantised
activations and are dropped. What each ``X`` is kept as stands in a map, ``{"X": {"weights": "qint8", ...}}``, in a
JSON file beside the weights or in the header. Read from optimum-quanto 0.2.7 (tensor/weights/qbytes.py and
nn/qmodule.py), which multiplies data by scale in the scale's dtype; here it is done in float32.
"""

from __future__ import annotations

import base64
from pathlib import Path

from ..errors import InputError
from ..facts import downloads
from ..facts.json_text import read_json
from ..facts.storages import STORAGES
from .entry import Entry
from .scaled import fits, scaled

_DATA, _SCALE = "._data", "._scale"
_DROPPED = (".input_scale", ".output_scale")
_QTYPES = {qtype: storage.dtype for storage in STORAGES for qtype in storage.quanto}
_HEADERS = ("quantization_map", "quantization_map_base64")  # mmgp, Wan2GP's library, writes the latter


def is_quanto(entries: dict[str, Entry]) -> bool:
    return any(name.endswith(_DATA) for name in entries)


def read_quanto(entries: dict[str, Entry], path: Path, metadata: dict[str, str], what: str) -> dict[str, Entry]:
    """Data and scales as one weight each; all other tensors stay.

    Raises:
        InputError: the map or a scale is missing, the map is another file's, or a type is not read here.
    """
    layers = _map(path, metadata, what)
    result = {name: entry for name, entry in entries.items() if not name.endswith((_DATA, _SCALE, *_DROPPED))}
    for name, data in entries.items():
        if not name.endswith(_DATA):
            continue
        weight = name.removesuffix(_DATA).removesuffix(_DATA)  # 4-bit data are packed, and named twice
        layer = weight.removesuffix(".weight")
        scale = entries.get(f"{weight}{_SCALE}")
        qtype = layers.get(layer)
        if qtype is None:
            raise InputError(
                f"{what}: {path} has {name}, but its quantisation map does not name {layer}; the map is another "
                "file's. Put the JSON that was published with it beside it."
            )
        if qtype not in _QTYPES:
            raise InputError(
                f"{what}: {path} keeps {layer} as {qtype}; of quanto's types {', '.join(_QTYPES)} are read here. "
                "Give the int8, fp8 or bf16 file of the same model."
            )
        if data.dtype != _QTYPES[qtype]:
            raise InputError(
                f"{what}: {path} holds {name} in {data.dtype}, but its quantisation map says {qtype}; the map is "
                "another file's. Put the JSON that was published with it beside it."
            )
        if scale is None or not fits(data, scale):
            state = "lacks" if scale is None else f"has {list(scale.shape)} scales for {list(data.shape)} in"
            raise InputError(f"{what}: {path} {state} {weight}{_SCALE}. Is the download complete?")
        result[weight] = scaled(data, scale)
    return result


def _map(path: Path, metadata: dict[str, str], what: str) -> dict[str, str]:
    """The type of each layer, from the header or the file beside."""
    source, text = _map_text(path, metadata, what)
    try:
        layers = read_json(text if text.lstrip().startswith("{") else base64.b64decode(text))
    except ValueError as error:
        raise InputError(f"{what}: {source} is not valid JSON. Download it again.") from error
    if not isinstance(layers, dict) or not all(isinstance(layer, dict) for layer in layers.values()):
        raise InputError(f"{what}: {source} is no quantisation map (layers and their types). Download it again.")
    return {name: str(layer.get("weights")) for name, layer in layers.items()}


def _map_text(path: Path, metadata: dict[str, str], what: str) -> tuple[str, str]:
    """Where the map is, for messages, and what stands there."""
    for key in _HEADERS:
        if key in metadata:
            return f"the {key} in the header of {path}", metadata[key]
    places = _places(path)
    for place in places:
        if place.is_file():
            return f"the quantisation map {place}", place.read_text(encoding="utf-8", errors="replace")
    raise InputError(
        f"{what}: {path} is a quanto file without its quantisation map, a JSON file that is published with it: none "
        f"of {', '.join(place.name for place in places)} is beside it. Get MeiGen's with: {downloads.QUANTISED}"
    )


def _places(path: Path) -> tuple[Path, ...]:
    """Where a map may lie: MeiGen's NAME.json, t5_map_int8.json for t5_int8.safetensors, and mmgp's NAME_map.json."""
    first, _, last = path.stem.rpartition("_")
    names = [f"{path.stem}.json", f"{path.stem}_map.json", *([f"{first}_map_{last}.json"] if first else [])]
    return tuple(path.with_name(name) for name in names)
