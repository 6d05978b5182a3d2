"""The reference: a picture, or a video that is read by time, as PIL images.

A picture is read as ComfyUI's LoadImage reads it; a video by PyAV, forward, one frame in memory; both
can be in memory already. What a file is, is told by its content, not its name. An animated GIF, WebP
or PNG counts as a picture (its first frame). Knows nothing about windows or models.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, in_short
from ..job.container import open_container

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_SHAPE = 16  # a longer side of more than 16 times the other would be blown up to gigabytes
_EPSILON = 0.002  # seconds: some containers round times to milliseconds; frames are further apart

# What Pillow recognises but must not load: MPEG is a video, EPS a program that it would hand to Ghostscript.
_NOT_PICTURES = ("MPEG", "EPS")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")

# FFmpeg's AVColorSpace and AVColorRange.
_BT709, _FCC, _BT601, _SMPTE240M, _BT2020 = 1, 4, 5, 7, 9
_MATRICES = (_BT709, _FCC, _SMPTE240M, _BT2020)  # all else is taken for BT.601, as FFmpeg does
_LIMITED, _FULL = 1, 2
_TURNED = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}  # display matrices by degrees counterclockwise
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS: bare H.264, MPEG, ...


@dataclass(frozen=True, eq=False)
class Footage:
    """A picture or a video in memory.

    Attributes:
        frames: [T, H, W, channels], float in [0, 1] or uint8, one grey channel, or red, green, blue and what
            is ignored; must stay as they are.
        fps: frames a second; None for a picture, of which only the first frame counts.
        name: what to call it in messages.
    """

    frames: Tensor
    fps: Fraction | None = None
    name: str = "the picture"

    def __str__(self) -> str:
        return self.name

    def image(self, index: int) -> Image.Image:
        """A frame, mode RGB."""
        pixels = self.frames[index, :, :, :3].cpu()
        if pixels.is_floating_point():
            pixels = (pixels.float() * 255).round().nan_to_num().clamp(0, 255).byte()
        return Image.fromarray(pixels.expand(-1, -1, 3).contiguous().numpy())

    def digest(self) -> str:
        """SHA-256 of rate, shape and pixels of all frames that count."""
        count = 1 if self.fps is None else len(self.frames)
        digest = hashlib.sha256(f"{self.fps} {count} {tuple(self.frames.shape[1:3])} ".encode())
        for index in range(count):
            digest.update(self.image(index).tobytes())
        return digest.hexdigest()


class Reference:
    """A picture or a video. Made by ``open_reference``.

    Attributes:
        is_video: whether there can be more than one frame.
        height, width: of a frame as it is shown (rotation applied), in pixels.
    """

    def __init__(self, name: str, frames: _Cursor, is_video: bool) -> None:
        self.is_video = is_video
        self._frames = frames
        first = self.frame(0)
        self.height, self.width = first.height, first.width
        if max(first.size) > LONGEST_SHAPE * min(first.size):
            raise InputError(
                f"{name} is {first.width}x{first.height}: too long a strip for a portrait, "
                f"give one whose sides differ by a factor of {LONGEST_SHAPE} at most."
            )

    def frame_index(self, seconds: float) -> int:
        """The number of the frame that is on screen ``seconds`` after the first; the last one after the end.

        Equal numbers mean equal frames, so that what was computed for one can be used again. For a
        picture always 0; for a video of constant 25 frames a second, ``frame_index(k / 25) == k``.
        Times that grow cost one pass through the video; an earlier time reads it again from the start.
        """
        return self._frames.go_to_time(seconds)

    def frame(self, index: int) -> Image.Image:
        """The frame of that number (the last one if there are fewer), mode RGB."""
        self._frames.go_to(index)
        return self._frames.image()


def open_reference(source: Path | Footage) -> Reference:
    """Open a picture or a video.

    Raises:
        InputError: the file is missing, empty, not to be read, damaged, neither a picture nor a video, too large, or
            has a shape that cannot be a portrait's.
    """
    if isinstance(source, Footage):
        if source.frames.ndim != 4 or 0 in source.frames.shape:
            raise InputError(f"{source} holds no picture ({list(source.frames.shape)}): give one of the person.")
        return Reference(str(source), _FramesInMemory(source), is_video=source.fps is not None)
    if not source.is_file():
        raise InputError(f"{source} is not a file: give the path of a picture or a video of the person.")
    if source.stat().st_size == 0:
        raise InputError(f"{source} is empty: give the path of a picture or a video of the person.")
    image = _read_picture(source)
    if image is None:
        return Reference(str(source), _VideoFrames(source), is_video=True)
    return Reference(str(source), _StillPicture(image), is_video=False)


def _read_picture(path: Path) -> Image.Image | None:
    """The file as an RGB image, or None where it is no picture and so perhaps a video."""
    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on and refuses from 179 on, which is enough; and of every tag that is damaged.
        warnings.simplefilter("ignore")
        try:
            _read_heic_too()
            with Image.open(path) as image:
                return None if image.format in _NOT_PICTURES else _as_load_image(image)
        except UnidentifiedImageError:
            if (refusal := _refusal_of_heif(path)) is not None:
                raise refusal from None
            return None
        except Image.DecompressionBombError as error:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
            raise InputError(f"{path} is too large a picture (over {most} megapixels): scale it down.") from error
        except PermissionError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): check who may read it.") from error
        except MemoryError:
            raise
        except Exception as error:  # damaged data makes Pillow's readers raise almost anything
            raise _damaged(path, in_short(error)) from error


def _damaged(path: Path, how: str) -> InputError:
    return InputError(f"{path} is a damaged picture ({how}): save it again or give another.")


def _refusal_of_heif(path: Path) -> InputError | None:
    """FFmpeg would show one of the tiles that such a picture is made of (ISO/IEC 23008-12: brands of the file)."""
    with path.open("rb") as file:
        start = file.read(64)
    if start[4:8] != b"ftyp":
        return None
    others = start[16 : min(len(start), int.from_bytes(start[:4], "big"))]
    brands = {start[8:12], *(others[place : place + 4] for place in range(0, len(others), 4))}
    if brands.intersection(_AVIF_BRANDS):
        return InputError(f"{path} is an AVIF picture, which this Pillow does not read: save it as PNG or JPEG.")
    if brands.intersection(_HEIC_BRANDS):
        if "HEIF" in Image.OPEN:  # pillow-heif has looked at it
            return _damaged(path, "no HEIC")
        return InputError(
            f"{path} is a HEIC picture, which is read with pillow-heif alone (pip install pillow-heif): install it, or "
            "save the picture as PNG or JPEG."
        )
    return None


@functools.cache
def _read_heic_too() -> None:
    """Have Pillow read HEIC pictures where the package for it is there."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _as_load_image(image: Image.Image) -> Image.Image:
    """RGB as ComfyUI's LoadImage makes it: turned by EXIF, deep grey scaled by 1/255, alpha dropped.

    Grey in floats, which that shows black, counts from 0 to 1, or to what 8 or 16 bits hold if there is more.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit files are "I" or "I;16" by Pillow's version; LoadImage knows the first
        image = image.convert("I").point(lambda value: value * (1 / 255))
    elif image.mode == "F":
        image = Image.fromarray(_levels(np.nan_to_num(np.asarray(image))))
    return image.convert("RGB")


def _levels(grey: np.ndarray) -> np.ndarray:
    """Floats in [0, 1], [0, 255] or [0, 65535] as uint8."""
    white = next((white for white in (1, 255, 65535) if grey.max() <= white), grey.max())
    return (grey * (255 / white)).round().clip(0, 255).astype(np.uint8)


class _Cursor(Protocol):
    """A place in a row of frames; it stays on the last one when it is sent further."""

    def go_to(self, index: int) -> None:
        """Make the frame of that number the current one."""

    def go_to_time(self, seconds: float) -> int:
        """Make the frame that is shown ``seconds`` after the first the current one; return its number."""

    def image(self) -> Image.Image:
        """The current frame, mode RGB, upright."""


class _StillPicture:
    """The one frame of a picture."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image

    def go_to(self, index: int) -> None:
        pass

    def go_to_time(self, seconds: float) -> int:
        return 0

    def image(self) -> Image.Image:
        return self._image


