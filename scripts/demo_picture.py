"""The animated picture at the top of the README, from the video that ``make demo`` makes.

``python -m infinitetalk.scripts.demo_picture [VIDEO] [OUT.webp]``
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from ..pipeline.commands.evaluate import read_video

ROOT = Path(__file__).parent.parent
_EVERY = 2  # frames; 12.5 a second are enough without sound


def save(video: Path, out: Path) -> None:
    """Write the video as an animated WebP of half its frames."""
    frames = [Image.fromarray(frame) for frame in read_video(video)[::_EVERY]]
    duration = 40 * _EVERY
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=duration, loop=0, quality=70, method=6)


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[1:3]]
    defaults = [ROOT / ".demo" / "talking.mp4", ROOT / "docs" / "pictures" / "demo.webp"]
    save(*given, *defaults[len(given) :])
