"""results.jsonl: what became of each job, a line for each, written as it is known.

A line is on the disk before the next one is begun; what a crash tears is dropped by the next run, which replaces the
file as a whole where lines of earlier runs no longer hold. One process writes it at a time. Knows nothing of how videos
are made.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..errors import InputError
from ..facts.json_text import read_json
from ..media.file_lock import try_lock
from ..media.publishing import open_locked

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Attributes:
        state: done or failed.
        seconds: that it took; None where it was there already and no line tells.
        frames: of the video.
        path: of the video; None if there is none.
        error: the sentence that says why there is none.
    """

    id: str
    state: str
    seconds: float | None = None
    frames: int | None = None
    path: str | None = None
    error: str | None = None


_NAMES = {field.name for field in fields(Result)}
_BEGINS = b'{"id": "'


class Results:
    """The file of a run, open and locked. A context manager.

    Attributes:
        path: of the file.
        held: what it says, by id.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            InputError: another process writes it, it was not written here, or it cannot be written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._opened()
            self.held = self._read()
        except OSError as error:
            raise _unwritable(path, error) from error

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def compact(self, holds: Callable[[Result], bool] = lambda result: True) -> None:
        """Leave one line for each job, of those that still hold. The file is replaced as a whole, if it changes.

        Raises:
            InputError: it cannot be written.
        """
        self.held = {id: result for id, result in self.held.items() if holds(result)}
        lines = b"".join(map(_line, self.held.values()))
        self._file.seek(0)
        if self._file.read() == lines:
            return
        writing = self.path.with_name(f"{self.path.name}.tmp")
        try:
            if os.path.lexists(writing):
                _check_ours(writing)
                writing.unlink()
            file = writing.open("x+b", buffering=0)
            try_lock(file)  # so that it is ours when it gets the name
            _write(file, lines)
            if sys.platform == "win32":  # which replaces no file that is open
                self._file.close()
            writing.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._file.close()
        self._file = file

    def add(self, result: Result) -> None:
        """Write a line.

        Raises:
            InputError: it cannot be written.
        """
        if self.held.get(result.id) == result:
            return
        try:
            self._file.seek(0, os.SEEK_END)
            _write(self._file, _line(result))
            self.held[result.id] = result
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _opened(self) -> BinaryIO:
        file = open_locked(self.path, new=not os.path.lexists(self.path))
        if file is None:
            raise InputError(f"another process is writing {self.path}: wait for it, or give another --out.")
        return file

    def _read(self) -> dict[str, Result]:
        try:
            return {result.id: result for result in _results(self._file.read(), self.path)}
        except InputError:
            self._file.close()
            raise


def results_in(path: Path) -> list[Result]:
    """What the file says; nothing where there is none.

    Raises:
        InputError: it was not written here.
    """
    return _results(path.read_bytes(), path) if path.is_file() else []


def _results(data: bytes, path: Path) -> list[Result]:
    *lines, torn = data.split(b"\n")  # after the last end of a line is nothing, or what a crash tore
    found = [_result(line) for line in lines]
    if None in found or not torn.startswith(_BEGINS[: len(torn)]):
        raise _not_ours(path)
    return [result for result in found if result is not None]


def _result(line: bytes) -> Result | None:
    """What a line says; None if it was not written here."""
    try:
        entries = read_json(line)
    except ValueError:
        return None
    if not isinstance(entries, dict) or not {"id", "state"} <= set(entries) <= _NAMES:
        return None
    texts = [entries[name] for name in ("id", "state", "path", "error") if entries.get(name) is not None]
    numbers = [entries[name] for name in ("seconds", "frames") if entries.get(name) is not None]
    right = all(isinstance(each, str) for each in texts) and all(isinstance(each, int | float) for each in numbers)
    return Result(**entries) if right and entries["id"] is not None else None


def _line(result: Result) -> bytes:
    return json.dumps(asdict(result), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _write(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _check_ours(path: Path) -> None:
    """See that a file is what a run that was killed left."""
    if not path.is_file() or path.is_symlink():
        raise _not_ours(path)
    _results(path.read_bytes(), path)


def _not_ours(path: Path) -> InputError:
    return InputError(f"{path} was not written here; move it away, or give another --out.")


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path} ({error.strerror}): free some space or give another --out.")
