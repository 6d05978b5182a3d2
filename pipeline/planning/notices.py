"""Sentences about settings and inputs that work, but cannot give what one would hope for.

Knows decoded inputs; files that do not work at all are refused by those who read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..job.job import Job
    from ..media.reference import Reference

FAINT = 1e-3  # of full scale: speech is at -23 LUFS by then, only silence is left as it was
SMALL = 4  # enlarged so many times, a face has no features left


@dataclass(frozen=True)
class Notice:
    """A sentence that the user should read; ``warning`` if the video may not be what was wished for."""

    text: str
    warning: bool = field(default=False, compare=False)


def input_notices(job: Job, speech: np.ndarray, reference: Reference, size: tuple[int, int]) -> tuple[str, ...]:
    """What the user should know about the speech and the reference before the work begins.

    Args:
        speech: as the model hears it, float32 [samples].
        size: of the video, (height, width) in pixels.
    """
    notices = []
    if max(speech.max(), -speech.min()) < FAINT:
        notices.append(
            f"{job.speech} is silent, so nothing will be said in the video; check that it is the right file."
        )
    if max(size[0] / reference.height, size[1] / reference.width) > SMALL:
        notices.append(
            f"{job.reference} is only {reference.width}x{reference.height} and is enlarged to {size[1]}x{size[0]}; "
            "a larger picture gives a sharper video."
        )
    return tuple(notices)


def cut_notice(speech_seconds: float, seconds: float) -> tuple[str, ...]:
    """What to tell when the video ends before the speech does, both to whole frames."""
    if seconds >= speech_seconds:
        return ()
    ends = f"--max_frame_num or --mode clip ends the video after {seconds:.2f} s"
    return (f"{ends}; the speech lasts {speech_seconds:.2f} s.",)
