"""Sound files of every kind, and the speech made of them, against librosa's and upstream's numbers and the whole's."""

import sys
import tempfile
from functools import cache

import av
import numpy as np
import pyloudnorm
import pytest
import soxr
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.media import speech as speech_module
from infinitetalk.pipeline.media.audio import SAMPLE_RATE, frame_count, open_audio
from infinitetalk.pipeline.media.speech import speech_for_model
from infinitetalk.tests.golden.speech import save_wav, speech_like
from infinitetalk.tests.support.places import DATA
from safetensors.numpy import load_file

GOLDEN = DATA / "speech.safetensors"
CONTAINERS = {
    "pcm_u8.wav": ("pcm_u8", "u8"),
    "pcm_s16le.wav": ("pcm_s16le", "s16"),
    "pcm_s24le.wav": ("pcm_s24le", "s32"),
    "pcm_s32le.wav": ("pcm_s32le", "s32"),
    "pcm_f32le.wav": ("pcm_f32le", "flt"),
    "pcm_f64le.wav": ("pcm_f64le", "dbl"),
    "flac.flac": ("flac", "s16"),
    "mp3.mp3": ("mp3", "fltp"),
    "aac.m4a": ("aac", "fltp"),
    "video.mp4": ("aac", "fltp"),
    "video.mkv": ("pcm_s16le", "s16"),
}


def write(path, samples, sample_rate=44_100, codec="pcm_s16le", sample_format="s16"):
    """Encode float32 ``samples`` [channels, n] (None: no audio stream), with a picture track where the name says so."""
    with av.open(str(path), "w") as container:
        if path.stem.startswith("video"):
            video = container.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        if samples is not None:
            layout = "mono" if samples.shape[0] == 1 else "stereo"
            audio = container.add_stream(codec, rate=sample_rate, layout=layout, format=sample_format)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", layout)
            frame.sample_rate, frame.pts = sample_rate, 0
            container.start_encoding()  # writes the header even if no frame follows
            to_codec = av.AudioResampler(sample_format, layout, sample_rate, frame_size=audio.frame_size or 1024)
            for part in (*to_codec.resample(frame), *to_codec.resample(None)) if samples.size else ():
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))
        if path.stem.startswith("video"):
            for _ in range(5):
                container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(video.encode(None))
    return path


def stereo(seconds=0.6, sample_rate=44_100):
    return np.stack([speech_like(seconds, sample_rate, 0), speech_like(seconds, sample_rate, 1)]).astype(np.float32)


def sound(folder, samples, sample_rate):
    """An opened file of exactly these float32 ``samples`` [channels, n]."""
    return open_audio(write(folder / "sound.wav", samples, sample_rate, "pcm_f32le", "flt"))


def decoded(audio):
    return np.concatenate(list(audio.blocks()), axis=1)


