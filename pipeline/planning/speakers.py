"""Who is heard where in a video: decided from the job's speakers, the reference and the weights.

Two ways: the model binds voices to faces (weights for several speakers), or each voice is heard in its region alone.
One voice for the whole picture is neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.files import Tensors
from ..checkpoints.kinds import AUDIO_MARK
from ..errors import InputError
from ..facts.resizing import resize_steps
from ..job.job import Job
from ..job.speakers import Half, Region, Speaker, Turn
from ..media.audio import SAMPLE_RATE, Audio, Sound, open_audio
from ..media.later import LateSound
from ..media.mixing import Mix, arranged, open_part, part_of
from ..media.reference import Reference
from ..media.regions import softened, token_masks
from ..media.speech import speech_for_model
from ..models.speech import EncodedSpeech
from ..settings.definition import Settings

TRAINED_FOR = 2  # speakers that published weights for several were trained with
_NOTED = "speakers"  # in the header of a file of ours
_APART = 2  # tokens between one voice's region and the rest


@dataclass(frozen=True)
class SpeakersPlan:
    """Several voices, or one with a place.

    Attributes:
        voices: as the model hears them, 16 kHz, of one length; silence may be among them.
        masks: where the model binds voices to faces, bool [voices + 1, rows, columns] of tokens, the last one what is
            nobody's; else None.
        shares: where each voice is heard, float32 [voices, rows, columns], 1 in all; else None.
        told: who speaks where and when, a line for each.
    """

    voices: tuple[LateSound, ...]
    masks: torch.Tensor | None
    shares: torch.Tensor | None
    told: tuple[str, ...]


@dataclass(frozen=True)
class Spoken:
    """What a job's speakers say, laid out in time.

    Attributes:
        soundtrack: of the video.
        voices: of each speaker, float32 [samples] at 16 kHz, all of one length.
        starts: when each begins, in seconds.
    """

    soundtrack: Audio
    voices: tuple[np.ndarray, ...]
    starts: tuple[float, ...]


def spoken_by(job: Job) -> Spoken:
    """Open and prepare what a job's speakers say: each at -23 LUFS of their own.

    Raises:
        InputError: a sound cannot be used.
    """
    sounds = [None if speaker.speech is None else _sound_of(speaker) for speaker in job.speakers]
    heard = [None if sound is None else speech_for_model(sound) for sound in sounds]
    voices, starts = arranged(heard, together=job.arrangement == "para")
    seconds = tuple(start / SAMPLE_RATE for start in starts)
    if job.speech is not None:
        soundtrack = _opened(job.speech)
    else:
        said = list(dict.fromkeys(speaker.speech for speaker in job.speakers if speaker.speech is not None))
        if len(said) == 1 and (_is_recording(job.speakers) or sum(sound is not None for sound in sounds) == 1):
            soundtrack = _opened(said[0])
        else:
            tracks = [(sound, start) for sound, start in zip(sounds, seconds, strict=True) if sound is not None]
            soundtrack = tracks[0][0] if len(tracks) == 1 else Mix(tuple(tracks))
    return Spoken(soundtrack, tuple(voices), seconds)


def _is_recording(speakers: Sequence[Speaker]) -> bool:
    """Whether all are in one recording, each a part of it; tracks are mixed."""
    return all(speaker.turns is not None or speaker.channel is not None for speaker in speakers)


def _opened(source: Path | Sound | EncodedSpeech) -> Audio:
    return source.soundtrack if isinstance(source, EncodedSpeech) else open_audio(source)


def _sound_of(speaker: Speaker) -> Audio:
    source = speaker.speech
    if isinstance(source, EncodedSpeech):
        return part_of(source.audio, speaker.channel, speaker.turns)
    if source is None:
        raise AssertionError("asked of those who say something")
    return open_part(source, speaker.channel, speaker.track, speaker.turns)


def speakers_in(tensors: Tensors) -> int | None:
    """For how many speakers audio weights are, as far as the file tells; None where it does not.

    Ours say so. Of the published ones, the folder or the name does, and ComfyUI's kept the norms of those for one
    speaker in float32.
    """
    noted = tensors.metadata.get(_NOTED, "")
    if noted.isdecimal():
        return int(noted)
    source = tensors.source_of(AUDIO_MARK)
    words = {word for part in (source.stem, source.parent.name) for word in part.lower().replace("-", "_").split("_")}
    if "multi" in words:
        return TRAINED_FOR
    return 1 if "single" in words else None


def plan_speakers(
    job: Job, spoken: Spoken, reference: Reference, size: tuple[int, int], settings: Settings, trained: int | None
) -> SpeakersPlan:
    """Who is heard where.

    Args:
        size: of the video, (height, width) in pixels.
        trained: for how many speakers the weights are; None where that is not known.

    Raises:
        InputError: speakers without places, regions that do not fit, weights that cannot do it.
    """
    names = [_name(speaker, number) for number, speaker in enumerate(job.speakers)]
    regions = _regions(job.speakers, names)
    by_region = settings.bind == "region" or (settings.bind == "auto" and len(regions) == 1 and trained == 1)
    if not by_region and trained == 1:
        raise InputError(
            f"{len(regions)} speakers, but the InfiniteTalk weights (--infinitetalk_dir) are those for one. Give those "
            "for several (InfiniteTalk/multi/infinitetalk.safetensors), or --bind region, with which each voice is "
            "heard in its region alone."
        )
    steps = None if settings.resize is None else resize_steps(settings.resize)
    masks = token_masks(regions, (reference.height, reference.width), size, steps, names)
    voices = list(spoken.voices)
    if by_region or len(regions) == 1:
        voices.append(np.broadcast_to(np.float32(0), voices[0].shape))
    sounds = tuple(
        LateSound.of(Sound(np.ascontiguousarray(voice)[None], SAMPLE_RATE, f"the speech of {name}"))
        for voice, name in zip(voices, [*names, "nobody"], strict=False)
    )
    told = tuple(_told(*one) for one in zip(names, regions, job.speakers, spoken.voices, spoken.starts, strict=True))
    if by_region:
        soft = torch.stack([softened(mask) for mask in masks[:-1]])
        soft = soft / soft.sum(0).clamp(min=1)
        return SpeakersPlan(sounds, None, torch.cat([soft, 1 - soft.sum(0, keepdim=True)]), told)
    if len(regions) == 1:
        masks = with_everybody_else(masks[0], names[0])
    return SpeakersPlan(sounds, masks, None, told)


def with_everybody_else(mask: torch.Tensor, name: str) -> torch.Tensor:
    """One voice's mask, that of all others, who say nothing, and what lies between: bool [3, rows, columns].

    Raises:
        InputError: the region leaves no room for others.
    """
    near = softened(mask, _APART) > 0
    others, between = ~near, near & ~mask
    if not others.any() or not between.any():
        raise InputError(
            f"{name}: the region leaves nothing of the picture for others; draw it around the one face, or leave the "
            "region out where there is only one."
        )
    return torch.stack([mask, others, between])


def _name(speaker: Speaker, number: int) -> str:
    return f"speaker {number + 1}" + (f" ({speaker.name})" if speaker.name else "")


def _regions(speakers: Sequence[Speaker], names: Sequence[str]) -> list[Region]:
    """Everybody's region; two without any have a half each, as upstream has it."""
    given = [speaker.region for speaker in speakers]
    if len(given) == 2 and given == [None, None]:
        return [Half("left"), Half("right")]
    missing = [name for name, region in zip(names, given, strict=True) if region is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)}: no region is given, and {len(given)} speakers need one each; add region=left, "
            "right, box:LEFT,TOP,RIGHT,BOTTOM or mask:FILE to --speaker."
        )
    return [region for region in given if region is not None]


