"""Speech made ready: from a sound to what the transformer hears, apart from the making of a video.

So that several videos can share it. Knows neither windows nor settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

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
