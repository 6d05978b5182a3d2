"""Sound: what is in a file, or in memory, block by block.

``open_audio`` finds out what was recorded (rate, channels, length) and that all of it can be read. The
sound itself is decoded anew wherever it is needed, for the speech that the model hears and for the
finished video, so that an hour takes no more memory than a second. Knows nothing about speech or video,
except at which rates the model wants them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from ..errors import InputError, in_short

SAMPLE_RATE = 16_000  # of the speech that wav2vec2 hears
FPS = 25
_PLANES_THAT_CRASH = 8  # AudioFrame.to_ndarray of so many planes ends the process (PyAV 18.1)
_BLOCK = 1 << 16  # samples of a sound in memory at a time


class Audio(Protocol):
    """Sound that can be heard from its beginning as often as it is needed.

    Attributes:
        sample_rate: samples of one channel in a second.
        channels: how many.
        num_samples: of one channel.
    """

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def seconds(self) -> float: ...

    def blocks(self) -> Iterator[np.ndarray]:
        """float32 [channels, n], one after the other."""
        ...

    def digest(self) -> str:
        """A hash of everything that can be heard."""
        ...


@dataclass(frozen=True, eq=False)
class Sound:
    """Sound in memory.

    Attributes:
        samples: float32 [channels, n], full scale is [-1, 1]; must stay as they are.
        name: what to call it in messages.
    """

    samples: np.ndarray
    sample_rate: int
    name: str = "the sound"

    def __str__(self) -> str:
        return self.name

    @property
    def channels(self) -> int:
        return self.samples.shape[0]

    @property
    def num_samples(self) -> int:
        return self.samples.shape[1]

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    def blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.num_samples, _BLOCK):
            yield self.samples[:, start : start + _BLOCK]

    def digest(self) -> str:
        """SHA-256 of rate, shape and samples."""
        digest = hashlib.sha256(f"{self.sample_rate} {self.samples.shape} ".encode())
        for block in self.blocks():
            digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class AudioFile:
    """The first audio stream of a file that has been found readable.

    Attributes:
        path: of the file, which must stay as it is.
        sample_rate: samples of one channel in a second.
        channels: how many.
        num_samples: of one channel.
        stamp: the file's size and time of change when it was opened.
    """

    path: Path
    sample_rate: int
    channels: int
    num_samples: int
    stamp: tuple[int, int]

    def __str__(self) -> str:
        return str(self.path)

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode from the beginning: float32 [channels, n], n as the file's format has it.

        Full scale is [-1, 1], though lossy codecs may exceed it. Sample for sample what ComfyUI's
        LoadAudio gives (comfy_extras/nodes_audio.py), which is what a graph and its exported command
        rely on; 8-bit sound, which that refuses, is read as well.

        Raises:
            InputError: the file has changed or cannot be decoded any more.
        """
        if _stamp(self.path) != self.stamp:
            raise InputError(f"{self.path} was changed while it was in use; put it back as it was.")
        with _first_stream(self.path) as (container, stream):
            frames = container.decode(stream)
            if self.channels >= _PLANES_THAT_CRASH:
                frames = _interleaved(frames)
            for frame in frames:
                yield _to_planar_float(frame.to_ndarray(), self.channels)

    def digest(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def frame_count(num_samples_16k: int) -> int:
    """Number of whole video frames in so many samples at 16 kHz, rounded down as upstream's get_embedding."""
    return int(num_samples_16k / SAMPLE_RATE * FPS)


def check_audio(path: Path) -> None:
    """See that a file has sound in it, as far as its header tells; nothing is decoded.

    Raises:
        InputError: no such file, not decodable, or no audio stream.
    """
    _look_at(path)


def open_audio(source: Path | Sound) -> AudioFile | Sound:
    """Decode the first audio stream of a sound or video file once, whatever PyAV can open; or look at a sound.

    Raises:
        InputError: no such file, not decodable, no audio stream, less sound than one video frame
            lasts, or samples that are not finite numbers.
    """
    if isinstance(source, Sound):
        _check_samples(source)
        return source
    audio = _look_at(Path(source))
    return dataclasses.replace(audio, num_samples=_check_samples(audio))


def _look_at(path: Path) -> AudioFile:
    """A file's sound as its header tells of it; its length is not known yet."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"The sound file {path} {found}; give the path of a sound or video file.")
    stamp = _stamp(path)
    with _first_stream(path) as (_, stream):
        return AudioFile(path, stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels, 0, stamp)


def _check_samples(audio: AudioFile | Sound) -> int:
    """See that there is sound for a video frame, made of numbers; returns the samples of a channel."""
    num_samples = 0
    for block in audio.blocks():
        if not np.isfinite(block).all():
            raise InputError(f"{audio} holds samples that are NaN or infinite; export the sound again.")
        num_samples += block.shape[1]
    if num_samples == 0:
        raise InputError(f"The audio stream of {audio} is empty; give a file with sound in it.")
    seconds = num_samples / audio.sample_rate
    if seconds < 1 / FPS:
        raise InputError(
            f"{audio} holds {seconds:.3f} s of sound, less than one video frame ({1 / FPS} s); give a longer one."
        )
    return num_samples


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); put it back where it was.") from error
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _first_stream(path: Path) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    try:
        with av.open(f"file:{path}") as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no sound, only {_kinds(container)}; give a file with an audio stream.")
            yield container, container.streams.audio[0]
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be decoded as sound ({in_short(error)}); give a wav, mp3, flac, m4a, mp4 or similar file."
        ) from error


def _interleaved(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The same samples, the channels in one plane."""
    resampler = None
    for frame in frames:
        if resampler is None:
            resampler = av.AudioResampler(format=frame.format.packed.name)
        yield from resampler.resample(frame)


def _kinds(container: av.container.InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no streams at all"


def _to_planar_float(block: np.ndarray, channels: int) -> np.ndarray:
    """PyAV's [channels, n] or interleaved [1, n * channels] as float32 [channels, n] in [-1, 1]."""
    if block.shape[0] != channels:
        block = block.reshape(-1, channels).T
    samples = block.astype(np.float32, order="C")
    if block.dtype == np.uint8:  # unsigned: silence is 128
        return samples / 2**7 - 1
    if np.issubdtype(block.dtype, np.signedinteger):
        return samples / 2 ** (8 * block.dtype.itemsize - 1)
    return samples
