"""``infinitetalk evaluate VIDEO AUDIO``: files in, numbers as text or JSON and a picture out."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from ..errors import InputError
from ..job.container import open_container
from ..job.record import read_record
from ..settings.demo import FACE_READER
from ..settings.flags import Parser
from .console import say

if TYPE_CHECKING:
    from ..evaluation.measures import Evaluation

ENOUGH_SEAMS = 5  # a mouth that opens, or a head that turns, changes one frame as much as a jump would


def parser() -> Parser:
    """The flags of the command."""
    found = Parser(
        "infinitetalk evaluate",
        "VIDEO AUDIO [--json FILE] [--picture FILE.png]",
        "Does a drawn face's mouth follow the speech, and do head, colours and background stay: in numbers.",
    )
    found.add_argument("video", type=Path, metavar="VIDEO", help="a video made here")
    found.add_argument("audio", type=Path, metavar="AUDIO", help="the speech that it was made with")
    found.add_argument("--json", type=Path, metavar="FILE", help="write the numbers into this file as well")
    found.add_argument("--picture", type=Path, metavar="FILE.png", help="draw them beside frames of the video")
    return found


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        InputError: a file cannot be read, written or is too short.
    """
    if args.picture is not None and args.picture.suffix.lower() != ".png":
        raise InputError(f"--picture writes PNG; {args.picture} should end in .png.")
    for path in filter(None, (args.json, args.picture)):
        if not path.absolute().parent.is_dir():
            raise InputError(f"the folder of {path} does not exist; make it first.")
    frames = read_video(args.video)
    from ..evaluation.measures import evaluate_frames
    from ..evaluation.reader import load_reader
    from ..media.audio import open_audio
    from ..media.speech import speech_for_model

    reader, about = load_reader(FACE_READER)
    speech, seams = speech_for_model(open_audio(args.audio)), seams_of(args.video, len(frames))
    try:
        result = evaluate_frames(frames, speech, reader, seams)
    except ValueError as error:
        raise InputError(f"{args.video} and {args.audio}: {error}.") from error
    if args.json is not None:
        args.json.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n", encoding="utf-8")
    if args.picture is not None:
        from ..evaluation.picture import draw_evaluation

        draw_evaluation(result, frames[: result.frames], args.picture)
    say(describe(result, about))
    return 0


def read_video(path: Path) -> np.ndarray:
    """Frames uint8 [n, H, W, 3]; the whole video in memory.

    Raises:
        InputError: it cannot be read or does not have 25 frames a second.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a video.")
    try:
        with open_container(path) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            if abs(rate - 25) > 0.01:
                raise InputError(f"{path} has {rate:g} frames a second; those made here have 25.")
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path} is not a video that can be read; give one made here.") from error
    if not frames:
        raise InputError(f"{path} holds no frames; give a video made here.")
    return np.stack(frames)


def seams_of(video: Path, frames: int) -> tuple[int, ...]:
    """The frames that begin a window, but for the first, by the settings stored in the video; none without."""
    try:
        settings = read_record(video).settings
    except InputError:
        return ()
    length, motion = settings.get("frame_num"), settings.get("motion_frame")
    if not isinstance(length, int) or not isinstance(motion, int):
        return ()
    return tuple(range(length, frames, length - motion)) if 0 < motion < length else ()


def describe(result: Evaluation, about: dict[str, str]) -> str:
    """The numbers as text."""
    silence = "no silence in it" if result.silent_opening is None else f"{result.silent_opening:.3f} in silence"
    seams = f"{result.seams}, too few to tell a jump from a movement of the person" if result.seams else "none"
    if result.seam_ratio is not None and result.seams >= ENOUGH_SEAMS:
        seams = f"{result.seams}, with {result.seam_ratio:.2f} times as much change as elsewhere"
    lines = [
        f"mouth and speech   r {result.correlation:.3f} at lag 0 over {result.frames} frames",
        f"best lag           {result.best_lag} frames (r {result.best_correlation:.3f})",
        f"opening            mean error {result.error:.3f}; {silence}",
        f"head motion        {result.motion:.2f} % of the side",
        f"colour drift       {result.colour_drift:.1f} levels of 255 from the first second to the last",
        f"identity           {result.identity_db:.1f} dB, upper face, last second against first",
        f"background         {result.background_db:.1f} dB, upper corners against the first frame",
        f"window seams       {seams}",
        f"expression         smile {result.smile:+.2f}, sorrow {result.sorrow:+.2f}, brows {result.brows:+.2f}, "
        f"gaze {result.gaze:+.2f}",
    ]
    if "error" in about:
        lines.append(f"(read from pixels by a network whose own mean error is {about['error']}, r {about.get('r')},")
        lines.append(" on drawn faces it never saw; it knows no other faces)")
    return "\n".join(lines)
