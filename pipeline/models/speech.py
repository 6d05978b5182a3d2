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
from .speech_encoder import SpeechEncoder, SpeechFeatures


@dataclass(frozen=True, eq=False)
class EncodedSpeech:
    """A sound, and what wav2vec2 made of it.

    Attributes:
        audio: as it was recorded.
        samples: as wav2vec2 hears it: float32 [n], mono, 16 kHz, -23 LUFS.
        features: of its video frames; those of long speech are encoded where they are asked for.
        encoder: which then has to be on the device.
    """

    audio: Audio
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
        return self.audio.digest()


def encode_speech(source: Path | Sound, encoder: SpeechEncoder) -> EncodedSpeech:
    """Normalise a sound and encode it.

    Raises:
        InputError: it cannot be read, or is too short.
    """
    audio = open_audio(source)
    samples = speech_for_model(audio)
    return EncodedSpeech(audio, samples, encoder.encode(samples), encoder)
