"""Does the mouth follow the speech? Numbers about a video of a drawn face, all measured from its pixels.

Works on decoded frames and samples; knows no files. The mouth's opening, the head's place and the rest
come from a network that reads drawn faces (``reader``), which makes errors of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .opening import mouth_curves
from .reader import FaceReader, read_frames

LARGEST_LAG = 12
_SILENT, _SILENT_FRAMES = 0.03, 5
_REST_FRAMES = 4  # a video begins with the portrait, whatever is being said
_EDGE_FRAMES = 25


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        frames: of the video that speech was there for.
        correlation: Pearson's r of the mouth's opening and the speech's, frame by frame.
        best_lag: by how many frames the mouth follows the speech where they agree best (0: no lag).
        best_correlation: r there.
        error: mean absolute difference of the two openings, each 0 to 1.
        silent_opening: mean opening while nothing is heard; None where there is no silence.
        motion: standard deviation of the head's place, in percent of the picture's side.
        colour_drift: largest change of mean red, green or blue from the first second to the last, in levels of 255.
        identity_db: the upper face in the last second against the first, brought to one place; peak SNR in dB.
        background_db: the picture's upper corners against the first frame; peak SNR in dB.
        seams: windows that follow another.
        seam_ratio: change between frames where a window follows another, against elsewhere; None without seams. Of a
            few seams it tells how the person moves just there, and nothing of seams.
        smile, sorrow, brows, gaze: the face's mean expression; 0 is neutral, gaze -1 is to the picture's left.
        spoken, seen: the two openings, frame by frame.
    """

    frames: int
    correlation: float
    best_lag: int
    best_correlation: float
    error: float
    silent_opening: float | None
    motion: float
    colour_drift: float
    identity_db: float
    background_db: float
    seams: int
    seam_ratio: float | None
    smile: float
    sorrow: float
    brows: float
    gaze: float
    spoken: tuple[float, ...] = dataclasses.field(repr=False, default=())
    seen: tuple[float, ...] = dataclasses.field(repr=False, default=())


def evaluate_frames(
    frames: np.ndarray, samples: np.ndarray, reader: FaceReader, seams: Sequence[int] = ()
) -> Evaluation:
    """Measure a video.

    Args:
        frames: uint8 [n, H, W, 3], 25 a second.
        samples: the speech, float32 [m] at 16 kHz, at a usual level.
        seams: numbers of frames that begin a window, but for the first.

    Raises:
        ValueError: fewer than 10 frames with speech.
    """
    spoken = mouth_curves(torch.from_numpy(np.array(samples, np.float32))[None])[0][0].numpy()
    count = min(len(frames), len(spoken))
    if count < 10:
        raise ValueError(f"{count} frames with speech are too few to compare; 10 are the least")
    frames, spoken = frames[:count], spoken[:count]
    pixels = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)
    curves = {name: curve.numpy() for name, curve in read_frames(reader, _Scaled(pixels)).items()}
    seen = curves["opening"]
    lags = {lag: _correlation(spoken, seen, lag) for lag in range(-LARGEST_LAG, LARGEST_LAG + 1)}
    best = max(lags, key=lambda lag: (lags[lag], -abs(lag)))
    settled = slice(_EDGE_FRAMES if count > 2 * _EDGE_FRAMES else 0, None)
    return Evaluation(
        frames=count,
        correlation=lags[0],
        best_lag=best,
        best_correlation=lags[best],
        error=float(np.abs(spoken - seen)[_REST_FRAMES:].mean()),
        silent_opening=_silent_opening(spoken, seen),
        motion=50 * math.hypot(float(curves["x"].std()), float(curves["y"].std())),
        colour_drift=_colour_drift(frames),
        identity_db=_identity(pixels, curves),
        background_db=_background(frames),
        seams=sum(0 < seam < count for seam in seams),
        seam_ratio=_seam_ratio(frames, seams),
        smile=float(curves["smile"][settled].mean()),
        sorrow=float(curves["sorrow"][settled].mean()),
        brows=float(curves["brows"][settled].mean()),
        gaze=float(curves["gaze_x"][settled].mean()),
        spoken=tuple(round(float(value), 4) for value in spoken),
        seen=tuple(round(float(value), 4) for value in seen),
    )