def ffmpeg_float(path):
    """Decoded, and converted to planar floats by FFmpeg's own resampler."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp")
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_format_is_decoded_as_it_is(tmp_path, name, channels):
    samples = stereo()[:channels]
    audio = open_audio(write(tmp_path / name, samples, 44_100, *CONTAINERS[name]))
    found = decoded(audio)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ffmpeg_float(tmp_path / name), atol=1e-7)
    assert (audio.sample_rate, audio.channels, audio.num_samples) == (44_100, channels, found.shape[1])
    assert audio.seconds == pytest.approx(0.6, abs=0.05)  # lossy codecs pad to whole blocks
    assert np.corrcoef(found[-1, : samples.shape[1]], samples[-1])[0, 1] > 0.95  # and in time
    np.testing.assert_array_equal(decoded(audio), found)  # as often as wanted


def test_wav_samples_are_exact(tmp_path):
    integers = (stereo() * 2**15).astype(np.int16)
    save_wav(tmp_path / "speech.wav", integers.T, 22_050)
    audio = open_audio(tmp_path / "speech.wav")
    assert audio.sample_rate == 22_050
    np.testing.assert_array_equal(decoded(audio), integers / np.float32(2**15))
    assert audio.seconds == integers.shape[1] / 22_050


def test_more_than_two_channels_are_all_mixed(tmp_path):
    integers = (np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 6)) * 2**15).astype(np.int16)
    save_wav(tmp_path / "surround.wav", integers, SAMPLE_RATE)
    audio = open_audio(tmp_path / "surround.wav")
    assert decoded(audio).shape == (6, 4000)
    speech, mean = speech_for_model(audio), integers.mean(axis=1)
    assert np.corrcoef(speech, mean)[0, 1] > 1 - 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "missing.wav", "does not exist"),
        (lambda p: p, "is a folder"),
        (lambda p: _written(p / "text.wav", b"hello, this is no sound at all\n" * 50), "cannot be decoded"),
        (lambda p: _written(p / "noise.wav", np.random.default_rng(0).bytes(5000)), "cannot be decoded"),
        (lambda p: _written(p / "empty.mp3", b""), "cannot be decoded"),
        (lambda p: write(p / "video.mp4", None), "has no sound, only video"),
        (lambda p: write(p / "none.wav", np.zeros((1, 0))), "is empty"),
        (lambda p: write(p / "short.wav", np.zeros((1, 441))), "holds 0.010 s of sound, less than one video frame"),
        (lambda p: write(p / "nan.wav", np.full((1, 9000), np.nan), 44_100, "pcm_f32le", "flt"), "NaN or infinite"),
        (lambda p: write(p / "inf.wav", np.full((2, 9000), np.inf), 44_100, "pcm_f32le", "flt"), "NaN or infinite"),
    ],
)
def test_what_is_no_sound_gets_one_sentence(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        open_audio(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def _written(path, data):
    path.write_bytes(data)
    return path


def test_speech_is_that_of_upstream(tmp_path):
    golden = load_file(GOLDEN)
    save_wav(tmp_path / "speech.wav", golden["wav"], 22_050)
    speech = speech_for_model(open_audio(tmp_path / "speech.wav"))
    assert speech.dtype == np.float32
    np.testing.assert_allclose(speech, golden["speech"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_resampling_is_librosas(tmp_path, sample_rate):
    librosa = pytest.importorskip("librosa")
    integers = (stereo(0.701, sample_rate) * 2**15).astype(np.int16)
    save_wav(tmp_path / "speech.wav", integers.T, sample_rate)
    expected, _ = librosa.load(tmp_path / "speech.wav", sr=SAMPLE_RATE)
    speech = speech_for_model(open_audio(tmp_path / "speech.wav"))
    assert speech.shape == expected.shape
    gain = np.dot(speech, expected) / np.dot(expected, expected)
    np.testing.assert_allclose(speech, gain * expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [8000, 22_050, 44_100, 48_000])
def test_torchaudio_stands_in_for_soxr(tmp_path, monkeypatch, sample_rate):
    pytest.importorskip("torchaudio", reason="needs the package torchaudio")
    audio = sound(tmp_path, stereo(2.0, sample_rate), sample_rate)
    by_soxr = speech_for_model(audio)
    monkeypatch.setitem(sys.modules, "soxr", None)
    by_torchaudio = speech_for_model(audio)
    assert by_torchaudio.shape == by_soxr.shape
    assert by_torchaudio.dtype == np.float32
    assert not np.array_equal(by_torchaudio, by_soxr)
    assert rms(by_torchaudio - by_soxr) < 3e-3 * rms(by_soxr)


@pytest.mark.parametrize("missing", [["soxr", "torchaudio", "torchaudio.functional"], ["pyloudnorm"]])
def test_a_missing_package_is_named(tmp_path, monkeypatch, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"pip install {missing[0]}"):
        speech_for_model(sound(tmp_path, stereo(), 44_100))


# --- piece by piece, the same as of the whole


@pytest.fixture(params=[1.0, 3.7, 60.0], ids=lambda seconds: f"pieces of {seconds} s")
def pieces(request, monkeypatch):
    """How much speech is in memory at a time; the last is what it is outside of tests."""
    monkeypatch.setattr(speech_module, "PIECE", int(request.param * SAMPLE_RATE))


@cache  # for pieces of every size
def voices(sample_rate, channels):
    """Six seconds and more of as many speakers, as 16-bit integers, and the speech that the whole gives."""
    samples = np.stack([speech_like(6.003 + channels / 4, sample_rate, seed) for seed in range(channels)])
    samples = (samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    whole = (samples / np.float32(2**15)).astype(np.float32).mean(axis=0)
    if sample_rate != SAMPLE_RATE:
        whole = soxr.resample(whole, sample_rate, SAMPLE_RATE, quality="HQ")
    loudness = pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(whole)
    return samples, pyloudnorm.normalize.loudness(whole, loudness, -23.0)


@pytest.mark.parametrize(("sample_rate", "channels"), [(8000, 1), (16_000, 2), (22_050, 1), (44_100, 2), (48_000, 3)])
def test_pieces_give_the_speech_of_the_whole(tmp_path, pieces, sample_rate, channels):
    samples, expected = voices(sample_rate, channels)
    save_wav(tmp_path / "speech.wav", samples.T, sample_rate)
    speech = speech_for_model(open_audio(tmp_path / "speech.wav"))
    assert speech.size == int(np.ceil(samples.shape[1] * SAMPLE_RATE / sample_rate))
    np.testing.assert_allclose(speech[: expected.size], expected[: speech.size], rtol=0, atol=1e-6)


SECONDS = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
SIGNALS = {
    "speech": speech_like(31.37, SAMPLE_RATE, 4),
    "a loud half and one below the relative gate": np.sin(2800 * SECONDS) * np.where(SECONDS < 10, 1, 0.05),
    "a loud half and one below the absolute gate": np.sin(2800 * SECONDS) * np.where(SECONDS < 10, 1, 1e-5),
    "a fade": np.sin(2800 * SECONDS) * 10 ** (-SECONDS / 5),
    "what the filters remember longest": 0.5 + 0.5 * np.sin(2 * np.pi * 20 * SECONDS),
    "noise that ends in half a hop": np.random.default_rng(0).normal(scale=0.1, size=SAMPLE_RATE * 4 + 800),
    "noise that ends in less": np.random.default_rng(1).normal(scale=0.1, size=SAMPLE_RATE * 4 + 700),
    "noise that ends in more": np.random.default_rng(2).normal(scale=0.1, size=SAMPLE_RATE * 4 + 900),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_loudness_is_that_of_pyloudnorm(tmp_path, pieces, name):
    signal = SIGNALS[name].astype(np.float32)
    speech = speech_for_model(sound(tmp_path, signal[None], SAMPLE_RATE)).astype(np.float64)
    gain = np.dot(speech, signal) / np.dot(signal.astype(np.float64), signal)
    measured = -23 - 20 * np.log10(gain)
    assert measured == pytest.approx(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(signal), abs=1e-6)


def test_without_space_for_the_speech_it_is_said(tmp_path, monkeypatch):
    audio = sound(tmp_path, stereo(), 44_100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="folder for temporary files.*TMPDIR"):
        speech_for_model(audio)


def test_a_file_that_went_away_is_named(tmp_path):
    audio = sound(tmp_path, stereo(), 44_100)
    audio.path.unlink()
    with pytest.raises(InputError, match="put it back where it was"):
        speech_for_model(audio)


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_loudness_is_minus_23_lufs(tmp_path, level):
    speech = speech_for_model(sound(tmp_path, level * stereo(3.0), 44_100))
    assert pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(speech) == pytest.approx(-23, abs=0.01)


def test_silence_stays_silence(tmp_path):
    speech = speech_for_model(sound(tmp_path, np.zeros((2, 44_100), np.float32), 44_100))
    np.testing.assert_array_equal(speech, np.zeros(SAMPLE_RATE, np.float32))


def test_a_clip_too_short_to_measure_gets_the_level_of_a_longer_one(tmp_path):
    # FFmpeg 9 cannot open a float wav that is nothing but a tone, so a little noise is with it.
    tone = np.sin(2 * np.pi * 500 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)[None]
    tone = (tone + np.random.default_rng(0).normal(0, 0.01, tone.shape)).astype(np.float32)
    short = speech_for_model(sound(tmp_path, tone[:, : SAMPLE_RATE // 10], SAMPLE_RATE))
    long = speech_for_model(sound(tmp_path, tone, SAMPLE_RATE))
    assert short.shape == (SAMPLE_RATE // 10,)
    assert short.dtype == np.float32
    assert rms(short) == pytest.approx(rms(long), rel=0.01)


def rms(signal):
    return np.sqrt(np.mean(np.square(signal, dtype=np.float64)))


@pytest.mark.parametrize(("samples", "frames"), [(639, 0), (640, 1), (16_000, 25), (26_080, 40), (170_905, 267)])
def test_frames_are_whole_ones(samples, frames):
    assert frame_count(samples) == frames


def test_eight_channels_in_planes(tmp_path):
    """Seven point one AAC: as many planes as PyAV crashes on when asked for an array."""
    path = tmp_path / "surround.m4a"
    samples = np.stack([np.full(48_000, 0.05 * channel, np.float32) for channel in range(8)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="7.1")
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), format="flt", layout="7.1")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(format="fltp", layout="7.1", rate=48_000, frame_size=1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode())
    audio = open_audio(path)
    assert decoded(audio).shape[0] == audio.channels == 8
    assert speech_for_model(audio).ndim == 1
