"""Files of ``torch.save``: the tensors that they name. Nothing in them is executed."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch

from ..errors import InputError
from .headers import FileKind, Stored, damaged
from .reading import Memory


def pickle_tensors(path: Path, what: str) -> dict[str, Stored]:
    """Every tensor by its name, memory-mapped where the file allows it.

    Raises:
        InputError: damaged, or something other than named tensors.
    """
    state = _load(path, what)
    for key in ("state_dict", "model_state", "module"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise InputError(f"{what}: {path} holds a {type(state).__name__}, not named tensors.")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return Memory(tensors, path).stored()


def _load(path: Path, what: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # written before torch 1.6: no zip archive, cannot be memory-mapped
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{what}: {path} holds something other than plain tensors and was not executed. "
            "Use the .safetensors file of the same weights, or the publisher's original."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged data makes the unpickler raise almost anything
        raise damaged(path, FileKind.PICKLE, what) from error
