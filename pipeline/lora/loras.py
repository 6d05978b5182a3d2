"""All LoRAs of a run together: what they add to a parameter, or run beside it.

Differences are summed in float32, in the order of the files, each times its strength. Knows nothing about how
parameters are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .changes import Change, Product
from .reading import LoraFile, Shapes, read_lora

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Loras:
    """LoRA files with their strengths, and the shapes of the parameters that they change."""

    files: tuple[LoraFile, ...]
    scales: tuple[float, ...]
    shapes: Shapes

    def touches(self, name: str) -> bool:
        """Whether any of them changes this parameter."""
        return any(name in file.changes for file in self.files)

    def has_dense(self, name: str) -> bool:
        """Whether one changes it by more than a product of two matrices, so that it cannot run beside the layer."""
        return not all(
            isinstance(change, Product) and change.is_branch(self.shapes[name]) for change, _ in self._changes(name)
        )

    def rank(self, name: str) -> int:
        """Of all products for this parameter together."""
        return sum(change.rank for change, _ in self._changes(name) if isinstance(change, Product))

    def delta(self, name: str, device: torch.device) -> torch.Tensor:
        """What is to be added to a parameter: float32, in its shape.

        Raises:
            InputError: it is not finite.
        """
        import torch

        shape = self.shapes[name]
        total = torch.zeros(shape, device=device)
        for change, scale in self._changes(name):
            total += change.dense(shape, device) * scale
        self._check(name, total)
        return total

    def branch(self, name: str, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """``down`` [r, in] and ``up`` [out, r] of all products together, strengths in ``up``.

        Raises:
            InputError: they are not finite.
        """
        import torch

        ups, downs = [], []
        for change, scale in self._changes(name):
            if not isinstance(change, Product):
                raise TypeError(f"{name} is changed by a whole difference, which has no factors to run beside it")
            up, down = change.factors(device)
            ups.append((up * scale).to(dtype))
            downs.append(down.to(dtype))
        down, up = torch.cat(downs), torch.cat(ups, dim=1)
        self._check(name, down, up)
        return down, up

    def describe(self) -> tuple[str, ...]:
        """A line for each file: its strength and what it changes."""
        return tuple(self._line(file, scale) for file, scale in zip(self.files, self.scales, strict=True))

    def _line(self, file: LoraFile, scale: float) -> str:
        ranks: Counter[int] = Counter()
        others: Counter[str] = Counter()
        for name, changes in file.changes.items():
            for change in changes:
                if isinstance(change, Product):
                    ranks[change.rank] += 1
                else:
                    others[kind_of(name, self.shapes)] += 1
        products = [f"{count} layers by rank {rank}" for rank, count in sorted(ranks.items())]
        told = ", ".join([*products, *(f"{count} {kind}" for kind, count in sorted(others.items()))])
        left = f"; {len(file.unmatched)} keys without a place are left out" if file.unmatched else ""
        return f"LoRA {file.path.name} at {scale:g} changes {told}{left}"

    def _check(self, name: str, *results: torch.Tensor) -> None:
        if all(bool(result.isfinite().all()) for result in results):
            return
        found = [
            f"{file.path} at {scale:g}"
            for file, scale in zip(self.files, self.scales, strict=True)
            if not all(
                bool((change.dense(self.shapes[name], results[0].device) * scale).isfinite().all())
                for change in file.changes.get(name, ())
            )
        ]
        which = ", ".join(found) or "the LoRAs together"
        raise InputError(
            f"--lora_dir: what {which} adds to {name} is not finite (NaN or infinite): the file is damaged, or "
            "--lora_scale too great; download it again, lower the strength, or leave it out."
        )

    def _changes(self, name: str) -> list[tuple[Change, float]]:
        pairs = zip(self.files, self.scales, strict=True)
        return [(change, scale) for file, scale in pairs for change in file.changes.get(name, ())]


def open_loras(paths: Sequence[Path], scales: Sequence[float], shapes: Shapes, ignore_unmatched: bool) -> Loras:
    """Open LoRA files and find what they change; nothing but headers is read.

    Args:
        scales: strength of each; may be negative.
        shapes: names and shapes of the model's parameters.
        ignore_unmatched: go on without keys that have no place in the model.

    Raises:
        InputError: see ``read_lora``.
    """
    files = tuple(read_lora(path, shapes, ignore_unmatched) for path in paths)
    return Loras(files, tuple(scales), shapes)


def kind_of(name: str, shapes: Shapes) -> str:
    """What a parameter that is changed by a whole difference is, in the plural; the weight of a norm is a vector."""
    layer, _, leaf = name.rpartition(".")
    if leaf == "modulation":
        return "modulations"
    if len(shapes[f"{layer}.weight"]) == 1:
        return "norms"
    return "biases" if leaf == "bias" else "whole matrices"
