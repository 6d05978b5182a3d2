"""A track of sound as its file has it: every frame at its own rate and layout, placed by its time.

What cannot be decoded is left out and its time kept; so is time that the file's own times leave between two frames,
or before the first where the file's picture begins earlier. Speech that was joined from pieces changes its rate or
its channels on the way: ``decode`` gives every piece as it is. Knows nothing of what becomes of the sound.
"""

from __future__ import annotations

import contextlib
import io
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from ..errors import InputError, in_short
from ..job.container import open_container
from .ogg import links

RATES = range(4000, 768_001)  # Hz: below, no speech can be understood; above, a header lies
MOST_CHANNELS = 64
_PLANES_THAT_CRASH = 8  # AudioFrame.to_ndarray of so many planes ends the process (PyAV 18.1)

_JITTER = 0.01  # seconds: containers round times, and clocks of recorders drift; frames follow each other all the same
_GAP = 0.04  # seconds that must be missing before silence is put in: less than a video frame is nobody's to see
_BACK = 0.1  # a time so much before the one that is due begins another clock: the file was joined from others
_LONGEST_GAP = 600.0  # and so does one so much after it
_LONGEST_PACKET = 1.0
# Containers that keep the time of every packet; in the others FFmpeg counts on from the first.
_WITH_TIMES = ("matroska", "mov", "ogg", "flac", "flv", "live_flv", "mpeg", "avi", "asf", "nut", "mxf")
_BARE = ("aac", "ac3", "eac3")  # frame after frame, of which FFmpeg leaves out what does not begin like one
_FARTHEST = 2**25  # bytes between two packets: tags hold pictures
_LONGEST_DAMAGE = 60.0  # seconds of bytes between two frames that may be sound
_WITHOUT_PAUSES = ("ogg", "flac")  # whose frames count samples: FFmpeg drops damaged ones without a word
_WITH_CHECKSUMS = ("flac", "tta")  # in every frame; FFmpeg looks at them on request alone
_SET_AFTERWARDS = ("mp1", "mp2", "mp3")  # decoders that give the first frame of another rate the rate before


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples of a frame, float32 [channels, n], full scale is [-1, 1], though lossy codecs may exceed it."""

    samples: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Gap:
    """Time without sound; ``lost`` packets of it could not be decoded."""

    seconds: float
    lost: int = 0


@dataclass(frozen=True)
class Cut:
    """The rest of the file cannot be read."""


@dataclass(frozen=True)
class Track:
    """A track of sound as its header tells of it.

    Attributes:
        number: among the file's tracks of sound, from 0.
        name: what the file calls it, such as "German" or "Commentary"; empty where it says nothing.
        problem: why it cannot be used, in a clause; empty if it can.
    """

    number: int
    sample_rate: int
    channels: int
    name: str
    problem: str

    def __str__(self) -> str:
        return f"track {self.number + 1}" + (f" ({self.name})" if self.name else "")


def tracks(path: Path) -> list[Track]:
    """All tracks of sound in a file; nothing is decoded.

    Raises:
        InputError: it cannot be opened, or has none.
    """
    with open_sound(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound, only {_kinds(container)}; give a file with an audio stream.")
        return [_track(number, stream) for number, stream in enumerate(container.streams.audio)]


def _track(number: int, stream: av.AudioStream) -> Track:
    tags = stream.metadata.get("title", ""), stream.metadata.get("language", "")
    name = " ".join(tag for tag in tags if tag not in ("", "und"))
    if stream.codec_context is None:
        return Track(number, 0, 0, name, "there is no decoder for it")
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
    return Track(number, rate, channels, name, problem_with(rate, channels))


def problem_with(rate: int, channels: int) -> str:
    """Why sound of this kind cannot be speech; empty if it can."""
    if rate not in RATES:
        return f"it says that it has {rate} samples a second, which is no rate of speech"
    if not 1 <= channels <= MOST_CHANNELS:
        return f"it says that it has {channels or 'no'} channels"
    return ""


def decode(path: Path, number: int) -> Iterator[Piece | Gap | Cut]:
    """Everything that can be heard in a track, in order.

    Raises:
        InputError: the file cannot be opened, has no such track, or changes to a rate or layout that no speech has.
    """
    parts = links(path)
    if len(parts) == 1:
        with open_sound(path) as container:
            yield from _decode(path, container, number)
        return
    for part in parts:
        with open_sound(path, part) as container:
            yield from _decode(path, container, number)


def _decode(path: Path, container: av.container.InputContainer, number: int) -> Iterator[Piece | Gap | Cut]:
    if number >= len(container.streams.audio):
        raise InputError(f"{path} has no track {number + 1} of sound all the way through; export the sound again.")
    stream = container.streams.audio[number]
    clock, arrays = _Clock(_start_of_picture(container)), _Arrays()
    has_times = container.format.name.startswith(_WITH_TIMES)
    without_pauses = container.format.name in _WITHOUT_PAUSES
    if stream.codec_context.name in _WITH_CHECKSUMS:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    set_afterwards = stream.codec_context.name.startswith(_SET_AFTERWARDS)
    first_rate, good_bytes, good_seconds = 0, 0, 0.0
    left_out = _LeftOut(path) if container.format.name in _BARE else None
    for packet in _packets(container, stream):
        if packet is None:
            yield Cut()
            break
        claimed = float((packet.duration or 0) * (packet.time_base or 0))
        damaged = 0 if left_out is None else left_out.before(packet)
        if damaged and good_bytes and claimed:
            missing = round(damaged * good_seconds / good_bytes / claimed) * claimed
            if 0 < missing < _LONGEST_DAMAGE:
                clock.lose(missing)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            # Several frames may have become one packet, so that its bytes tell more; too many are no sound.
            size = packet.size - _tags(bytes(packet))
            by_size = size * good_seconds / good_bytes if good_bytes and not has_times else 0.0
            clock.lose(max(claimed, by_size) if by_size < _LONGEST_PACKET else claimed)
            continue
        good_bytes += packet.size
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            rate = stream.codec_context.sample_rate if set_afterwards and len(frames) == 1 else frame.sample_rate
            problem = problem_with(rate, frame.layout.nb_channels)
            if problem:
                raise InputError(f"{path} cannot be used as speech: on the way {problem}; export the sound again.")
            first_rate = first_rate or rate
            seconds = frame.samples / rate
            good_seconds += seconds
            if rate != first_rate and claimed:  # by which FFmpeg counts on, whatever the rate has become
                seconds = claimed
            gap = clock.next(frame.time if has_times and frame.pts is not None else None, seconds)
            if gap is not None:
                yield Gap(gap.seconds, max(gap.lost, 1)) if without_pauses else gap
            yield Piece(arrays.of(frame), rate)
    if (gap := clock.end()) is not None:
        yield gap


def _packets(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.Packet | None]:
    """The stream's packets; None where the rest of the file cannot be read."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        yield None


