"""Windows to an MP4: what is on the disk after each, what the finished file holds, and what goes wrong."""

import errno
import json
import os
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.job.record import METADATA_KEY
from infinitetalk.pipeline.media import remux as remux_module
from infinitetalk.pipeline.media.audio import open_audio
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.reference import open_reference
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.tests.golden.recipe import reference_frames
from infinitetalk.tests.golden.speech import save_wav

HEIGHT, WIDTH = 64, 96
VIDEO = VideoFormat(HEIGHT, WIDTH)
WINDOWS = ((0, 17), (17, 18), (18, 30), (30, 40))


def smooth_frames(count=40):
    """Moving gradients, uint8 [count, 64, 96, 3]: what 4:2:0 can hold."""
    t, y, x = np.ogrid[:count, :HEIGHT, :WIDTH]
    planes = [60 + x + t, 200 - 2 * y + 0 * t, 100 + (x + y) // 2 - t]
    return torch.from_numpy(np.stack(np.broadcast_arrays(*planes), -1).clip(0, 255).astype(np.uint8))


FRAMES = smooth_frames()


@pytest.fixture
def tones(tmp_path_factory):
    """Makes sound files in which every channel is a sine of its own, at the start of each half second."""

    def make(channels, rate, seconds):
        t = np.arange(int(rate * seconds)) / rate
        waves = [0.3 * np.sin(2 * np.pi * (300 + 100 * channel) * t) * (t % 0.5 < 0.05) for channel in range(channels)]
        path = tmp_path_factory.mktemp("sound") / "tones.wav"
        save_wav(path, (np.stack(waves, axis=1) * 2**15).astype(np.int16), rate)
        return open_audio(path)

    return make


def write(path, frames=FRAMES, windows=WINDOWS, video=VIDEO, **options):
    with VideoWriter(path, video, **options) as writer:
        for start, stop in windows:
            writer.write_window(frames[start:stop])
        return writer.finish()


def video_packets(path):
    with av.open(str(path)) as container:
        return [(packet.dts * packet.time_base, bytes(packet)) for packet in container.demux(video=0) if packet.size]


def decoded(path):
    """uint8 [T, H, W, 3], by the colours that the file claims."""
    reference = open_reference(path)
    count = reference.frame_index(1e9) + 1
    return np.stack([np.asarray(reference.frame(number)) for number in range(count)])


def psnr(frames, expected):
    return 10 * np.log10(255**2 / np.mean((frames.astype(float) - np.asarray(expected)) ** 2))


# While it is written


def test_the_partial_file_plays_between_windows(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", VIDEO) as writer:
        for start, stop in WINDOWS:
            writer.write_window(FRAMES[start:stop])
            assert (writer.written.frames, writer.written.bytes) == (stop, writer.partial.stat().st_size)
            assert len(decoded(writer.partial)) == stop
            assert [time for time, _ in video_packets(writer.partial)] == [Fraction(k, 25) for k in range(stop)]
            assert not writer.path.exists()


def test_each_window_begins_with_a_key_frame_and_stands_alone(tmp_path):
    """The seam of resuming: windows 3 and 4 encoded by another writer are the same bytes."""
    with VideoWriter(tmp_path / "a.mp4", VIDEO) as writer:
        marks = []
        for start, stop in WINDOWS:
            writer.write_window(FRAMES[start:stop])
            marks.append(writer.written.bytes)
    with VideoWriter(tmp_path / "b.mp4", VIDEO) as other:
        other.write_window(FRAMES[:18])
        tail = other.written.bytes
        other.write_window(FRAMES[18:30])
        other.write_window(FRAMES[30:40])
    with av.open(str(writer.partial)) as container:
        keys = [round(packet.pts * packet.time_base * 25) for packet in container.demux(video=0) if packet.is_keyframe]
    assert keys == [start for start, _ in WINDOWS]
    assert writer.partial.read_bytes()[marks[1] :] == other.partial.read_bytes()[tail:]


def test_a_broken_run_keeps_the_partial_video_and_no_other(tmp_path):
    with (
        pytest.raises(RuntimeError, match="broken"),
        VideoWriter(tmp_path / "a.mp4", VIDEO) as writer,
    ):
        writer.write_window(FRAMES[:17])
        raise RuntimeError("broken")
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mp4"]
    assert len(decoded(tmp_path / "a.partial.mp4")) == 17


def test_a_run_broken_before_its_first_window_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="broken"), VideoWriter(tmp_path / "a.mp4", VIDEO):
        raise RuntimeError("broken")
    assert not list(tmp_path.iterdir())


# The finished video


def test_the_finished_video_is_an_ordinary_mp4_of_the_same_packets(tmp_path, tones):
    with VideoWriter(tmp_path / "a.mp4", VIDEO, audio=tones(1, 16000, 3)) as writer:
        for start, stop in WINDOWS:
            writer.write_window(FRAMES[start:stop])
        partial = video_packets(writer.partial)
        assert writer.finish() == tmp_path / "a.mp4"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert video_packets(tmp_path / "a.mp4") == partial
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat") and b"moof" not in data
    with av.open(str(tmp_path / "a.mp4")) as container:
        video = container.streams.video[0]
        assert (video.frames, video.average_rate, video.start_time) == (40, 25, 0)
        assert video.duration * video.time_base == Fraction(40, 25)
        assert (video.codec_context.pix_fmt, video.codec_context.has_b_frames) == ("yuv420p", False)
        assert [frame.time for frame in container.decode(video=0)] == [k / 25 for k in range(40)]


def test_colours_come_back(tmp_path):
    frames = decoded(write(tmp_path / "a.mp4"))
    assert psnr(frames, FRAMES) > 38
    assert abs(frames.astype(float) - FRAMES.numpy()).mean(axis=(0, 1, 2)).max() < 2.5
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)


