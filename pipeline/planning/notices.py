"""Sentences about settings and inputs that work, but cannot give what one would hope for.

Knows decoded inputs; files that do not work at all are refused by those who read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..facts import downloads
from ..media.audio import Audio, AudioFile, audible_track
from ..media.speech import is_faint

if TYPE_CHECKING:
    from PIL import Image

    from ..facts.model_sizes import TransformerConfig
    from ..job.job import Job
    from ..media.reference import Reference
    from ..settings.definition import Settings
    from .windows import WindowSpan

SILENT = 1e-4  # of full scale: the noise of a decoder is below it
SMALL = 2  # enlarged more, a face has no features left
CROPPED = 0.25  # of the picture: more lost at its sides may be part of the face
SHORT = 0.75  # of a window: one that need not be longer is worth a setting
FLAT = 0.3  # of a drawing's pixels are like their neighbours, even in a JPEG; of a photo's, less than a tenth
_DEMO = 256, 768, 5  # width, feed-forward width and blocks of the model that comes with the program


@dataclass(frozen=True)
class Notice:
    """A sentence that the user should read; ``warning`` if the video may not be what was wished for."""

    text: str
    warning: bool = field(default=False, compare=False)


def sound_notices(audio: Audio, speech: np.ndarray | None) -> tuple[str, ...]:
    """What the user should know about the sound before the work begins.

    Args:
        speech: as the model hears it, float32 [samples]; None where that is not known yet.
    """
    heard = audio.heard
    notices = []
    if heard.passed_over:
        used = f"track {audio.track + 1}" if isinstance(audio, AudioFile) else "the next one"
        notices.append(f"{audio}: {'; '.join(heard.passed_over)}. {used.capitalize()} is used.")
    if heard.lost:
        places = "1 packet" if heard.lost == 1 else f"{heard.lost} packets"
        notices.append(f"{audio} is damaged: {places} of its sound cannot be decoded and became silence.")
    if heard.is_cut:
        notices.append(f"{audio} is damaged: its sound cannot be read further than {audio.seconds:.2f} s.")
    if heard.cancels:
        notices.append(
            f"The channels of {audio} are in opposite phase and cancel each other when they are mixed, so next to "
            "nothing of the speech is heard; give one channel alone (ffmpeg: -af pan=mono|c0=c0)."
        )
    elif speech is not None and is_faint(speech):
        notices.append(_silence(audio, speech))
    return tuple(notices)


def voice_notice(audio: Audio, speech: np.ndarray) -> tuple[str, ...]:
    """What to tell when no voice was found in a mix."""
    if not is_faint(speech):
        return ()
    return (
        f"--separate_voice found no voice in {audio}, so nothing will be said in the video; check that it is the right "
        "file, or leave the flag out.",
    )


def _silence(audio: Audio, speech: np.ndarray) -> str:
    """That there is no speech, and where there may be some."""
    track = audible_track(audio) if isinstance(audio, AudioFile) else None
    if track is not None:
        return (
            f"The track of {audio} that is used is silent, so nothing will be said in the video, but "
            f"{track} is not: take it out (ffmpeg -i FILE -map 0:a:{track.number} speech.wav) and give that."
        )
    if max(speech.max(), -speech.min()) < SILENT:
        return f"{audio} is silent, so nothing will be said in the video; check that it is the right file."
    return (
        f"{audio} is all but silent, below -70 LUFS, so nothing will be said in the video; check that it is the right "
        "file, or raise its level."
    )


def picture_notices(job: Job, reference: Reference, size: tuple[int, int], drawn_only: bool) -> tuple[str, ...]:
    """What the user should know about the reference before the work begins.

    Args:
        size: of the video, (height, width) in pixels.
        drawn_only: whether the model knows no other faces than drawn ones.
    """
    notices = []
    height, width = size
    scale = max(height / reference.height, width / reference.width)
    if scale > SMALL:
        notices.append(
            f"{job.reference} is only {reference.width}x{reference.height} and is enlarged to {width}x{height}; "
            "a larger picture gives a sharper video."
        )
    lost = 1 - height * width / (scale * reference.height * scale * reference.width)
    if lost > CROPPED:
        sides = "left and right" if scale * reference.width > width else "top and bottom"
        notices.append(
            f"{job.reference} is {reference.width}x{reference.height}: {lost:.0%} of it is cut off at {sides} to make "
            f"{width}x{height}; crop it around the person, or choose another --size."
        )
    if drawn_only and not is_drawn(reference.frame(0)):
        notices.append(
            f"The demo model knows drawn faces only, such as assets/drawn_portrait.png, and {job.reference} looks like "
            "a photo: the video will not look like it. Give a drawn face, or use the real model."
        )
    return tuple(notices)


def knows_drawn_faces_only(config: TransformerConfig) -> bool:
    """Whether this is the model that comes with the program, wherever its files lie; no published one is so small."""
    return (config.dim, config.ffn_dim, config.num_layers) == _DEMO


def is_drawn(image: Image.Image) -> bool:
    """Whether a picture's middle has flat colours, as drawings have; a photo's noise is in skin as well."""
    width, height = image.size
    middle = image.crop((width // 4, height // 4, width - width // 4, height - height // 4)).resize((96, 96))
    steps = np.abs(np.diff(np.asarray(middle, np.int16), axis=1)).max(axis=2)
    return float((steps <= 1).mean()) > FLAT


def stand_in_notices(wanted: tuple[Path, ...] | None, used: tuple[Path, ...]) -> tuple[str, ...]:
    """That a LoRA is another than the one that is named.

    Args:
        wanted: as the settings name them.
        used: their files, in the same order.
    """
    return tuple(
        f"--lora_dir: {name.name} is not there, so {file} takes its place, which was made for text to video: frames "
        f"are not those of the right one. Get that with: {downloads.line(downloads.part_of(name.name).name)}"
        for name, file in zip(wanted or (), used, strict=False)
        if downloads.STAND_INS.get(name.name) == file.name
    )


def short_notice(spans: tuple[WindowSpan, ...], motion_frame: int) -> tuple[str, ...]:
    """That a video of one window needs less of it, and how a shorter one is had."""
    window = spans[0].stop - spans[0].start
    frames = spans[0].keep_to
    enough = max(-(-(frames - 1) // 4), -(-motion_frame // 4)) * 4 + 1  # 4n + 1, and more than the motion frames
    if len(spans) > 1 or enough > SHORT * window:
        return ()
    return (
        f"The video has {frames} frames, but the window that is computed for it {window}; "
        f"--frame_num {enough} makes a shorter one, in about {enough / window:.0%} of the time.",
    )


def cards_notices(settings: Settings) -> tuple[str, ...]:
    """What upstream's flags for several cards do otherwise here."""
    notices = []
    if settings.ring_size > 1:
        notices.append(
            f"--ring_size {settings.ring_size} counts as so many times --ulysses_size: cards share heads, not rings."
        )
    return tuple(notices)


def cut_notice(speech_seconds: float, seconds: float) -> tuple[str, ...]:
    """What to tell when the video ends before the speech does, both to whole frames."""
    if seconds >= speech_seconds:
        return ()
    ends = f"--max_frame_num or --mode clip ends the video after {seconds:.2f} s"
    return (f"{ends}; the speech lasts {speech_seconds:.2f} s.",)