class _LeftOut:
    """What stands in a file between its packets: a frame whose beginning is damaged makes none.

    Packets are looked for, since the places that FFmpeg gives count what it delivers.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at: int | None = 0

    def before(self, packet: av.Packet) -> int:
        """Bytes between this packet and the one before, but for tags; all packets, in order."""
        if self._at is None:
            return 0
        found = self._bytes.find(bytes(packet), self._at, self._at + _FARTHEST)
        before, self._at = self._at, found + packet.size if found >= 0 else None  # then it is not as in the file
        return 0 if found < 0 else found - before - _tags(self._bytes[before:found])


def _tags(data: bytes) -> int:
    """How many bytes these begin with that name a song: in joined files they stand between the frames."""
    size = 0
    while size < len(data):
        head = data[size : size + 32]
        if head.startswith(b"ID3") and len(head) >= 10:
            size += 10 + sum((byte & 127) << 7 * place for place, byte in enumerate(head[9:5:-1]))
        elif head.startswith(b"TAG"):
            size += 128
        elif head.startswith(b"APETAGEX") and len(head) == 32:
            size += int.from_bytes(head[12:16], "little") + 32 * (head[23] >> 5 & 1)
        else:
            break
    return min(size, len(data))


class _Clock:
    """Tells from the times of frames where sound is missing.

    Args:
        start: when the file's picture begins, in seconds; None if it has none.
    """

    def __init__(self, start: float | None) -> None:
        self._due = start
        self._begun = False
        self._owed = 0.0
        self._lost = 0
        self._lost_seconds = 0.0

    def lose(self, seconds: float) -> None:
        """A packet of this length could not be decoded."""
        self._lost += 1
        self._lost_seconds += seconds

    def next(self, time: float | None, seconds: float) -> Gap | None:
        """What is missing before a frame.

        Args:
            time: of the frame; None if the file does not say.
            seconds: that it lasts.
        """
        if time is None or self._due is None:
            missing = self._lost_seconds
        else:
            missing = self._missing(time - self._due)
        if time is not None:
            self._due = time + seconds
        elif self._due is not None:
            self._due += seconds
        self._begun = True
        return self._gap(missing)

    def end(self) -> Gap | None:
        """What is missing after the last frame."""
        return self._gap(self._lost_seconds)

    def _missing(self, step: float) -> float:
        """Seconds to fill where a frame comes so much later than it is due."""
        if step < -_BACK or step > _LONGEST_GAP:
            self._owed = 0.0
            return self._lost_seconds
        if abs(step) >= _JITTER:
            self._owed += step
        if not self._begun:
            self._owed = max(0.0, self._owed)  # sound that begins before the picture is heard all the same
        missing = max(0.0, self._owed) if self._owed >= _GAP or self._lost else 0.0
        if missing or not self._begun:
            self._owed = 0.0
        return missing

    def _gap(self, seconds: float) -> Gap | None:
        lost, self._lost, self._lost_seconds = self._lost, 0, 0.0
        return Gap(seconds, lost) if seconds > 0 or lost else None


class _Arrays:
    """Frames as arrays."""

    def __init__(self) -> None:
        self._packing: dict[tuple[int, str, str], av.AudioResampler] = {}

    def of(self, frame: av.AudioFrame) -> np.ndarray:
        """float32 [channels, n] in [-1, 1]."""
        channels = frame.layout.nb_channels
        if channels >= _PLANES_THAT_CRASH and frame.format.is_planar:
            kind = frame.sample_rate, frame.layout.name, frame.format.name
            if kind not in self._packing:
                self._packing[kind] = av.AudioResampler(format=frame.format.packed.name)
            packed = [piece.to_ndarray() for piece in self._packing[kind].resample(frame)]
            return _to_planar_float(np.concatenate(packed, axis=1), channels)
        return _to_planar_float(frame.to_ndarray(), channels)


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


def _start_of_picture(container: av.container.InputContainer) -> float | None:
    """When a film's picture begins; None for sound alone, which players begin with its first sample."""
    for stream in container.streams.video:
        if (
            not stream.disposition & av.stream.Disposition.attached_pic
            and stream.start_time is not None
            and stream.time_base
        ):
            return float(stream.start_time * stream.time_base)
    return None


@contextlib.contextmanager
def open_sound(path: Path, part: range | None = None) -> Iterator[av.container.InputContainer]:
    """A file, or some of its bytes, for FFmpeg to read.

    Raises:
        InputError: it cannot be read as anything, here or in the ``with`` block.
    """
    try:
        with contextlib.ExitStack() as stack:
            if part is None:
                container = open_container(path)
            else:
                container = open_container(_Part(stack.enter_context(path.open("rb")), part))
            yield stack.enter_context(container)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be decoded as sound ({in_short(error)}); give a wav, mp3, flac, m4a, mp4 or similar file."
        ) from error


class _Part:
    """Some of a file's bytes as a file of their own."""

    def __init__(self, file: io.BufferedReader, part: range) -> None:
        self._file, self._part = file, part
        file.seek(part.start)

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._part.stop - self._file.tell())))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: self._part.start, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._part.stop}
        self._file.seek(max(self._part.start, bases[whence] + offset))
        return self.tell()

    def tell(self) -> int:
        return self._file.tell() - self._part.start


def _kinds(container: av.container.InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no streams at all"
