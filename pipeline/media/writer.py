"""The video on disk: windows are appended as they are made, and finishing makes an ordinary MP4 of them.

While a video is made, ``NAME.partial.mp4`` holds all windows so far and plays; every window is on the
disk before ``write_window`` returns. ``finish`` copies its video packets, beside the sound, into
``NAME.mp4`` (header first, with a count of frames, settings in the metadata); until that is whole,
nothing appears under the final name. Knows nothing about how frames are made.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import av

from ..errors import InputError
from ..job.output import partial_path, state_path
from ..job.record import METADATA_KEY
from .audio import Audio
from .fragments import VideoFormat, encode_window
from .publishing import open_locked, publish
from .remux import remux

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 22  # bytes read at once


@dataclass(frozen=True)
class Written:
    """What a partial file holds: frames, bytes, and the SHA-256 of those bytes.

    The partial file cut to ``bytes`` is the video so far, and all that the next window depends on.
    """

    frames: int = 0
    bytes: int = 0
    digest: str = hashlib.sha256().hexdigest()


class VideoWriter:
    """Writes one video, window by window. A context manager: leaving it closes the partial file.

    Attributes:
        path: of the finished video; ``partial`` beside it, of the one in the making.
        written: what the partial file holds, after each window.
    """

    def __init__(
        self,
        path: Path,
        video: VideoFormat,
        audio: Audio | None = None,
        metadata: Mapping[str, object] | None = None,
        continued: Written | None = None,
        tags: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Begin a video.

        Args:
            path: ends in ``.mp4``; its folder is made if it is missing.
            video: what all frames have in common.
            audio: the sound, at its own rate and with its own channels, read again by ``finish``; None for a
                silent video.
            metadata: settings that JSON can hold, kept in the file under ``METADATA_KEY``; None: nothing is.
            continued: what an earlier writer of this video had written when it was interrupted; the
                partial file is cut to that and continued. None begins anew; an earlier partial file, which has
                its state beside it, is then replaced when the first window is written.
            tags: further metadata, kept as it is.
            overwrite: whether a file of the name ``path`` may be replaced by the finished video.

        Raises:
            InputError: another process is writing this video, the partial file does not hold what it
                should, or nothing can be written there.
        """
        self.path = path
        self.partial = partial_path(path)
        self.written = Written()
        self._created = self._finished = False
        self._hash = hashlib.sha256()
        self._video = video
        self._audio = audio
        self._overwrite = overwrite
        record = {} if metadata is None else {METADATA_KEY: json.dumps(metadata)}
        self._metadata = {**(tags or {}), **record}
        with self._disk_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._created = continued is None and not self.partial.exists()
            if continued is not None and not self.partial.exists():
                raise InputError(f"{self.partial} is gone, so the run cannot go on. Start again with --overwrite.")
            if not self._created and continued is None and not state_path(path).exists():
                raise InputError(f"{self.partial} was not made here: move it away, or give another --save_file.")
            file = open_locked(self.partial, self._created)
            if file is None:
                raise InputError(f"another process is writing {path}: wait for it, or give another --save_file.")
            self._file = file
            if continued is not None:
                self._continue(continued)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if self._finished or (self._created and self.written.frames == 0):
            with contextlib.suppress(OSError):  # a player may have it open, which Windows minds
                self.partial.unlink(missing_ok=True)

    def write_window(self, frames: Tensor) -> None:
        """Encode the next frames, uint8 RGB [T, height, width, 3] on any device, and see them onto the disk.

        Raises:
            InputError: the disk is full or fails. What was written before stays and plays.
        """
        expected = (self._video.height, self._video.width, 3)
        if tuple(frames.shape[1:]) != expected or len(frames) == 0:
            raise ValueError(f"frames must be [T, {', '.join(map(str, expected))}], not {list(frames.shape)}")
        fragment = encode_window(frames.cpu().numpy(), self.written.frames, self._video)
        data = fragment.data if self.written.frames else fragment.header + fragment.data
        with self._disk_errors():
            try:
                self._append(data)
            except BaseException:  # an interrupt as well: the file must end with a whole window
                self._file.truncate(self.written.bytes)
                raise
        self._hash.update(data)
        self.written = Written(
            self.written.frames + len(frames), self.written.bytes + len(data), self._hash.hexdigest()
        )

    def finish(self) -> Path:
        """Make the finished video and return its path; leaving the writer then removes the partial one.

        Raises:
            InputError: the disk is full or fails. The partial video stays.
        """
        if self.written.frames == 0:
            raise ValueError("no window has been written")
        name = hashlib.sha256(f"{self.path.name} {self.written.digest}".encode()).hexdigest()[:16]
        whole = self.path.with_name(f"{name}.tmp.mp4")  # a name that nobody else gives, and the same after a crash
        with self._disk_errors():
            whole.unlink(missing_ok=True)  # of an earlier run that was killed here
            try:
                remux(self.partial, whole, self._audio, self._video.fps, self._metadata)
                with whole.open("r+b") as file:
                    os.fsync(file.fileno())
                if not publish(whole, self.path, self._overwrite or self._is_ours(whole)):
                    raise InputError(
                        f"{self.path} has appeared in the meantime, and stays; {self.partial} holds the video: move "
                        "the other file away, then go on with --resume, or replace it by --resume --overwrite."
                    )
            except BaseException:
                whole.unlink(missing_ok=True)
                raise
        self._finished = True
        return self.path

    def _is_ours(self, whole: Path) -> bool:
        """Whether the file of the final name is what an earlier run was killed while naming: the video, or nothing."""
        if self.path.is_symlink() or not self.path.is_file():
            return False
        return self.path.stat().st_size == 0 or filecmp.cmp(whole, self.path, shallow=False)

    def _continue(self, continued: Written) -> None:
        """Read what was written and see that it is whole."""
        left = continued.bytes
        while left and (block := self._file.read(min(left, _BLOCK))):
            self._hash.update(block)
            left -= len(block)
        if self._hash.hexdigest() != continued.digest:
            self._file.close()
            raise InputError(
                f"{self.partial} is not what the interrupted run wrote ({continued.bytes - left} of {continued.bytes} "
                "bytes are there, or some differ), so the run cannot go on. Start again with --overwrite."
            )
        self.written = continued

    def _append(self, data: bytes) -> None:
        self._file.truncate(self.written.bytes)  # what an interrupted run left behind its last whole window
        self._file.seek(self.written.bytes)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            kept = f"; {self.partial} keeps the first {self.written.frames} frames" if self.written.frames else ""
            reason = error.strerror or error
            raise InputError(
                f"cannot write {self.path} ({reason}): free some space or give another --save_file{kept}."
            ) from error
