"""Whether the videos that the sampler made are still on disk, for ComfyUI's question if it must run again."""

from __future__ import annotations

from pathlib import Path


class Results:
    """Remembers the video that was made last for each set of widget values."""

    def __init__(self) -> None:
        self._paths: dict[tuple, Path] = {}
        self._lost: dict[tuple, int] = {}

    def made(self, widgets: tuple, path: Path) -> None:
        self._paths[widgets] = path

    def fingerprint(self, widgets: tuple) -> int:
        """Changes whenever the video is found to be gone."""
        path = self._paths.get(widgets)
        if path is not None and not path.exists():
            del self._paths[widgets]
            self._lost[widgets] = self._lost.get(widgets, 0) + 1
        return self._lost.get(widgets, 0)


RESULTS = Results()
