"""Speech made ready: from a sound to what the transformer hears, apart from the making of a video.

So that several videos can share it. Knows neither windows nor settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.files import open_tensors
from ..checkpoints.kinds import SILENCE_MARK
from ..errors import InputError
from ..media.audio import Audio, Sound, frame_count, open_audio
from ..media.speech import speech_for_model
from .speech_encoder import SpeechEncoder
from .speech_features import SpeechFeatures


@dataclass(frozen=True, eq=False)
class EncodedSpeech:
    """A sound, and what wav2vec2 made of it.

    Attributes:
        audio: as it was recorded, or what was made of that beforehand.
        soundtrack: what the finished video carries.
        samples: as wav2vec2 hears it: float32 [n], mono, 16 kHz, -23 LUFS.
        features: of its video frames; those of long speech are encoded where they are asked for.
        encoder: which then has to be on the device.
    """

    audio: Audio
    soundtrack: Audio
    samples: np.ndarray
    features: SpeechFeatures
    encoder: SpeechEncoder

    def __str__(self) -> str:
        return str(self.audio)

    @property
    def num_frames(self) -> int:
        """Length in video frames."""
        return frame_count(len(self.samples))

    def move_to(self, device: torch.device | str) -> None:
        """Move the encoder's weights."""
        self.encoder.move_to(device)

    def digest(self) -> str:
        parts = [self.audio] if self.soundtrack is self.audio else [self.audio, self.soundtrack]
        return " ".join(part.digest() for part in parts)


def read_silence(path: Path, like: SpeechFeatures) -> torch.Tensor:
    """Stored features of silence, float32 [n, layers, channels].

    Args:
        like: the features of the speech that they are heard after.

    Raises:
        InputError: they cannot be read, or are not of that encoder.
    """
    frames = open_tensors(path, "--silence")[SILENCE_MARK].float()
    layers, channels = like.windows(0, 1).shape[-2:]
    if frames.dim() != 3 or frames.shape[1:] != (layers, channels) or len(frames) == 0:
        raise InputError(
            f"--silence: {path} holds features of the shape {tuple(frames.shape)}, but the speech encoder gives "
            f"[frames, {layers}, {channels}]; leave it out to have silence computed."
        )
    return frames


def encode_speech(source: Path | Sound, encoder: SpeechEncoder, soundtrack: Sound | None = None) -> EncodedSpeech:
    """Normalise a sound and encode it.

    Args:
        soundtrack: what the finished video carries, if that is another sound.

    Raises:
        InputError: it cannot be read, or is too short.
    """
    audio = open_audio(source)
    samples = speech_for_model(audio)
    carried = audio if soundtrack is None else open_audio(soundtrack)
    return EncodedSpeech(audio, carried, samples, encoder.encode(samples), encoder)
