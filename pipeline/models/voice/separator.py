"""A voice taken out of a mix: which network a file holds, and the voice as sound that can be heard again.

Knows both networks, and keeps the voice in a temporary file, so that an hour takes no more memory than a minute.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ...checkpoints.files import open_tensors
from ...checkpoints.kinds import DEMUCS_MARK
from ...errors import InputError, in_short
from ...media.audio import Audio, Sound
from ...media.later import LateSound
from .demucs import load_demucs
from .mel_band import load_mel_band


class Separator(Protocol):
    """A network that takes a voice out of a mix."""

    @property
    def sample_rate(self) -> int: ...

    def length(self, audio: Audio) -> int:
        """Samples of a channel of the voice."""
        ...

    def voice(self, audio: Audio) -> Iterator[np.ndarray]:
        """The voice, float32 [2, n] piece by piece."""
        ...


def load_separator(path: Path, device: torch.device | str) -> Separator:
    """Load the network of a file; which one is told by the names of its tensors.

    Raises:
        InputError: the file is missing, damaged or of another kind, or a package that its network needs is missing.
    """
    tensors = open_tensors(path, "--separate_voice")
    return (load_demucs if DEMUCS_MARK in tensors else load_mel_band)(tensors, device)


def voice_in(audio: Audio, path: Path, device: torch.device | str) -> LateSound:
    """The voice in a sound, separated when it is first listened to; the network stays no longer than it works.

    Args:
        path: of the network's file.

    Raises:
        InputError: the file is of another kind, or a package that its network needs is missing.
    """
    shape = load_separator(path, "meta")
    name = f"the voice in {audio}"

    def separate() -> Sound:
        return stored(load_separator(path, device).voice(audio), shape.sample_rate, name)

    return LateSound(shape.sample_rate, 2, shape.length(audio), audio.heard, name, separate)


def stored(pieces: Iterator[np.ndarray], sample_rate: int, name: str) -> Sound:
    """Sound [2, n] piece by piece, kept in a temporary file that is gone when the sound is."""
    length = 0
    try:
        with tempfile.TemporaryFile() as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece.T, np.float32).data)
                length += piece.shape[1]
            file.flush()
            samples = np.memmap(file, np.float32, mode="r", shape=(length, 2))
    except OSError as error:
        raise InputError(
            f"The voice cannot be stored in the folder for temporary files ({in_short(error)}); free some space "
            "there, or name another folder in the environment variable TMPDIR."
        ) from error
    return Sound(samples.T, sample_rate, name)
