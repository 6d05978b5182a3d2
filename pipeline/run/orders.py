"""What a program and its helpers, a process for each card, say to each other. Everything here can be pickled.

Features of speech cannot, since those of long speech are made where they are asked for: a helper makes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..job.job import Job
from ..media.audio import Audio
from ..models.speech import EncodedSpeech
from ..models.speech_encoder import load_speech_encoder
from ..settings.definition import Settings
from .progress import Decoded, Event, Step, Working


@dataclass(frozen=True, eq=False)
class SentSpeech:
    """Encoded speech without its features; see ``EncodedSpeech``."""

    audio: Audio
    soundtrack: Audio
    samples: np.ndarray

    def encoded(self, encoder: Path, device: torch.device) -> EncodedSpeech:
        """The same, encoded once more by the encoder in that file."""
        model = load_speech_encoder(encoder, device)
        return EncodedSpeech(self.audio, self.soundtrack, self.samples, model.encode(self.samples), model)


@dataclass(frozen=True, eq=False)
class Order:
    """A video to make; see ``Generator.save``.

    Attributes:
        models: the settings of the generator.
        settings: of this video.
        job: what ``sendable`` gives.
    """

    models: Settings
    settings: Settings
    job: Job
    path: Path
    tags: Mapping[str, str] | None


@dataclass(frozen=True)
class Ready:
    """A helper has met the others, or has made a video with them, and waits."""


@dataclass(frozen=True, eq=False)
class Told:
    """An event, of the first helper."""

    event: Event


@dataclass(frozen=True)
class Failed:
    """A helper has ended.

    Attributes:
        sentence: why.
    """

    sentence: str


Message = Ready | Told | Failed


def sendable(job: Job) -> Job:
    """The same job, to be pickled: what is encoded is a ``SentSpeech`` there."""

    def sent(speech: Any) -> Any:
        encoded = isinstance(speech, EncodedSpeech)
        return SentSpeech(speech.audio, speech.soundtrack, speech.samples) if encoded else speech

    return _with_speech(job, sent)


def received(job: Job, encoder: Path, device: torch.device) -> Job:
    """The job that was made ``sendable``, its speech encoded again by the encoder in that file."""

    def encoded(speech: Any) -> Any:
        return speech.encoded(encoder, device) if isinstance(speech, SentSpeech) else speech

    return _with_speech(job, encoded)


def _with_speech(job: Job, changed: Callable[[Any], Any]) -> Job:
    speakers = tuple(replace(speaker, speech=changed(speaker.speech)) for speaker in job.speakers)
    return replace(job, speech=changed(job.speech), speakers=speakers)


def worth_sending(event: Event) -> Event | None:
    """An event as far as it is worth sending: of frames the last one, and nothing that is only a chance to stop."""
    match event:
        case Working():
            return None
        case Step(estimate=torch.Tensor() as estimate):
            return replace(event, estimate=estimate.cpu())
        case Decoded(frames=frames):
            return replace(event, frames=frames[-1:].clone())
    return event
