"""Draws the icon of the ComfyUI registry: ``python -m infinitetalk.scripts.icon`` writes ``assets/icon.png``."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

SIDE, SMOOTH = 400, 4  # pixels, and how much larger it is drawn
DARK, LIGHT, SOUND = (24, 26, 34), (246, 240, 230), (90, 200, 250)
BARS = (0.25, 0.6, 1.0, 0.45, 0.8, 0.35)  # heights of the speech that a mouth makes


def draw() -> Image.Image:
    """A speaking face, and its speech as bars, without end at the right."""
    side = SIDE * SMOOTH
    picture = Image.new("RGB", (side, side), DARK)
    pen = ImageDraw.Draw(picture)

    def at(*fractions: float) -> tuple[float, ...]:
        return tuple(side * each for each in fractions)

    pen.ellipse(at(0.08, 0.2, 0.52, 0.8), fill=LIGHT)
    for x in (0.2, 0.36):
        pen.ellipse(at(x, 0.38, x + 0.05, 0.46), fill=DARK)
    pen.ellipse(at(0.23, 0.56, 0.37, 0.68), fill=DARK)
    for index, height in enumerate(BARS):
        x = 0.58 + 0.07 * index
        pen.rounded_rectangle(at(x, 0.5 - 0.22 * height, x + 0.04, 0.5 + 0.22 * height), side * 0.02, fill=SOUND)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw().save(Path(__file__).parent.parent / "assets" / "icon.png")
