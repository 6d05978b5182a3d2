"""The reference picture or video: what LoadImage would read, the frame at a time, upstream's resize and crop."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.codec.context import ThreadType
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.media import reference as module
from infinitetalk.pipeline.media.crop import resize_and_crop
from infinitetalk.pipeline.media.reference import open_reference
from infinitetalk.tests.golden.media import digest, picture
from infinitetalk.tests.golden.recipe import read_golden, reference_frames, write_lossless_video
from infinitetalk.tests.support.places import DATA
from PIL import Image

GOLDEN, NOTES = read_golden(DATA / "media.safetensors")
HEIGHT, WIDTH = 48, 64


def numbered(number):
    """A frame that shows its number as a shade of grey and is white at the top left."""
    pixels = np.full((HEIGHT, WIDTH, 3), 8 * number, np.uint8)
    pixels[: HEIGHT // 2, : WIDTH // 2] = 255
    return pixels


def shown(image):
    """The number that a frame made by ``numbered`` shows at its bottom right."""
    return round(np.asarray(image)[-8:, -8:].mean() / 8)


def write_video(path, codec, fps, times, pix_fmt="yuv420p"):
    """Numbered frames that are shown at ``times``, in seconds."""
    base = 1 / Fraction(fps) if codec in ("mjpeg", "mpeg2video") or path.suffix == ".avi" else Fraction(1, 90000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pix_fmt
        stream.codec_context.time_base = base
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(seconds) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def regular(fps, count=30):
    return [Fraction(number, fps) for number in range(count)]


@pytest.fixture(scope="module")
def video_25(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "25.mp4", "libx264", 25, regular(25))


# Pictures


def test_a_picture_is_one_rgb_frame_at_all_times(tmp_path):
    picture(40, 30).save(tmp_path / "a.png")
    reference = open_reference(tmp_path / "a.png")
    assert (reference.height, reference.width, reference.is_video) == (40, 30, False)
    assert [reference.frame_index(seconds) for seconds in (0, 3.7, 1e6)] == [0, 0, 0]
    assert np.array_equal(reference.frame(0), reference_frames(1, 40, 30)[0])


def test_exif_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(numbered(5)).save(tmp_path / "a.png", exif=exif)
    reference = open_reference(tmp_path / "a.png")
    assert (reference.height, reference.width) == (WIDTH, HEIGHT)
    assert np.array_equal(reference.frame(0), np.rot90(numbered(5), -1))


@pytest.mark.parametrize(
    ("mode", "pixel", "name", "expected"),
    [
        ("RGBA", (10, 20, 30, 0), "a.png", (10, 20, 30)),
        ("LA", (77, 3), "a.png", (77, 77, 77)),
        ("1", 1, "a.png", (255, 255, 255)),
        ("CMYK", (9, 8, 7, 6), "a.tif", (240, 241, 242)),
        ("I", 30000, "a.tif", (117, 117, 117)),
        ("I;16", 30000, "a.png", (117, 117, 117)),
    ],
)
def test_every_mode_becomes_rgb_as_load_image_does(tmp_path, mode, pixel, name, expected):
    Image.new(mode, (4, 4), pixel).save(tmp_path / name)
    assert open_reference(tmp_path / name).frame(0).getpixel((0, 0)) == expected


def test_an_animation_counts_as_its_first_frame(tmp_path):
    first, *others = (Image.fromarray(numbered(number)) for number in (3, 9, 20))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=40)
    reference = open_reference(tmp_path / "a.gif")
    assert (reference.is_video, reference.frame_index(1.0), shown(reference.frame(0))) == (False, 0, 3)


def test_content_counts_not_the_name(tmp_path, video_25):
    (tmp_path / "video.png").write_bytes(video_25.read_bytes())
    picture(20, 20).save(tmp_path / "picture.mp4", format="jpeg")
    assert open_reference(tmp_path / "video.png").is_video
    assert not open_reference(tmp_path / "picture.mp4").is_video


# Videos


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.avi", "libx264", "yuv420p"),  # no times of display in the file, and frames out of order
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("b.avi", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_at_25_frames_a_second_the_index_is_the_frame(tmp_path, name, codec, pix_fmt):
    reference = open_reference(write_video(tmp_path / name, codec, 25, regular(25), pix_fmt))
    assert (reference.height, reference.width, reference.is_video) == (HEIGHT, WIDTH, True)
    for number in range(30):
        assert reference.frame_index(number / 25) == number
        assert shown(reference.frame(number)) == number
    assert reference.frame_index(99.0) == 29
    assert shown(reference.frame(1000)) == 29


@pytest.mark.parametrize(
    ("name", "fps"), [("a.mp4", 30), ("a.mkv", 30), ("a.mp4", 10), ("a.webm", Fraction(24000, 1001))]
)
def test_other_rates_are_read_by_time(tmp_path, name, fps):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    reference = open_reference(
        write_video(tmp_path / name, codec, fps, [number / Fraction(fps) for number in range(20)])
    )
    for seconds in (0, 0.21, 0.35, 0.49, 0.6, 0.76):
        expected = min(19, int(Fraction(seconds).limit_denominator() * fps))
        assert reference.frame_index(seconds) == expected
        assert shown(reference.frame(expected)) == expected


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_irregular_times_count_from_the_first_frame(tmp_path, name):
    times = [Fraction(ms, 1000) for ms in (500, 540, 550, 700, 1500, 1510, 2000)]
    reference = open_reference(write_video(tmp_path / name, "libx264", 25, times))
    at = {0.0: 0, 0.039: 1, 0.03: 0, 0.05: 2, 0.19: 2, 0.2: 3, 0.99: 3, 1.0: 4, 1.4: 5, 1.5: 6, 9.0: 6, -1.0: 0}
    assert {seconds: reference.frame_index(seconds) for seconds in at} == at


def test_no_decoding_thread_can_outlive_its_frame(video_25):
    """One that logs while its decoder is closed would wait for the interpreter for ever, and be waited for."""
    frames = module._decode(video_25)  # private: what its decoder is set to shows nowhere else
    next(frames)
    used = frames.gi_frame.f_locals["stream"].codec_context.thread_type
    assert ThreadType.FRAME not in used


def test_going_back_reads_again(video_25):
    reference = open_reference(video_25)
    assert [reference.frame_index(number / 25) for number in (20, 3, 3, 29, 0)] == [20, 3, 3, 29, 0]
    assert [shown(reference.frame(number)) for number in (12, 4, 28)] == [12, 4, 28]


def test_going_forward_decodes_once(video_25, monkeypatch):
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: opened.append(args) or real(*args, **options))
    reference = open_reference(video_25)
    for number in range(0, 30, 7):
        reference.frame(reference.frame_index(number / 25))
    assert len(opened) == 1


def test_lossless_rgb_video_is_read_exactly(tmp_path):
    frames = reference_frames(3, HEIGHT, WIDTH)
    write_lossless_video(tmp_path / "a.mp4", frames)
    reference = open_reference(tmp_path / "a.mp4")
    assert all(np.array_equal(reference.frame(number), frames[number]) for number in range(3))


def test_a_rotated_video_is_turned_upright(tmp_path, video_25):
    data = bytearray(video_25.read_bytes())
    matrix = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[matrix : matrix + 36])[:2] == (1 << 16, 0)
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # as phones do
    (tmp_path / "a.mp4").write_bytes(data)
    reference = open_reference(tmp_path / "a.mp4")
    assert (reference.height, reference.width) == (WIDTH, HEIGHT)
    pixels = np.asarray(reference.frame(5)).mean(2)
    assert pixels[4, -4] > 240  # top left, a quarter clockwise, is top right
    assert abs(pixels[[4, -4, -4], [4, 4, -4]] - 40).max() < 4


@pytest.mark.parametrize(("matrix", "tag"), [("ITU709", 1), ("ITU601", 6)])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_the_videos_own_matrix_and_range(tmp_path, matrix, tag, full_range):
    colour = np.array((200, 60, 30), np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full_range else 1
        frame = av.VideoFrame.from_ndarray(np.tile(colour, (HEIGHT, WIDTH, 1)), format="rgb24")
        target = {"dst_colorspace": matrix, "dst_color_range": "JPEG" if full_range else "MPEG"}
        if matrix == "ITU601":
            target["src_colorspace"] = "ITU709"
        container.mux(stream.encode(frame.reformat(format="yuv420p", **target)))
        container.mux(stream.encode(None))
    pixel = np.asarray(open_reference(tmp_path / "a.mp4").frame(0))[5, 5].astype(int)
    assert abs(pixel - colour).max() <= 3


# Resize and crop


@pytest.mark.parametrize("size", ["infinitetalk-480", "infinitetalk-720"])
def test_twenty_shapes_are_resized_and_cropped_as_upstream_does(size):
    for source, target, expected in zip(
        GOLDEN["sizes"].tolist(), GOLDEN[f"target.{size}"].tolist(), NOTES[f"crops.{size}"], strict=True
    ):
        cropped = resize_and_crop(picture(*source), tuple(target))
        assert cropped.shape == (3, *target) and cropped.dtype == torch.float32
        assert digest(cropped) == expected, source


def test_one_pixel_becomes_a_plane(tmp_path):
    Image.new("RGB", (1, 1), (255, 0, 51)).save(tmp_path / "a.png")
    image = open_reference(tmp_path / "a.png").frame(0)
    torch.testing.assert_close(resize_and_crop(image, (64, 80)).mean((1, 2)), torch.tensor([1.0, -1.0, -0.6]))


# Errors


def broken_png(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:4000])


def sound(path):
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def no_frames(path):
    """The header of a video alone."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        container.start_encoding()


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("missing.png", lambda path: None, "not a file"),
        ("folder", lambda path: path.mkdir(), "not a file"),
        ("empty.png", lambda path: path.write_bytes(b""), "is empty"),
        ("text.png", lambda path: path.write_text("This is not a picture.\n" * 50), "frame|neither"),
        ("text.txt", lambda path: path.write_text("This is not a picture.\n" * 50), "no video|neither"),
        ("noise.mp4", lambda path: path.write_bytes(bytes(range(256)) * 40), "neither"),
        ("broken.png", broken_png, "damaged"),
        ("sound.mp4", sound, "no video"),
        ("no_frames.mkv", no_frames, "no frame|neither|no video"),
        ("drawing.svg", lambda path: path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>'), "no video|neither"),
        ("list.m3u8", lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"), "neither|frame"),
        ("script.eps", lambda path: Image.new("RGB", (9, 9)).save(path), "neither|no video|frame"),
        ("bomb.png", lambda path: Image.new("1", (20000, 20000)).save(path), "too large"),
        ("strip.png", lambda path: Image.new("RGB", (2000, 20)).save(path), "2000x20"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(InputError, match=words) as error:
        open_reference(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_video_cut_short_plays_as_far_as_it_goes(tmp_path):
    whole = write_video(tmp_path / "a.avi", "mjpeg", 25, regular(25), "yuvj420p").read_bytes()
    (tmp_path / "b.avi").write_bytes(whole[: len(whole) // 2])
    reference = open_reference(tmp_path / "b.avi")
    last = reference.frame_index(99.0)
    assert 5 < last < 25
    assert shown(reference.frame(last)) in (last, 0)  # the very last one may be cut within
    assert shown(reference.frame(last - 1)) == last - 1
