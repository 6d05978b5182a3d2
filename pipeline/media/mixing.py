"""Sounds of several speakers: one person's part of a recording, tracks laid out in time, and their sum.

Everything goes block by block, as sound does elsewhere. Knows no faces and no features.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..job.speakers import Turn
from .audio import Audio, Heard, Sound, open_audio, open_track, resampled_blocks

_BLOCK = 1 << 16
_EDGE = 0.005  # s over which a turn comes and goes


@dataclass(frozen=True, eq=False)
class Part:
    """One person's part of a recording: a channel, or some times of it, with silence between.

    Attributes:
        channel: None for all.
        turns: None for always.
    """

    whole: Audio
    channel: int | None = None
    turns: tuple[Turn, ...] | None = None

    def __str__(self) -> str:
        return str(self.whole)

    @property
    def sample_rate(self) -> int:
        return self.whole.sample_rate

    @property
    def channels(self) -> int:
        return self.whole.channels if self.channel is None else 1

    @property
    def num_samples(self) -> int:
        return self.whole.num_samples

    @property
    def seconds(self) -> float:
        return self.whole.seconds

    @property
    def heard(self) -> Heard:
        """Channels of their own cancel nothing."""
        return self.whole.heard if self.channel is None else dataclasses.replace(self.whole.heard, cancels=False)

    def blocks(self) -> Iterator[np.ndarray]:
        done = 0
        for block in self.whole.blocks():
            part = block if self.channel is None else block[self.channel : self.channel + 1]
            if self.turns is not None:
                part = part * self._loudness(done, part.shape[1])
            yield part
            done += block.shape[1]

    def _loudness(self, start: int, count: int) -> np.ndarray:
        """1 in turns, 0 between them, float32 [count] from a sample on."""
        at = np.arange(start, start + count) / self.sample_rate
        found = np.zeros(count, np.float32)
        for turn in self.turns or ():
            inside = np.minimum(at - turn.start, turn.end - at) / _EDGE
            np.maximum(found, np.clip(inside, 0, 1), out=found, casting="same_kind")
        return found

    def digest(self) -> str:
        told = f"{self.whole.digest()} {self.channel} {self.turns}"
        return hashlib.sha256(told.encode()).hexdigest()


def part_of(audio: Audio, channel: int | None, turns: tuple[Turn, ...] | None) -> Audio:
    """One person's part of a recording.

    Raises:
        InputError: it has no such channel, or the turns lie behind its end.
    """
    if channel is None and turns is None:
        return audio
    if channel is not None and channel >= audio.channels:
        raise InputError(
            f"--timeline channels: {audio} has {audio.channels} channel{'s' * (audio.channels > 1)}, so there is none "
            f"for speaker {channel + 1}."
        )
    if turns is not None and all(turn.start >= audio.seconds for turn in turns):
        raise InputError(f"--timeline: all of somebody's turns begin after the end of {audio} ({audio.seconds:.2f} s).")
    return Part(audio, channel, turns)


def open_part(source: Path | Sound, channel: int | None, track: int | None, turns: tuple[Turn, ...] | None) -> Audio:
    """One person's sound, out of a file or of sound in memory; see ``open_audio`` and ``part_of``."""
    whole = open_track(source, track) if track is not None and isinstance(source, Path) else open_audio(source)
    return part_of(whole, channel, turns)


@dataclass(frozen=True, eq=False)
class Mix:
    """The sum of sounds, each from its beginning on; the highest rate and the most channels of them.

    Attributes:
        tracks: sounds, and the seconds at which they begin.
    """

    tracks: tuple[tuple[Audio, float], ...]

    def __str__(self) -> str:
        return " and ".join(dict.fromkeys(str(audio) for audio, _ in self.tracks))

    @property
    def sample_rate(self) -> int:
        return max(audio.sample_rate for audio, _ in self.tracks)

    @property
    def channels(self) -> int:
        return max(audio.channels for audio, _ in self.tracks)

    @property
    def num_samples(self) -> int:
        return max(self._first(start) + self._length(audio) for audio, start in self.tracks)

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def heard(self) -> Heard:
        return Heard()

    def _first(self, start: float) -> int:
        return round(start * self.sample_rate)

    def _length(self, audio: Audio) -> int:
        return -(-audio.num_samples * self.sample_rate // audio.sample_rate)

    def blocks(self) -> Iterator[np.ndarray]:
        readers = [_Reader(audio, self.sample_rate, self.channels, self._first(at)) for audio, at in self.tracks]
        for start in range(0, self.num_samples, _BLOCK):
            count = min(_BLOCK, self.num_samples - start)
            total = np.zeros((self.channels, count), np.float32)
            for reader in readers:
                reader.add_to(total)
            yield total

    def digest(self) -> str:
        told = " ".join(f"{audio.digest()} {start}" for audio, start in self.tracks)
        return hashlib.sha256(told.encode()).hexdigest()


class _Reader:
    """One track of a mix, read piece by piece."""

    def __init__(self, audio: Audio, rate: int, channels: int, first: int) -> None:
        self._blocks = resampled_blocks(audio, rate, channels)
        self._ahead = np.zeros((channels, 0), np.float32)
        self._wait = first

    def add_to(self, total: np.ndarray) -> None:
        done = min(self._wait, total.shape[1])
        self._wait -= done
        while done < total.shape[1]:
            if self._ahead.shape[1] == 0:
                block = next(self._blocks, None)
                if block is None:
                    return
                self._ahead = block
                continue
            take = min(self._ahead.shape[1], total.shape[1] - done)
            total[:, done : done + take] += self._ahead[:, :take]
            self._ahead = self._ahead[:, take:]
            done += take


def arranged(spoken: Sequence[np.ndarray | None], together: bool) -> tuple[list[np.ndarray], list[int]]:
    """Speech of several people over one length, silence elsewhere.

    Args:
        spoken: float32 [samples] of each, or None for one who says nothing.
        together: all begin at once; else one after the other, in their order.

    Returns:
        float32 [samples of all] of each, and where each begins. Longer ones are maps of temporary files.
    """
    lengths = [0 if one is None else len(one) for one in spoken]
    starts = [0 if together else sum(lengths[:number]) for number in range(len(lengths))]
    total = max(start + length for start, length in zip(starts, lengths, strict=True))
    found = []
    for one, start in zip(spoken, starts, strict=True):
        if one is not None and len(one) == total:
            found.append(one)
            continue
        with tempfile.TemporaryFile() as file:
            file.truncate(total * np.float32().itemsize)
            whole = np.memmap(file, np.float32, mode="r+", shape=(total,))
        said = np.zeros(0, np.float32) if one is None else one
        for first in range(0, len(said), _BLOCK):
            whole[start + first : start + min(first + _BLOCK, len(said))] = said[first : first + _BLOCK]
        found.append(whole)
    return found, starts
