"""Pictures and videos as players show them: turned, mirrored, with square pixels; pictures in floats, and HEIC."""

import struct
from fractions import Fraction
from importlib.util import find_spec

import av
import numpy as np
import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.media.reference import open_reference
from PIL import Image

HEIGHT, WIDTH = 96, 64
COLOURS = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)


def quarters(height=HEIGHT, width=WIDTH):
    """Red and green above blue and white."""
    return COLOURS.repeat(height // 2, 0).repeat(width // 2, 1)


def video(path, pixels, aspect=None, codec="libx264"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def is_upright(image):
    """Whether the four quarters are where ``quarters`` has them."""
    pixels = np.asarray(image).astype(int)
    height, width = pixels.shape[:2]
    found = pixels[np.ix_([height // 4, height * 3 // 4], [width // 4, width * 3 // 4])]
    return np.abs(found - COLOURS.astype(int)).max() < 60


# how the shown picture is stored, and the matrix that brings it back: a, b, c, d of x' = ax + cy, y' = bx + dy
STORED = {
    "as it is": (lambda p: p, (1, 0, 0, 1)),
    "turned 90 counterclockwise": (lambda p: np.rot90(p, 1), (0, 1, -1, 0)),
    "turned 180": (lambda p: np.rot90(p, 2), (-1, 0, 0, -1)),
    "turned 90 clockwise": (lambda p: np.rot90(p, -1), (0, -1, 1, 0)),
    "mirrored": (lambda p: p[:, ::-1], (-1, 0, 0, 1)),
    "upside down": (lambda p: p[::-1], (1, 0, 0, -1)),
    "transposed": (lambda p: p.transpose(1, 0, 2), (0, 1, 1, 0)),
    "transposed the other way": (lambda p: np.rot90(p, 2).transpose(1, 0, 2), (0, -1, -1, 0)),
}


@pytest.mark.parametrize("way", STORED)
def test_all_eight_orientations_are_shown_upright(tmp_path, way):
    store, (a, b, c, d) = STORED[way]
    path = video(tmp_path / "a.mp4", np.ascontiguousarray(store(quarters())))
    data = bytearray(path.read_bytes())
    matrix, one = data.index(b"tkhd") + 44, 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    reference = open_reference(path)
    assert (reference.height, reference.width) == (HEIGHT, WIDTH)
    assert is_upright(reference.frame(1))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(16, 9), (96, 114)), (Fraction(1, 2), (192, 64)), (Fraction(1), (96, 64))]
)
def test_pixels_become_square(tmp_path, name, aspect, size):
    reference = open_reference(video(tmp_path / name, quarters(), aspect))
    assert (reference.height, reference.width) == size
    assert is_upright(reference.frame(0))


def test_square_pixels_come_before_the_turn(tmp_path):
    path = video(tmp_path / "a.mp4", np.ascontiguousarray(np.rot90(quarters())), Fraction(2))
    data = bytearray(path.read_bytes())
    matrix, one = data.index(b"tkhd") + 44, 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    reference = open_reference(path)
    assert (reference.height, reference.width) == (2 * HEIGHT, WIDTH) and is_upright(reference.frame(0))


def test_a_strip_of_pixels_is_refused(tmp_path):
    path = video(tmp_path / "a.mp4", quarters(), Fraction(30))
    with pytest.raises(InputError, match="too long a strip"):
        open_reference(path)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_grey_in_floats_is_not_black(tmp_path, white):
    grey = np.linspace(0, white, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "a.tif")
    found = np.asarray(open_reference(tmp_path / "a.tif").frame(0))
    assert np.abs(found[..., 0].astype(int) - np.arange(256).reshape(16, 16)).max() <= 1


@pytest.mark.parametrize("major", [b"heic", b"hevc", b"msf1", b"mif1", b"isom"])
def test_heic_is_named_by_all_its_brands(tmp_path, monkeypatch, major):
    brands = major + bytes(4) + b"mif1" + b"heic"
    (tmp_path / "a.heic").write_bytes(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(100))
    said = "damaged picture" if find_spec("pillow_heif") else "HEIC picture.*pip install pillow-heif"
    with pytest.raises(InputError, match=said):
        open_reference(tmp_path / "a.heic")


@pytest.mark.parametrize("major", [b"heic", b"hevc", b"msf1", b"mif1"])
def test_heic_is_read_where_pillow_heif_is_there(tmp_path, major):
    pytest.importorskip("pillow_heif", reason="needs the package pillow-heif").register_heif_opener()
    drawn = np.zeros((96, 128, 3), np.uint8)
    drawn[:48, :64, 0] = drawn[48:, 64:, 1] = 255
    Image.fromarray(drawn).save(tmp_path / "a.heic", quality=100)
    data = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "a.heic").write_bytes(data[:8] + major + data[12:])
    found = np.asarray(open_reference(tmp_path / "a.heic").frame(0)).astype(int)
    assert found.shape == drawn.shape and np.abs(found - drawn).mean() < 8


def test_tags_of_a_video_need_not_be_utf_8(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Title!"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Title!", "Über".encode("latin-1") + b"\xff\xfe", 1))
    assert is_upright(open_reference(path).frame(0))