def test_crf_0_is_lossless_and_a_higher_crf_is_smaller(tmp_path):
    busy = torch.from_numpy(reference_frames(40, HEIGHT, WIDTH))
    assert np.array_equal(decoded(write(tmp_path / "lossless.mp4", busy, video=replace(VIDEO, crf=0))), busy)
    sizes = [write(tmp_path / f"{crf}.mp4", busy, video=replace(VIDEO, crf=crf)).stat().st_size for crf in (1, 18, 40)]
    assert (tmp_path / "lossless.mp4").stat().st_size > sizes[0] > sizes[1] > sizes[2]


def test_the_same_frames_give_the_same_file(tmp_path, tones):
    sound, metadata = tones(2, 44100, 3), {"seed": 42}
    files = [write(tmp_path / name, audio=sound, metadata=metadata) for name in ("a.mp4", "b.mp4")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_metadata_comes_back(tmp_path):
    settings = {"prompt": 'a "quoted" \u4f60\u597d', "shift": 7.0, "none": None}
    path = write(tmp_path / "a.mp4", metadata=settings)
    with av.open(str(path)) as container:
        assert json.loads(container.metadata[METADATA_KEY]) == settings


@pytest.mark.parametrize(
    ("channels", "rate", "seconds", "expected"),
    [
        (1, 16000, 3, (1, 16000, 1.6)),
        (2, 44100, 1.6, (2, 44100, 1.6)),
        (2, 48000, 0.9, (2, 48000, 0.9)),  # shorter sound simply ends
        (2, 96000, 3, (2, 96000, 1.6)),
        (1, 192000, 3, (1, 48000, 1.6)),
        (1, 10000, 3, (1, 48000, 1.6)),
        (6, 48000, 3, (6, 48000, 1.6)),
        (8, 48000, 3, (8, 48000, 1.6)),
        (12, 48000, 3, (1, 48000, 1.6)),
    ],
)
def test_the_sound_keeps_rate_channels_and_time(tmp_path, tones, channels, rate, seconds, expected):
    path = write(tmp_path / "a.mp4", audio=tones(channels, rate, seconds))
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        found = (sound.codec_context.channels, sound.sample_rate, float(sound.duration * sound.time_base))
        assert found[:2] == expected[:2]
        assert found[2] == pytest.approx(expected[2], abs=1e-3)
        assert container.duration / av.time_base == pytest.approx(1.6, abs=1e-3)
        resampler = av.AudioResampler(format="flt")
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
        first = np.concatenate([block.to_ndarray().reshape(-1, expected[0])[:, 0] for block in blocks])
    loud = np.flatnonzero(abs(first) > 0.02) / sound.sample_rate
    onsets = [loud[loud > start][0] for start in (-1, 0.3)]
    assert onsets == pytest.approx([0, 0.5], abs=0.005)


def test_a_silent_video_has_no_sound_track(tmp_path):
    with av.open(str(write(tmp_path / "a.mp4"))) as container:
        assert not container.streams.audio


def test_sound_and_picture_are_interleaved(tmp_path, tones):
    path = write(tmp_path / "a.mp4", audio=tones(2, 48000, 3))
    with av.open(str(path)) as container:
        kinds = "".join(packet.stream.type[0] for packet in container.demux() if packet.size)
    assert "v" * 5 not in kinds and "a" * 5 not in kinds.rstrip("a")


# What goes wrong


@pytest.mark.parametrize("shape", [(0, HEIGHT, WIDTH, 3), (2, WIDTH, HEIGHT, 3), (2, HEIGHT, WIDTH)])
def test_frames_of_another_shape_are_refused(tmp_path, shape):
    with (
        VideoWriter(tmp_path / "a.mp4", VIDEO) as writer,
        pytest.raises(ValueError, match="frames must be"),
    ):
        writer.write_window(torch.zeros(shape, dtype=torch.uint8))


def test_finishing_nothing_is_refused(tmp_path):
    with (
        VideoWriter(tmp_path / "a.mp4", VIDEO) as writer,
        pytest.raises(ValueError, match="no window"),
    ):
        writer.finish()


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_said_and_keeps_the_windows_before(tmp_path, monkeypatch):
    with VideoWriter(tmp_path / "a.mp4", VIDEO) as writer:
        writer.write_window(FRAMES[:17])
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(InputError, match="No space left.*first 17 frames"):
            writer.write_window(FRAMES[17:40])
        assert writer.written.frames == 17
    assert len(decoded(writer.partial)) == 17


def test_a_disk_that_fills_while_finishing_keeps_the_partial_video(tmp_path, monkeypatch):
    with VideoWriter(tmp_path / "a.mp4", VIDEO) as writer:
        writer.write_window(FRAMES)
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(InputError, match="No space left.*first 40 frames"):
            writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mp4"]


def test_a_copy_that_lost_its_end_unnoticed_does_not_replace_the_partial_video(tmp_path, monkeypatch):
    copy = remux_module._copy  # private, but a copy that is silently short cannot be had from outside

    def lose_the_end(source, target, *arguments):
        copy(source, target, *arguments)
        target.write_bytes(target.read_bytes()[:-200])

    monkeypatch.setattr(remux_module, "_copy", lose_the_end)
    with VideoWriter(tmp_path / "a.mp4", VIDEO) as writer:
        writer.write_window(FRAMES)
        with pytest.raises(InputError, match="read back"):
            writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mp4"]
