"""Frames to H.264 in fragments of an MP4: a header once, then one self-contained piece for each window.

Every window has an encoder of its own with the same fixed settings, so it begins with an IDR frame
and needs nothing of the windows before it: header + fragments in order are a playable file, and the
same frames give the same bytes however often the work was interrupted. Knows no files, and of sound no more than how
many frames go with a second of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from .audio import FPS

# x264's bitstream depends on its number of threads, so the number must not be the machine's.
# Without B-frames a frame's time of decoding is its time of display, and windows can be joined anywhere.
_X264 = {"preset": "medium", "threads": "8", "bf": "0", "x264-params": "cpu-independent=1:scenecut=0:open-gop=0"}
_BT709 = 1  # primaries, transfer and matrix alike, in FFmpeg's enums
_LIMITED_RANGE = 1


@dataclass(frozen=True)
class VideoFormat:
    """What must stay the same for all windows of a video.

    Attributes:
        height, width: in pixels, multiples of 16.
        fps: frames a second.
        crf: x264's constant rate factor, 1 (best) to 51 (worst): 8-bit 4:2:0 in BT.709, which every
            player shows. 0 is lossless: the RGB bytes come back as they were, but only players built
            on FFmpeg (VLC, mpv, ...) show such a file (High 4:4:4 Predictive), not browsers or QuickTime.
    """

    height: int
    width: int
    fps: int = FPS
    crf: int = 18


@dataclass(frozen=True)
class Fragment:
    """One window: ``header`` (ftyp and moov, the same for all windows of a format) and ``data`` (moof and mdat)."""

    header: bytes
    data: bytes


def encode_window(frames: np.ndarray, start: int, video: VideoFormat) -> Fragment:
    """Encode uint8 RGB frames [T, height, width, 3], the first of which is frame number ``start`` of the video."""
    buffer = io.BytesIO()
    # A fragment's number must grow along the file; the number of its first frame does, and needs no counting.
    options = {
        "movflags": "empty_moov+default_base_moof+frag_keyframe+frag_discont+skip_trailer",
        "fragment_index": str(start + 1),
        "use_editlist": "0",
        "avoid_negative_ts": "disabled",  # else a window's times are moved to zero
    }
    with av.open(buffer, "w", format="mp4", options=options) as container:
        stream = _add_stream(container, video, len(frames))
        for number, pixels in enumerate(frames, start):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if video.crf > 0:
                frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE)
            frame.pts = number
            frame.time_base = Fraction(1, video.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return _split(buffer.getvalue())


def _add_stream(container: av.container.OutputContainer, video: VideoFormat, num_frames: int) -> av.VideoStream:
    lossless = video.crf == 0
    # One group of pictures, hence one fragment, whatever the length of the window.
    options = _X264 | {"crf": str(video.crf), "g": str(num_frames + 1)}
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=video.fps, options=options)
    stream.height, stream.width = video.height, video.width
    stream.pix_fmt = "rgb24" if lossless else "yuv420p"
    codec = stream.codec_context
    codec.color_primaries = codec.color_trc = _BT709
    if not lossless:
        codec.colorspace = _BT709
        codec.color_range = _LIMITED_RANGE
    return stream


def _split(file: bytes) -> Fragment:
    first = next(offset for offset, kind in _boxes(file) if kind == b"moof")
    return Fragment(file[:first], file[first:])


def _boxes(file: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and type of the top-level boxes (ISO/IEC 14496-12, 4.2), all of which have 32-bit sizes here."""
    offset = 0
    while offset < len(file):
        yield offset, file[offset + 4 : offset + 8]
        offset += int.from_bytes(file[offset : offset + 4], "big")