class _FramesInMemory:
    """The frames of a picture or a video that is decoded."""

    def __init__(self, footage: Footage) -> None:
        self._footage = footage
        self._index = 0

    def go_to(self, index: int) -> None:
        last = 0 if self._footage.fps is None else len(self._footage.frames) - 1
        self._index = min(index, last)

    def go_to_time(self, seconds: float) -> int:
        fps = self._footage.fps or 0
        self.go_to(math.floor((max(0.0, seconds) + _EPSILON) * fps))
        return self._index

    def image(self) -> Image.Image:
        return self._footage.image(self._index)


class _VideoFrames:
    """A cursor over the frames of a video that goes forward, and back by starting again.

    Attributes:
        index: of the current frame.
        time: of the current frame, in seconds since the first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start()

    def _start(self) -> None:
        self._decoded = _decode(self._path)
        self._next = next(self._decoded, None)
        if self._next is None:
            raise InputError(f"{self._path} has no frame that can be decoded: give a picture or a video of the person.")
        self._origin = self._next[0]
        self.index = -1
        self._advance(self._next)

    def _advance(self, following: tuple[float, av.VideoFrame, Fraction]) -> None:
        time, self._frame, self._aspect = following
        self.time = time - self._origin
        self.index += 1
        self._next = next(self._decoded, None)

    def go_to(self, index: int) -> None:
        """Make the frame of that number, or the last one, the current one."""
        if index < self.index:
            self._start()
        while self._next is not None and self.index < index:
            self._advance(self._next)

    def go_to_time(self, seconds: float) -> int:
        """Make the last frame whose time is not after ``seconds`` the current one; return its number."""
        until = max(0.0, seconds) + _EPSILON
        if until < self.time:
            self._start()
        while self._next is not None and self._next[0] - self._origin <= until:
            self._advance(self._next)
        return self.index

    def image(self) -> Image.Image:
        """The current frame, mode RGB, as players show it: with square pixels, turned and mirrored."""
        return Image.fromarray(as_shown(_square(self._path, _rgb(self._frame), self._aspect), _matrix(self._frame)))


def _square(path: Path, pixels: np.ndarray, aspect: Fraction) -> np.ndarray:
    """A frame with pixels as wide as high, the shorter side of a pixel enlarged.

    Raises:
        InputError: it would become too long a strip.
    """
    height, width = pixels.shape[:2]
    shown = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    if shown == (width, height):
        return pixels
    if max(shown) > LONGEST_SHAPE * max(1, min(shown)):
        raise InputError(f"{path} has pixels {aspect} times as wide as high: too long a strip for a portrait.")
    return np.asarray(Image.fromarray(pixels).resize(shown, Image.Resampling.BICUBIC))


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """a, b, c, d of the display matrix (x' = ax + cy, y' = bx + dy, y downwards), each -1, 0 or 1."""
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside the matrix there is something that this PyAV has no name for, such as EXIF
        return _TURNED.get(frame.rotation % 360, (1, 0, 0, 1))
    if data is None:
        return 1, 0, 0, 1
    numbers = np.frombuffer(memoryview(data), np.int32)[[0, 1, 3, 4]].astype(np.float64)
    a, b, c, d = (int(round(n)) for n in numbers / max(1.0, np.abs(numbers).max()))
    return (a, b, c, d) if abs(a * d - b * c) == 1 else (1, 0, 0, 1)


def as_shown(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """[H, W, 3] turned and mirrored as one of the eight matrices says."""
    a, b, c, d = matrix
    if a == 0:  # x' = cy, y' = bx
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(pixels[::d, ::a])


def _decode(path: Path) -> Iterator[tuple[float, av.VideoFrame, Fraction]]:
    """The frames of the first video stream, their times in seconds, and how many times as wide as high pixels are.

    What is damaged is left out.
    """
    try:
        container = open_container(path)
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"{path} is neither a picture nor a video that can be read: give a PNG, JPEG or MP4 file."
        ) from error
    with container:
        stream = _video_stream(container)
        if stream is None:
            found = "sound but no video" if container.streams.audio else "no video"
            raise InputError(f"{path} has {found} in it: give a picture or a video of the person.")
        # No threads across frames ("AUTO"): one that logs while its decoder is closed waits for the interpreter, which
        # waits for it, for ever. PyAV's default, threads within a frame, works only while it has let go of that.
        # Such files hold no times of display; frames come out in their order, and the times of decoding with them.
        is_undated = container.format.name == "avi" or container.format.flags & _NO_TIMESTAMPS
        step = float(1 / (stream.average_rate or 25))
        time = -step
        with contextlib.suppress(av.FFmpegError):  # the rest of the file is missing
            for packet in container.demux(stream):
                for frame in _decoded(packet):
                    stamp = frame.dts if is_undated else frame.pts
                    time = time + step if stamp is None or frame.time_base is None else float(stamp * frame.time_base)
                    yield time, frame, stream.sample_aspect_ratio or Fraction(1)


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first stream that moves: neither a song's cover nor text, which FFmpeg can show as a film."""
    for stream in container.streams.video:
        is_cover = stream.disposition & av.stream.Disposition.attached_pic
        if not is_cover and stream.codec_context is not None and stream.codec_context.name != "ansi":
            return stream
    return None


def _decoded(packet: av.Packet) -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except av.FFmpegError:  # damaged: players leave it out as well
        return []


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3], by the matrix and the range that the video says it was made with.

    Older PyAV looks at neither, and acts on what it is told only where source and destination differ.
    """
    matrix = frame.colorspace if frame.colorspace in _MATRICES else _BT601
    is_full = frame.color_range == _FULL or frame.format.name.startswith("yuvj")
    return frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=_BT709 if matrix == _BT601 else _BT601,
        src_color_range=_FULL if is_full else _LIMITED,
        dst_color_range=_FULL,
    ).to_ndarray()
