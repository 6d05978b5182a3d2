"""Whether a checkpoint has the tensors that a model needs, in their shapes: told by headers, without PyTorch."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .files import Tensors


def check_shape(name: str, expected: tuple[int, ...], tensors: Tensors, what: str) -> None:
    """Raise an InputError if the tensor's shape is not the expected one."""
    found = tensors.shape(name)
    if found != expected:
        raise InputError(
            f"{what}: {tensors.source_of(name)} has {name} of shape {list(found)}, expected {list(expected)}. "
            "Is it a file for another model?"
        )


def dimensions(name: str, rank: int, tensors: Tensors, what: str, source: Path | None = None) -> tuple[int, ...]:
    """The tensor's shape, which must have ``rank`` axes; for sizes that are read off a checkpoint.

    Args:
        source: the file that should hold it, where ``tensors`` are of several.

    Raises:
        InputError: there is no such tensor, or it has another number of axes.
    """
    if name not in tensors:
        raise InputError(f"{what}: {source or tensors.source} lacks {name}. Is the download complete?")
    shape = tensors.shape(name)
    if len(shape) != rank or 0 in shape:
        raise InputError(
            f"{what}: {tensors.source_of(name)} has {name} of shape {list(shape)}, {rank} axes expected. "
            "Is it a file for another model?"
        )
    return shape


def check_names(
    wanted: list[str],
    tensors: Tensors,
    what: str,
    optional: frozenset[str] = frozenset(),
    source: Path | None = None,
) -> None:
    """Raise an InputError that names what is missing.

    Args:
        source: the file that should hold them, where ``tensors`` are of several.
    """
    source = source or tensors.source
    missing = [name for name in wanted if name not in tensors and name not in optional]
    if not missing:
        return
    examples = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    if len(missing) == len(wanted):
        found = ", ".join(list(tensors)[:3]) or "nothing"
        raise InputError(
            f"{what}: {source} is a file of another kind: none of the expected tensors ({examples}) is in it; "
            f"it holds {found}, ... Check the path."
        )
    raise InputError(f"{what}: {source} lacks {examples}. Is the download complete?")
