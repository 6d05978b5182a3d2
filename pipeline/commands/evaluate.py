"""``infinitetalk evaluate VIDEO AUDIO``: files in, numbers as text or JSON and a picture out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import av
import numpy as np

from ..errors import InputError
from ..evaluation.measures import Evaluation, evaluate_frames
from ..evaluation.reader import load_reader
from ..job.record import read_record
from ..media.audio import open_audio
from ..media.speech import speech_for_model
from ..settings.demo import FACE_READER

USAGE = "infinitetalk evaluate VIDEO AUDIO [--json FILE] [--picture FILE.png]"


def evaluate_command(argv: list[str]) -> str:
    """Evaluate as these words ask; returns the text to print.

    Raises:
        InputError: words are missing or unknown, a file cannot be read, or it is too short.
    """
    files, outputs = _words(argv)
    video, sound = files
    frames = read_video(video)
    reader, about = load_reader(FACE_READER)
    try:
        result = evaluate_frames(frames, speech_for_model(open_audio(sound)), reader, seams_of(video, len(frames)))
    except ValueError as error:
        raise InputError(f"evaluate: {video} and {sound}: {error}.") from error
    if "--json" in outputs:
        outputs["--json"].write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n", encoding="utf-8")
    if "--picture" in outputs:
        from ..evaluation.picture import draw_evaluation

        draw_evaluation(result, frames[: result.frames], outputs["--picture"])
    return describe(result, about)


def _words(argv: list[str]) -> tuple[list[Path], dict[str, Path]]:
    files: list[Path] = []
    outputs: dict[str, Path] = {}
    words = iter(argv)
    for word in words:
        if word in ("--json", "--picture"):
            value = next(words, None)
            if value is None:
                raise InputError(f"evaluate: {word} needs the name of a file to write: {USAGE}")
            outputs[word] = Path(value)
        elif word.startswith("--"):
            raise InputError(f"evaluate: {word} is unknown: {USAGE}")
        else:
            files.append(Path(word))
    if len(files) != 2:
        raise InputError(f"evaluate: give a video and a sound, as in: {USAGE}")
    if "--picture" in outputs and outputs["--picture"].suffix.lower() != ".png":
        raise InputError(f"evaluate: --picture writes PNG; {outputs['--picture']} should end in .png.")
    for path in outputs.values():
        if not path.absolute().parent.is_dir():
            raise InputError(f"evaluate: the folder of {path} does not exist; make it first.")
    return files, outputs


def read_video(path: Path) -> np.ndarray:
    """Frames uint8 [n, H, W, 3]; the whole video in memory.

    Raises:
        InputError: it cannot be read or does not have 25 frames a second.
    """
    if not path.is_file():
        raise InputError(f"evaluate: {path} does not exist; give a video.")
    try:
        with av.open(f"file:{path}", container_options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            if abs(rate - 25) > 0.01:
                raise InputError(f"evaluate: {path} has {rate:g} frames a second; those made here have 25.")
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"evaluate: {path} is not a video that can be read; give one made here.") from error
    if not frames:
        raise InputError(f"evaluate: {path} holds no frames; give a video made here.")
    return np.stack(frames)


def seams_of(video: Path, frames: int) -> tuple[int, ...]:
    """The frames that begin a window, but for the first, by the settings stored in the video; none without."""
    try:
        settings = read_record(video).settings
        length, motion = int(settings["frame_num"]), int(settings["motion_frame"])
    except (InputError, KeyError, TypeError, ValueError):
        return ()
    return tuple(range(length, frames, length - motion)) if 0 < motion < length else ()


def describe(result: Evaluation, about: dict[str, str]) -> str:
    """The numbers as text."""
    silence = "no silence in it" if result.silent_opening is None else f"{result.silent_opening:.3f} in silence"
    seams = "no seams" if result.seam_ratio is None else f"{result.seam_ratio:.2f} times as much as elsewhere"
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