def speakers_notices(speakers: Sequence[Speaker], trained: int | None, bind: str) -> tuple[str, ...]:
    """What is said once of several speakers."""
    notices = []
    if len(speakers) > TRAINED_FOR and bind != "region":
        notices.append(
            f"{len(speakers)} speakers: the weights were trained with {TRAINED_FOR}, so more is an extrapolation; "
            "--bind region keeps voices apart in another way."
        )
    if len(speakers) > 1 and trained is None and bind != "region":
        notices.append(
            "Whether the InfiniteTalk weights are for several speakers cannot be told from their file; with those for "
            "one, mouths may follow the wrong voice."
        )
    return tuple(notices)


def _told(name: str, region: Region, speaker: Speaker, voice: np.ndarray, start: float) -> str:
    """One line of who speaks where and when."""
    where = f"{name}, {region}"
    if speaker.speech is None:
        return f"{where}: silent"
    turns = speaker.turns or (Turn(start, start + _length(speaker, voice, start)),)
    shown = ", ".join(f"{turn.start:.1f}-{turn.end:.1f} s" for turn in turns[:6])
    return f"{where}: {shown}{f' and {len(turns) - 6} more' if len(turns) > 6 else ''}"


def _length(speaker: Speaker, voice: np.ndarray, start: float) -> float:
    """Seconds from a voice's beginning to its last sound."""
    piece = 1 << 20
    first = round(start * SAMPLE_RATE)
    for stop in range(len(voice), first, -piece):
        sounding = np.flatnonzero(voice[max(first, stop - piece) : stop])
        if len(sounding):
            return (max(first, stop - piece) + int(sounding[-1]) + 1 - first) / SAMPLE_RATE
    return 0.0
