"""The finished file: video packets copied from the partial one, the sound beside them, settings in the metadata.

Knows MP4 and AAC; knows neither how the packets were made nor what the settings mean.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .audio import Audio

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_USUAL_RATE = 48000
_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")  # FFmpeg's defaults for 1 to 8 channels
_BITS_PER_CHANNEL = 96_000


def remux(source: Path, target: Path, audio: Audio | None, fps: int, metadata: Mapping[str, str]) -> None:
    """Write an ordinary MP4 with its header first (faststart).

    Args:
        source: a video whose only stream has ``fps`` frames a second; its packets are copied.
        target: the file to write; what is there is replaced.
        audio: is decoded again, and becomes AAC at its own rate and with its own channels, cut to the length of the
            video; shorter sound simply ends. A rate that AAC lacks (above 96 kHz, or unusual)
            becomes 48 kHz; more than eight channels are mixed to one.
        metadata: keys and values for the header; keys are free.

    Raises:
        OSError, av.FFmpegError: the disk is full or fails, or ``target`` does not hold all of ``source``.
    """
    _copy(source, target, audio, fps, metadata)
    if not _same_video(source, target):  # older PyAV says nothing of writes that fail while a file is closed
        raise OSError(errno.EIO, "what was written cannot be read back")


def _copy(source: Path, target: Path, audio: Audio | None, fps: int, metadata: Mapping[str, str]) -> None:
    options = {"movflags": "faststart+use_metadata_tags"}
    with (
        av.open(f"file:{source}") as partial,
        av.open(f"file:{target}", "w", format="mp4", options=options) as container,
    ):
        container.metadata.update(metadata)
        # Opaque: as it is. Older PyAV else opens an encoder, whose header is not that of the packets.
        video = container.add_stream_from_template(partial.streams.video[0], opaque=True)
        sound = iter(()) if audio is None else _encode(audio, container, fps)
        for packet in _video_packets(partial):
            packet.stream = video
            container.mux(packet)
            container.mux(next(sound, []))
        for stream in container.streams.audio:
            container.mux(stream.encode(None))


def _same_video(source: Path, target: Path) -> bool:
    try:
        with av.open(f"file:{source}") as ours, av.open(f"file:{target}") as theirs:
            pairs = itertools.zip_longest(_video_packets(ours), _video_packets(theirs))
            return all(a is not None and b is not None and bytes(a) == bytes(b) for a, b in pairs)
    except av.FFmpegError:
        return False


def _video_packets(container: av.container.InputContainer) -> Iterator[av.Packet]:
    return (packet for packet in container.demux(video=0) if packet.dts is not None)  # the last one is empty


def _encode(audio: Audio, container: av.container.OutputContainer, fps: int) -> Iterator[list[av.Packet]]:
    """Add an AAC stream; yield its packets, each time for the length of one more video frame."""
    rate, blocks, channels = audio.sample_rate, audio.blocks(), audio.channels
    if channels > len(_LAYOUTS):
        blocks = (block.mean(axis=0, keepdims=True, dtype=np.float32) for block in blocks)
        channels = 1
    layout = _LAYOUTS[channels - 1]
    stream = container.add_stream("aac", rate=rate if rate in _AAC_RATES else _USUAL_RATE, layout=layout)
    stream.bit_rate = _BITS_PER_CHANNEL * channels
    return _packets(stream, _cut(blocks, rate, fps), rate, layout)


def _cut(blocks: Iterator[np.ndarray], rate: int, fps: int) -> Iterator[np.ndarray]:
    """The same samples [channels, n], cut where video frames begin; the last block may be shorter."""
    pending = next(blocks)
    start = 0
    for number in itertools.count(1):
        length = round(number * rate / fps) - start
        while pending.shape[1] < length and (block := next(blocks, None)) is not None:
            pending = np.concatenate([pending, block], axis=1)
        if pending.shape[1] == 0:
            return
        yield pending[:, :length]
        pending = pending[:, length:]
        start += length


def _packets(stream: av.AudioStream, blocks: Iterator[np.ndarray], rate: int, layout: str) -> Iterator[list[av.Packet]]:
    start = 0
    for block in blocks:
        # Interleaved, since PyAV reads past the end of a frame with eight planes.
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield stream.encode(frame)  # which converts rate and format where the encoder's differ
        start += block.shape[1]
