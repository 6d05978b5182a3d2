"""A class for data sets of Ray (or anything that maps batches of rows): rows of a manifest in, rows of results out.

    ds = ray.data.read_json("jobs.jsonl").map_batches(
        TalkingVideos,
        fn_constructor_kwargs={"out": "/shared/videos", "folder": "/shared/jobs", "preset": "02_comfyui_equivalent"},
        concurrency=8, num_gpus=1, batch_size=1,
    )
    ds.write_json("/shared/results")

Each replica keeps its models from row to row. It can be pickled; knows nothing of Ray.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..settings.config import Config
from ..settings.roles import Value
from .manifest import line_of, refusal
from .results import FAILED, Result
from .tasks import Checks, Refused, Task, task_of
from .worker import Make, Worker

Columns = dict[str, list[Any]]


class TalkingVideos:
    """Makes the videos of rows; a column is a setting, as in a manifest, and ``id`` names the video.

    Args:
        out: folder of the videos.
        folder: that paths in rows start from.
        overwrite: whether other videos of the same names may be replaced.
        flags: settings of all rows that do not say otherwise.
    """

    def __init__(self, out: str | Path, folder: str | Path = ".", overwrite: bool = False, **flags: Value) -> None:
        self.out = Path(out)
        self.folder = Path(folder)
        self.overwrite = overwrite
        self.flags = flags
        self._worker: Worker | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_worker": None}  # models are loaded where it arrives

    def __call__(self, batch: Mapping[str, Iterable[Any]]) -> Columns:
        """The results of rows, in columns: id, state, seconds, frames, path, error; 0 and "" for what is not there."""
        columns = {name: list(values) for name, values in batch.items()}
        count = max(map(len, columns.values()), default=0)
        results = [
            self._result({name: _plain(values[row]) for name, values in columns.items()}) for row in range(count)
        ]
        return {
            "id": [each.id for each in results],
            "state": [each.state for each in results],
            "seconds": [each.seconds or 0.0 for each in results],
            "frames": [each.frames or 0 for each in results],
            "path": [each.path or "" for each in results],
            "error": [each.error or "" for each in results],
        }

    def _result(self, row: dict[str, Any]) -> Result:
        task = self._task(row)
        if isinstance(task, Refused):
            return Result(task.id, FAILED, error=task.sentence)
        self._worker = self._worker or Worker()
        outcome = self._worker.do(Make(task, self.overwrite))
        assert outcome.result is not None
        return outcome.result

    def _task(self, row: dict[str, Any]) -> Task | Refused:
        if row.get("id") in (None, ""):
            return Refused("", "", refusal("id: it is missing; a row of a data set needs one, which names its video."))
        task = task_of(line_of(self.folder, 1, "a row", row), argparse.Namespace(**self.flags), Config(), self.out)
        return Checks().check(task) if isinstance(task, Task) else task


def _plain(value: Any) -> Any:
    """A cell as JSON would have it: what columns of NumPy hold, with gaps that are none of anything left out."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and value != value else value
