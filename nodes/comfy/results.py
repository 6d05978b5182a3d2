"""Whether the videos that the sampler made are still on disk, for ComfyUI's question if it must run again."""

from __future__ import annotations

from pathlib import Path


class Results:
    """Remembers the videos that were made for each set of widget values: with other presets, several."""

    def __init__(self) -> None:
        self._paths: dict[tuple, set[Path]] = {}
        self._lost: dict[tuple, int] = {}

    def made(self, widgets: tuple, path: Path) -> None:
        self._paths.setdefault(widgets, set()).add(path)

    def fingerprint(self, widgets: tuple) -> int:
        """Changes whenever one of the videos is found to be gone."""
        paths = self._paths.get(widgets, set())
        lost = {path for path in paths if not path.exists()}
        if lost:
            paths -= lost
            self._lost[widgets] = self._lost.get(widgets, 0) + 1
        return self._lost.get(widgets, 0)


RESULTS = Results()
