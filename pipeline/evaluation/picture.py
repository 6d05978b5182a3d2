"""An evaluation as a picture: the two openings over time, and frames of the video under them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .measures import Evaluation

WIDTH = 1200
_PLOT, _MARGIN, _STRIP = 240, 44, 12
_SPOKEN, _SEEN, _GRID, _INK = (40, 110, 200), (230, 110, 30), (226, 226, 226), (60, 60, 60)


def draw_evaluation(result: Evaluation, frames: np.ndarray, path: Path) -> None:
    """Write a PNG. ``frames``: uint8 [n, H, W, 3], those that were measured."""
    side = WIDTH // _STRIP
    tall = side * frames.shape[1] // frames.shape[2]
    picture = Image.new("RGB", (WIDTH, _PLOT + _MARGIN + tall), "white")
    draw = ImageDraw.Draw(picture)
    top, bottom = _MARGIN, _PLOT - 8
    for second in range(result.frames // 25 + 1):
        x = _across(second * 25, result.frames)
        draw.line((x, top, x, bottom), fill=_GRID)
        draw.text((x + 3, bottom - 12), f"{second} s", fill=_INK)
    for curve, colour in ((result.spoken, _SPOKEN), (result.seen, _SEEN)):
        points = [(_across(k, result.frames), bottom - value * (bottom - top)) for k, value in enumerate(curve)]
        draw.line(points, fill=colour, width=2)
    draw.text((8, 8), "opening by the speech", fill=_SPOKEN)
    draw.text((180, 8), "opening of the mouth, read from the pixels", fill=_SEEN)
    draw.text((480, 8), f"r {result.correlation:.3f} at lag 0; best lag {result.best_lag} frames", fill=_INK)
    for k in range(_STRIP):
        at = round((k + 0.5) * result.frames / _STRIP)
        frame = Image.fromarray(frames[min(at, len(frames) - 1)]).resize((side, tall), Image.Resampling.LANCZOS)
        picture.paste(frame, (k * side, _PLOT + _MARGIN))
        draw.text((k * side + 4, _PLOT + _MARGIN - 16), f"{at / 25:.2f} s", fill=_INK)
        x = _across(at, result.frames)
        draw.line((x, bottom, k * side + side // 2, _PLOT + _MARGIN - 18), fill=_GRID)
    picture.save(path)


def _across(frame: float, frames: int) -> float:
    return 4 + (WIDTH - 8) * frame / max(frames, 1)