class _Scaled:
    """uint8 frames that come out in [-1, 1] a few at a time."""

    def __init__(self, levels: torch.Tensor) -> None:
        self._levels = levels

    def split(self, count: int) -> list[torch.Tensor]:
        return [piece.float() / 127.5 - 1 for piece in self._levels.split(count)]


def _correlation(spoken: np.ndarray, seen: np.ndarray, lag: int) -> float:
    """Pearson's r where ``seen`` follows by ``lag`` frames; 0 where a curve does not move."""
    spoken, seen = spoken[_REST_FRAMES:], seen[_REST_FRAMES:]
    if lag > 0:
        spoken, seen = spoken[:-lag], seen[lag:]
    elif lag < 0:
        spoken, seen = spoken[-lag:], seen[:lag]
    if len(spoken) < 5 or spoken.std() < 1e-4 or seen.std() < 1e-4:
        return 0.0
    return float(np.corrcoef(spoken, seen)[0, 1])


def _silent_opening(spoken: np.ndarray, seen: np.ndarray) -> float | None:
    silent = np.convolve(spoken < _SILENT, np.ones(_SILENT_FRAMES), "full")[: len(spoken)] >= _SILENT_FRAMES
    return float(seen[silent].mean()) if silent.any() else None


def _colour_drift(frames: np.ndarray) -> float:
    edge = min(_EDGE_FRAMES, len(frames) // 2)
    return float(np.abs(frames[:edge].mean(axis=(0, 1, 2)) - frames[-edge:].mean(axis=(0, 1, 2))).max())


def _identity(pixels: torch.Tensor, curves: dict[str, np.ndarray]) -> float:
    """The forehead, eyes and hair of the last second against the first, frames moved to where the head was first."""
    edge = min(_EDGE_FRAMES, len(pixels) // 2)
    n, _, height, width = pixels.shape

    def mean_face(numbers: range) -> torch.Tensor:
        faces = []
        for k in numbers:
            right = (curves["x"][k] - curves["x"][0]) * width / 2
            down = (curves["y"][k] - curves["y"][0]) * height / 2
            faces.append(torch.roll(pixels[k].float(), (-round(float(down)), -round(float(right))), dims=(1, 2)))
        return torch.stack(faces).mean(dim=0)

    x, y = ((curves[axis][0] + 1) / 2 for axis in "xy")
    rows = slice(max(0, int((y - 0.3) * height)), max(8, int((y + 0.05) * height)))
    columns = slice(max(0, int((x - 0.22) * width)), max(8, int((x + 0.22) * width)))
    first, last = mean_face(range(edge))[:, rows, columns], mean_face(range(n - edge, n))[:, rows, columns]
    return _peak_snr(float((first - last).square().mean()))


def _background(frames: np.ndarray) -> float:
    """Of the two upper corners, a tenth of the width each."""
    height, width = frames.shape[1] // 4, max(1, frames.shape[2] // 10)
    corners = np.concatenate([frames[:, :height, :width], frames[:, :height, -width:]], axis=2).astype(np.float32)
    return _peak_snr(float(np.square(corners - corners[:1]).mean()))


def _peak_snr(error: float) -> float:
    return 10 * math.log10(255**2 / max(error, 1e-3))


def _seam_ratio(frames: np.ndarray, seams: Sequence[int]) -> float | None:
    changes = [float(np.abs(a.astype(np.float32) - b).mean()) for a, b in zip(frames, frames[1:], strict=False)]
    at = [changes[seam - 1] for seam in seams if 0 < seam <= len(changes)]
    rest = [change for index, change in enumerate(changes, 1) if index not in set(seams)]
    return float(np.mean(at)) / max(float(np.mean(rest)), 1e-6) if at and rest else None
