"""Reading one LoRA file against a model: every key finds its parameter, or is named.

Reads headers only. A layer that the file does not mention stays as it is (a LoRA made for text-to-video is
normal on the image-to-video model); a key that has no place in the model is never passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.files import Tensors, open_tensors
from ..errors import InputError, in_short
from ..facts.json_text import read_json
from .changes import Change, Difference, Product, is_lora
from .names import flat_names, parameter_of, refused_as, split_key, without_prefix

Shapes = Mapping[str, tuple[int, ...]]

# key styles of other models: (pattern, what it is)
_OTHERS = (
    (re.compile(r"double_blocks|single_blocks|single_transformer_blocks"), "Flux or HunyuanVideo"),
    (re.compile(r"joint_blocks"), "Stable Diffusion 3"),
    (re.compile(r"(?:input|output|down|up|middle)_blocks?|mid_block|lora_te"), "Stable Diffusion or SDXL"),
    (re.compile(r"transformer_blocks"), "LTX-Video, Qwen-Image or another model"),
    (re.compile(r"vace_blocks"), "Wan VACE"),
)
_WIDTHS = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 5B", 5120: "a 14B model"}


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA changes, by parameter, and what of it has no place in the model."""

    path: Path
    changes: dict[str, tuple[Change, ...]]
    unmatched: tuple[str, ...]


def read_lora(path: Path, shapes: Shapes, ignore_unmatched: bool = False) -> LoraFile:
    """Find the parameters that a LoRA file changes.

    Args:
        shapes: names and shapes of the model's parameters.
        ignore_unmatched: go on without keys that have no place in the model.

    Raises:
        InputError: it is no LoRA, one of a kind that is not read, made for another model, or fits in part.
    """
    what = "--lora_dir"
    tensors = open_tensors(path, what)
    check_kind(path, tensors)
    flat, adapter = flat_names(shapes), _adapter(path, tensors)
    groups: dict[str, dict[str, str]] = {}
    unmatched = []
    for key in tensors:
        split = split_key(key)
        if split is None:
            unmatched.append(key)
        else:
            groups.setdefault(split[0], {})[split[1]] = key
    changes: dict[str, list[Change]] = {}
    for module, parts in groups.items():
        unmatched += _take(module, parts, tensors, shapes, flat, changes, adapter)
    if not changes:
        raise InputError(_other_model(path, unmatched))
    if unmatched and not ignore_unmatched:
        raise InputError(
            f"{what}: {path} has {len(unmatched)} of {len(tensors)} keys with no place in this transformer, such as "
            f"{_some(unmatched)}; give a LoRA for Wan 2.1 I2V 14B, or --lora_ignore_unmatched to go on without them."
        )
    return LoraFile(path, {name: tuple(several) for name, several in changes.items()}, tuple(unmatched))


def check_kind(path: Path, tensors: Tensors) -> None:
    """Raise an InputError if this is no LoRA, or an adapter of another kind."""
    for key in tensors:
        kind = refused_as(key)
        if kind is not None:
            raise InputError(f"--lora_dir: {path} is or contains {kind} ({key}), which is not read; give a plain LoRA.")
    if not is_lora(tensors):
        raise InputError(f"--lora_dir: {path} is not a LoRA (it holds {_some(list(tensors))}); check the path.")


def _take(
    module: str,
    parts: dict[str, str],
    tensors: Tensors,
    shapes: Shapes,
    flat: dict[str, str],
    changes: dict[str, list[Change]],
    adapter: _Adapter,
) -> list[str]:
    """Put a module's tensors into ``changes``; returns the keys that have no place."""
    unmatched = []
    product = None
    if "up" in parts or "down" in parts:
        for part, other in (("up", "down"), ("down", "up")):
            if part not in parts:
                raise InputError(
                    f"--lora_dir: {tensors.source} has {parts[other]} without its other half ({part}). "
                    "Download it again."
                )
        alpha = parts.get("alpha", adapter.alpha)
        product = Product(tensors, parts["up"], parts["down"], parts.get("mid"), alpha, adapter.by_root)
    for part, key in parts.items():
        if part in ("down", "mid", "alpha"):
            if product is None:
                unmatched.append(key)
            continue
        name = parameter_of(module, part, shapes, flat)
        if name is None:
            unmatched += [key, *(parts[other] for other in ("down", "mid", "alpha") if part == "up" and other in parts)]
            continue
        change: Change = Difference(tensors, key)
        if part == "up" and product is not None:
            change = product
        elif part == "bias of up" and product is not None:
            change = Difference(tensors, key, product.factor)
        if not change.fits(shapes[name]):
            raise InputError(_misfit(tensors.source, change, name, shapes[name]))
        changes.setdefault(name, []).append(change)
    return unmatched


@dataclass(frozen=True)
class _Adapter:
    """What PEFT's settings say of all layers."""

    alpha: float | None = None
    by_root: bool = False


def _adapter(path: Path, tensors: Tensors) -> _Adapter:
    """PEFT's settings: in the header, as diffusers writes them, or in adapter_config.json beside the file.

    Rank-stabilised LoRA (arXiv 2312.03732) is told by them alone; it cannot be seen in the tensors.
    """
    beside = path.parent / "adapter_config.json"
    text = tensors.metadata.get("lora_adapter_metadata")
    if text is None and path.stem.startswith("adapter_model") and beside.exists():
        text = _text(beside)
    try:
        config = read_json(text or "{}")
        values = {name.rpartition(".")[2]: value for name, value in config.items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"--lora_dir: the settings of {path} (PEFT's adapter config) are damaged.") from error
    if values.get("alpha_pattern"):
        raise InputError(f"--lora_dir: {path} has an alpha_pattern in its settings, which is not read.")
    alpha = values.get("lora_alpha")
    return _Adapter(float(alpha) if isinstance(alpha, int | float) else None, values.get("use_rslora") is True)


def _text(beside: Path) -> str:
    try:
        return beside.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"--lora_dir: {beside} (PEFT's adapter config) cannot be read ({in_short(error)}).") from error


def _misfit(path: Path, change: Change, name: str, shape: tuple[int, ...]) -> str:
    sentence = f"--lora_dir: {path} has {change.description}, which does not fit {name} of shape {list(shape)}"
    if isinstance(change, Product):
        width = change.tensors.shape(change.up)[0]
        if width in _WIDTHS and width != shape[0]:
            return f"{sentence}: it was made for {_WIDTHS[width]}. Give the LoRA for Wan 2.1 I2V 14B."
    return f"{sentence}. Is it a LoRA for another model?"


def _other_model(path: Path, keys: list[str]) -> str:
    made_for = next((model for pattern, model in _OTHERS if any(pattern.search(key) for key in keys)), None)
    guess = f" (it looks like one for {made_for})" if made_for else ""
    return (
        f"--lora_dir: {path} was made for another model{guess}: none of its {len(keys)} keys, such as {_some(keys)}, "
        "has a place in this transformer. Give a LoRA for Wan 2.1 I2V 14B."
    )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) or "nothing"


def blocks_touched(keys: list[str]) -> set[int]:
    """Numbers of the blocks that keys name."""
    found = (re.search(r"blocks[._](\d+)[._]", without_prefix(key)) for key in keys)
    return {int(number[1]) for number in found if number}
