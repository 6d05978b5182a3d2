"""What a LoRA file is, told without a model, for ``infinitetalk inspect``."""

from __future__ import annotations

from collections import Counter

from ..checkpoints.files import Tensors
from ..errors import InputError
from .names import diffusers_name, split_key, without_prefix
from .reading import blocks_touched, check_kind


def lora_summary(tensors: Tensors) -> list[tuple[str, str]]:
    """Pairs of a heading and a text: rank, alpha, what it touches, and why it would be refused."""
    lines = [("is", "a LoRA"), ("fits", "--lora_dir, if its layers are those of the transformer")]
    keys = list(tensors)
    try:
        check_kind(tensors.source, tensors)
    except InputError as error:
        return [("is", "an adapter"), ("refused", str(error).removeprefix("--lora_dir: "))]
    parts = {key: split for key in keys if (split := split_key(key)) is not None}
    counts = Counter(part for _, part in parts.values())
    ranks = Counter(tensors.shape(key)[0] for key, (_, part) in parts.items() if part == "down")
    widths = Counter(tensors.shape(key)[0] for key, (_, part) in parts.items() if part == "up")
    if ranks:
        lines.append(("rank", ", ".join(f"{rank} ({count} layers)" for rank, count in sorted(ranks.items()))))
        lines.append(("width", str(widths.most_common(1)[0][0])))
        lines.append(("alpha", f"given for {counts['alpha']} layers" if counts["alpha"] else "not given: the rank"))
    differences = {part: count for part, count in counts.items() if part.startswith(("difference", "bias"))}
    if differences:
        lines.append(("also", ", ".join(f"{count} x {part}" for part, count in sorted(differences.items()))))
    blocks = blocks_touched(keys)
    if blocks:
        lines.append(("blocks", f"{len(blocks)} ({min(blocks)} to {max(blocks)})"))
    kinds = Counter(_layer(module) for module, part in parts.values() if part in ("up", "difference"))
    lines.append(("touches", ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))))
    strange = [key for key in keys if key not in parts]
    if strange:
        lines.append(("refused", f"{len(strange)} keys that are no part of a LoRA, such as {', '.join(strange[:3])}"))
    return lines


def _layer(module: str) -> str:
    """A module's name in its block."""
    name = diffusers_name(without_prefix(module))
    head, _, rest = name.partition("blocks.")
    return rest.partition(".")[2] if rest and not head else name
