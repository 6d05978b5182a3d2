"""Files of ``torch.save``: the tensors that they name. Nothing in them is executed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import torch

from ..errors import InputError
from .headers import FileKind, Stored, damaged
from .reading import Memory
from .records import TooLargeError, check_records


def pickle_tensors(path: Path, what: str) -> dict[str, Stored]:
    """Every tensor by its name, memory-mapped where the file allows it.

    Raises:
        InputError: damaged, or something other than named tensors with their numbers.
    """
    state = _load(path, what)
    for key in ("state_dict", "model_state", "module"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise InputError(f"{what}: {path} holds a {type(state).__name__}, not named tensors.")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    _check_plain(tensors, path, what)
    return Memory(tensors, path).stored()


def _load(path: Path, what: str) -> object:
    try:
        mapped = not zipfile.is_zipfile(path) or check_records(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except RuntimeError:  # written before torch 1.6: no zip archive, cannot be memory-mapped
                if zipfile.is_zipfile(path):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{what}: {path} holds something other than plain tensors and was not executed. "
            "Use the .safetensors file of the same weights, or the publisher's original."
        ) from error
    except TooLargeError as error:
        raise InputError(f"{what}: {path} {error}. Get the publisher's original.") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged data makes the unpickler raise almost anything
        raise damaged(path, FileKind.PICKLE, what) from error


def _check_plain(tensors: dict[str, torch.Tensor], path: Path, what: str) -> None:
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            found = "no numbers (it is on the meta device)" if tensor.is_meta else "a sparse or quantised tensor"
            raise InputError(f"{what}: {path} holds {found} as {name}. Use the publisher's original.")
