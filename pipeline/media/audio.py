"""Sound: what is in a file, or in memory, block by block.

``open_audio`` finds out what was recorded (rate, channels, length) and that all of it can be read. The
sound itself is decoded anew wherever it is needed, for the speech that the model hears and for the
finished video, so that an hour takes no more memory than a second. Sound that changes its rate or its channels on
the way is brought to the highest and the most of them. Knows nothing about speech or video, except at which rates
the model wants them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError
from .tracks import Cut, Gap, Piece, Track, decode, problem_with, tracks

SAMPLE_RATE = 16_000  # of the speech that wav2vec2 hears
FPS = 25
_BLOCK = 1 << 16  # samples of a sound in memory at a time
_CANCELLED = 0.02  # of the power that channels have in common where they have nothing in common
_AUDIBLE = 1e-4  # of full scale: the noise of a decoder is below it


@dataclass(frozen=True)
class Heard:
    """What decoding a sound once has shown.

    Attributes:
        lost: packets that could not be decoded, in whose place there is silence.
        is_cut: whether the rest of the file could not be read.
        cancels: whether the channels are in opposite phase, so that next to nothing is left of their mean.
        passed_over: tracks before this one that could not be used, each with the reason.
    """

    lost: int = 0
    is_cut: bool = False
    cancels: bool = False
    passed_over: tuple[str, ...] = ()


class Audio(Protocol):
    """Sound that can be heard from its beginning as often as it is needed.

    Attributes:
        sample_rate: samples of one channel in a second.
        channels: how many.
        num_samples: of one channel.
        heard: what opening it has shown.
    """

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def heard(self) -> Heard: ...

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
    heard: Heard = Heard()

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
    """A track of sound in a file that has been found readable.

    Attributes:
        path: of the file, which must stay as it is.
        sample_rate: samples of one channel in a second.
        channels: how many.
        num_samples: of one channel.
        stamp: the file's size and time of change when it was opened.
        track: its number among the file's tracks of sound.
    """

    path: Path
    sample_rate: int
    channels: int
    num_samples: int
    stamp: tuple[int, int]
    track: int = 0
    heard: Heard = Heard()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode from the beginning: float32 [channels, n], n as the file's format has it.

        Full scale is [-1, 1], though lossy codecs may exceed it. Sample for sample what ComfyUI's
        LoadAudio gives (comfy_extras/nodes_audio.py), which is what a graph and its exported command
        rely on; 8-bit sound and what is damaged, which that refuses, is read as well, and time without sound, which
        that leaves out, is silence.

        Raises:
            InputError: the file has changed or cannot be decoded any more.
        """
        if _stamp(self.path) != self.stamp:
            raise InputError(f"{self.path} was changed while it was in use; put it back as it was.")
        yield from _alike(decode(self.path, self.track), self.sample_rate, self.channels)

    def digest(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def frame_count(num_samples_16k: int) -> int:
    """Number of whole video frames in so many samples at 16 kHz, rounded down as upstream's get_embedding."""
    return int(num_samples_16k / SAMPLE_RATE * FPS)


def check_audio(path: Path) -> None:
    """See that a file has sound in it that can be used, as far as its header tells; nothing is decoded.

    Raises:
        InputError: no such file, not decodable, no audio stream, or none that can be used.
    """
    _usable_tracks(path)


def open_audio(source: Path | Sound) -> AudioFile | Sound:
    """Decode a sound or video file once, whatever PyAV can open; or look at a sound.

    Of a file it is the first track that can be decoded.

    Raises:
        InputError: no such file, not decodable, no audio stream, less sound than one video frame
            lasts, or samples that are not finite numbers.
    """
    if isinstance(source, Sound):
        if problem := problem_with(source.sample_rate, source.channels):
            raise InputError(f"{source} cannot be used as speech: {problem}.")
        heard, num_samples = _listen(source, source.blocks())
        _check_length(source, num_samples)
        return dataclasses.replace(source, heard=heard)
    path = Path(source)
    stamp = _stamp_of_file(path)
    usable, unusable = _usable_tracks(path)
    for track in usable:
        audio = _decoded_once(AudioFile(path, track.sample_rate, track.channels, 0, stamp, track.number))
        if audio is not None:
            before = sorted((other for other in unusable if other.number < track.number), key=_number)
            passed_over = tuple(f"{other}: {other.problem}" for other in before)
            return dataclasses.replace(audio, heard=dataclasses.replace(audio.heard, passed_over=passed_over))
        unusable.append(dataclasses.replace(track, problem="it cannot be decoded"))
    raise _no_sound(path, unusable)


def open_track(path: Path, number: int) -> AudioFile:
    """A certain track of a file, counted from 0 among those that can be used; see ``open_audio``.

    Raises:
        InputError: also if it has fewer.
    """
    stamp = _stamp_of_file(path)
    usable, _ = _usable_tracks(path)
    if number >= len(usable):
        raise InputError(
            f"{path} has {len(usable)} track{'s' * (len(usable) != 1)} of sound that can be used, so there is none for "
            f"speaker {number + 1}."
        )
    track = usable[number]
    audio = _decoded_once(AudioFile(path, track.sample_rate, track.channels, 0, stamp, track.number))
    if audio is None:
        raise InputError(f"{path}: {track} cannot be decoded; export the sound again.")
    return audio


def resampled_blocks(audio: Audio, rate: int, channels: int) -> Iterator[np.ndarray]:
    """A sound at another rate with as many channels, float32 [channels, n] one after the other."""
    pieces = (Piece(_with_channels(block, channels), audio.sample_rate) for block in audio.blocks())
    return _alike(pieces, rate, channels)


def audible_track(audio: AudioFile) -> Track | None:
    """The first other track of the file that is not silent."""
    for track in tracks(audio.path):
        if track.number != audio.track and not track.problem:
            pieces = (piece for piece in decode(audio.path, track.number) if isinstance(piece, Piece))
            if any(np.abs(piece.samples).max(initial=0) > _AUDIBLE for piece in pieces):
                return track
    return None


def _usable_tracks(path: Path) -> tuple[list[Track], list[Track]]:
    """The tracks that can be used as far as the header tells, and those that cannot, with reasons."""
    _stamp_of_file(path)
    found = tracks(path)
    usable = [track for track in found if not track.problem]
    if not usable:
        raise _no_sound(path, found)
    return usable, [track for track in found if track.problem]


def _no_sound(path: Path, unusable: list[Track]) -> InputError:
    reasons = "; ".join(f"{track}: {track.problem}" for track in sorted(unusable, key=_number))
    return InputError(
        f"{path} cannot be decoded as sound ({reasons}); give a wav, mp3, flac, m4a, mp4 or similar file."
    )


def _number(track: Track) -> int:
    return track.number


def _decoded_once(audio: AudioFile) -> AudioFile | None:
    """The sound with its true rate, channels and length, and what is wrong with it; None if it cannot be decoded."""
    seen = _Seen(decode(audio.path, audio.track))
    heard, num_samples = _listen(audio, _alike(seen, audio.sample_rate, audio.channels))
    if (seen.lost or seen.is_cut) and seen.lost >= seen.pieces:
        return None
    rate = max((rate for rate, _ in seen.kinds), default=audio.sample_rate)
    channels = max((channels for _, channels in seen.kinds), default=audio.channels)
    if (rate, channels) != (audio.sample_rate, audio.channels):  # more than the header says: once more, as it will be
        audio = dataclasses.replace(audio, sample_rate=rate, channels=channels)
        heard, num_samples = _listen(audio, audio.blocks())
    _check_length(audio, num_samples)
    heard = dataclasses.replace(heard, lost=seen.lost, is_cut=seen.is_cut)
    return dataclasses.replace(audio, num_samples=num_samples, heard=heard)


class _Seen:
    """The same pieces; remembers what they were."""

    def __init__(self, pieces: Iterable[Piece | Gap | Cut]) -> None:
        self._pieces = pieces
        self.kinds: set[tuple[int, int]] = set()
        self.pieces = self.lost = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[Piece | Gap | Cut]:
        for piece in self._pieces:
            if isinstance(piece, Piece):
                self.kinds.add((piece.sample_rate, piece.samples.shape[0]))
                self.pieces += 1
            elif isinstance(piece, Gap):
                self.lost += piece.lost
            else:
                self.is_cut = True
            yield piece


def _listen(audio: AudioFile | Sound, blocks: Iterable[np.ndarray]) -> tuple[Heard, int]:
    """See that a sound is made of numbers; returns what was heard, and the samples of a channel."""
    num_samples, of_channels, of_mean = 0, 0.0, 0.0
    for block in blocks:
        if not np.isfinite(block).all():
            raise InputError(f"{audio} holds samples that are NaN or infinite; export the sound again.")
        num_samples += block.shape[1]
        if audio.channels > 1:
            of_channels += float(np.square(block, dtype=np.float64).sum()) / audio.channels
            of_mean += float(np.square(block.mean(axis=0, dtype=np.float64)).sum())
    audible = of_channels > num_samples * _AUDIBLE**2
    return Heard(cancels=audible and of_mean * audio.channels < _CANCELLED * of_channels), num_samples


def _check_length(audio: AudioFile | Sound, num_samples: int) -> None:
    if num_samples == 0:
        raise InputError(f"The audio stream of {audio} is empty; give a file with sound in it.")
    seconds = num_samples / audio.sample_rate
    if seconds < 1 / FPS:
        raise InputError(
            f"{audio} holds {seconds:.3f} s of sound, less than one video frame ({1 / FPS} s); give a longer one."
        )


def _alike(pieces: Iterable[Piece | Gap | Cut], rate: int, channels: int) -> Iterator[np.ndarray]:
    """All of a track at one rate, with as many channels."""
    other: _Resampler | None = None
    for piece in pieces:
        if isinstance(piece, Piece):
            if other is not None and other.rate != piece.sample_rate:
                yield other.rest()
                other = None
            samples = _with_channels(piece.samples, channels)
            if piece.sample_rate == rate:
                yield samples
            else:
                other = other or _Resampler(piece.sample_rate, rate, channels)
                yield other.next(samples)
        elif isinstance(piece, Gap):
            if other is not None:
                yield other.rest()
                other = None
            missing = round(piece.seconds * rate)
            for start in range(0, missing, _BLOCK):
                yield np.zeros((channels, min(_BLOCK, missing - start)), np.float32)
    if other is not None:
        yield other.rest()


def _with_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    """As many channels with the same mean, which is what the model hears."""
    if samples.shape[0] == channels:
        return samples
    return np.repeat(samples.mean(axis=0, keepdims=True), channels, axis=0)


class _Resampler:
    """Brings a part of a track to another rate, by soxr HQ, as the whole is for the model."""

    def __init__(self, rate: int, target: int, channels: int) -> None:
        try:
            import soxr
        except ImportError as error:
            raise InputError("Sound that changes its rate on the way needs soxr: pip install soxr") from error
        self.rate = rate
        self._channels = channels
        self._stream = soxr.ResampleStream(rate, target, channels, dtype="float32", quality="HQ")

    def next(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        resampled = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last=last)
        return np.ascontiguousarray(resampled.reshape(-1, self._channels).T)

    def rest(self) -> np.ndarray:
        return self.next(np.empty((self._channels, 0), np.float32), last=True)


def _stamp_of_file(path: Path) -> tuple[int, int]:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"The sound file {path} {found}; give the path of a sound or video file.")
    return _stamp(path)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); put it back where it was.") from error
    return status.st_size, status.st_mtime_ns
