"""Text embeddings on disk, so that a prompt seen before does not open the 11 GB text encoder.

One safetensors file per prompt, named by a hash of everything that decides its content: the text
encoder's file, the tokenizer, the dtype and the cleaned prompt. A cache that cannot be read or
written never stops a run. Does not know how text is encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError

from ...checkpoints.lookup import TextFiles
from ...errors import InputError
from ...facts.json_text import read_json
from .tokenizer import MAX_TOKENS, clean_prompt

_VERSION = "1"  # raise it when the same inputs come to give other embeddings
_LARGEST = 1 << 26  # bytes: 512 tokens of the widest encoder are a tenth of that
_LENGTH = 8  # bytes of a safetensors file, of its header's length
_EDGE = 1 << 20  # bytes read at either end of a weights file: they hold its header and its last tensors


class _Encoder(Protocol):
    def encode(self, prompts: list[str]) -> list[torch.Tensor]: ...


@dataclass(frozen=True, eq=False)
class Encoded:
    """Stands for an encoder that has encoded the prompts that are missing."""

    embeddings: list[torch.Tensor]

    def encode(self, prompts: list[str]) -> list[torch.Tensor]:
        return self.embeddings


def default_cache_dir() -> Path | None:
    """``$INFINITETALK_CACHE/text``, else ``infinitetalk/text`` in the platform's cache folder.

    None where the user has no home folder.
    """
    if own := os.environ.get("INFINITETALK_CACHE"):
        return Path(own) / "text"
    try:
        return _platform_cache_dir() / "infinitetalk" / "text"
    except RuntimeError:  # Path.home() finds none
        return None


def _platform_cache_dir() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def text_identity(files: TextFiles, dtype: torch.dtype) -> str:
    """A hash of what besides the prompt decides an embedding.

    The weights count by their file's size, time and both ends, the tokenizer by its whole content.

    Raises:
        InputError: the text encoder does not exist.
    """
    path = files.weights
    if not path.is_file():
        raise InputError(f"the text encoder (umT5): {path} is not a file. Check the path.")
    status = path.stat()
    digest = hashlib.sha256(f"{_VERSION} {dtype} {status.st_size} {status.st_mtime_ns} ".encode())
    with path.open("rb") as stream:
        digest.update(stream.read(_EDGE))
        stream.seek(max(0, status.st_size - _EDGE))
        digest.update(stream.read(_EDGE))
    if files.tokenizer is not None:
        digest.update(hashlib.sha256(files.tokenizer.read_bytes()).digest())
    # An explicit tokenizer replaces the one inside the checkpoint, the same file found beside it does not.
    digest.update(b"explicit" if files.given else b"found")
    return digest.hexdigest()


@dataclass(frozen=True)
class Embeddings:
    """What an embedding [n, width] must be like to be used; anything else is made anew.

    Attributes:
        width, dtype: None for any.
    """

    width: int | None = None
    dtype: torch.dtype | None = None

    def fits(self, embedding: torch.Tensor) -> bool:
        return (
            embedding.ndim == 2
            and 1 <= embedding.shape[0] <= MAX_TOKENS
            and self.width in (None, embedding.shape[1])
            and embedding.dtype.is_floating_point
            and self.dtype in (None, embedding.dtype)
            and bool(embedding.float().isfinite().all())
        )


def encode_prompts(
    prompts: Sequence[str],
    load: Callable[[], _Encoder],
    identity: str,
    cache_dir: Path | None,
    expected: Embeddings = Embeddings(),
) -> list[torch.Tensor]:
    """Embeddings [n, dim] of the prompts, on the CPU, from the cache where it has them.

    Args:
        prompts: as typed.
        load: called at most once, and only if a prompt is not in the cache.
        identity: see ``text_identity``.
        cache_dir: made if missing; None does without a cache.
        expected: of what the cache holds.
    """
    files = {prompt: cache_dir and cache_dir / f"{_key(identity, prompt)}.safetensors" for prompt in prompts}
    found = {prompt: _read(file, expected) for prompt, file in files.items()}
    missing = [prompt for prompt, embedding in found.items() if embedding is None]
    if missing:
        for prompt, embedding in zip(missing, load().encode(missing), strict=True):
            found[prompt] = embedding.cpu().contiguous()
            if expected.fits(found[prompt]):
                _write(files[prompt], found[prompt])
    return [found[prompt] for prompt in prompts]


def not_cached(
    prompts: Sequence[str], identity: str, cache_dir: Path | None, expected: Embeddings = Embeddings()
) -> list[str]:
    """The prompts for which the text encoder is needed; see ``encode_prompts``."""
    files = {p: cache_dir and cache_dir / f"{_key(identity, p)}.safetensors" for p in prompts}
    return [prompt for prompt, file in files.items() if _read(file, expected) is None]


def _key(identity: str, prompt: str) -> str:
    return hashlib.sha256(f"{identity} {clean_prompt(prompt)}".encode()).hexdigest()


def _read(file: Path | None, expected: Embeddings) -> torch.Tensor | None:
    """The embedding in ``file``; None if there is none, or the file is broken and is to be made anew."""
    if file is None:
        return None
    try:
        if file.stat().st_size > _LARGEST:
            return None
        data = file.read_bytes()
        length = int.from_bytes(data[:_LENGTH], "little")
        checksum = read_json(data[_LENGTH : _LENGTH + length])["__metadata__"]["checksum"]
        embedding = safetensors.torch.load(data)["embedding"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return embedding if expected.fits(embedding) and checksum == _checksum(embedding) else None


def _checksum(embedding: torch.Tensor) -> str:
    """Of numbers, type and shape: what a disk has spoilt would change every frame, and look like an embedding."""
    numbers = embedding.contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(f"{embedding.dtype} {tuple(embedding.shape)} ".encode() + numbers.tobytes()).hexdigest()


def _write(file: Path | None, embedding: torch.Tensor) -> None:
    """Write under another name first, so that a file under its final name is always whole."""
    if file is None:
        return
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            stream.write(safetensors.torch.save({"embedding": embedding}, {"checksum": _checksum(embedding)}))
        Path(temporary).replace(file)
    except OSError:  # read-only or full: the next run encodes again
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
