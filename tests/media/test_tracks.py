"""Sound as it really is: rates that change, gaps, damage, several tracks, and headers that lie."""

import struct
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.media.audio import Sound, audible_track, check_audio, open_audio
from infinitetalk.pipeline.media.speech import is_faint, speech_for_model

FRAME = 0.04  # seconds
TONE = 0.3


def tone(seconds, rate, channels=1, hertz=440):
    """float32 [channels, n]."""
    wave_ = TONE * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave_[None].astype(np.float32), channels, axis=0)


def encoded(path, samples, rate, codec, container, layout="mono", jump=(), start=0, options=None):
    """Samples [channels, n] in a file; ``jump``: (sample, samples without sound before it)."""
    at, more = jump or (len(samples[0]) + 1, 0)
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        step = 960
        for first in range(0, samples.shape[1], step):
            piece = np.ascontiguousarray(samples[:, first : first + step].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + first + (more if first >= at else 0)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def raw_mp3(path, seconds, rate, channels):
    """MPEG frames and nothing else, as pieces of speech are joined."""
    options = {"id3v2_version": "0", "write_xing": "0"}
    layout = "mono" if channels == 1 else "stereo"
    return encoded(path, tone(seconds, rate, channels), rate, "libmp3lame", "mp3", layout, options=options).read_bytes()


def film(path, sound, container="matroska", codec="pcm_s16le", start=0.0, titles=("",)):
    """A black film of 2 s with tracks of sound at 48 kHz that begin ``start`` seconds after it."""
    with av.open(str(path), "w", format=container) as file:
        video = file.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        streams = [file.add_stream(codec, rate=48_000, layout="mono") for _ in sound]
        for stream, title in zip(streams, titles, strict=False):
            stream.metadata["title"] = title
        packets = []
        for number in range(50):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        for stream, samples in zip(streams, sound, strict=True):
            for first in range(0, samples.shape[1], 960):
                piece = np.ascontiguousarray(samples[:, first : first + 960])
                frame = av.AudioFrame.from_ndarray(piece, format="flt", layout="mono")
                frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
                frame.pts = first + round(start * 48_000)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            file.mux(packet)
    return path


def heard(audio):
    return np.concatenate(list(audio.blocks()), axis=1)


def sounding(audio, threshold=0.02):
    """When something is heard first and last, in seconds."""
    loud = np.flatnonzero(np.abs(heard(audio)[0]) > threshold) / audio.sample_rate
    return loud[0], loud[-1]


def pitch(samples, rate):
    """In Hz, of a tone."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@pytest.mark.parametrize("first", [(24_000, 1), (44_100, 2), (44_100, 1)], ids=str)
@pytest.mark.parametrize("second", [(44_100, 2), (24_000, 1), (48_000, 1)], ids=str)
def test_pieces_of_every_rate_and_layout_are_joined(tmp_path, first, second):
    pieces = [raw_mp3(tmp_path / f"{n}.mp3", 1.0, *kind) for n, kind in enumerate((first, second))]
    lengths = [open_audio(tmp_path / f"{number}.mp3").seconds for number in range(2)]
    (tmp_path / "joined.mp3").write_bytes(b"".join(pieces))
    audio = open_audio(tmp_path / "joined.mp3")
    assert (audio.sample_rate, audio.channels) == (max(first[0], second[0]), max(first[1], second[1]))
    assert audio.seconds == pytest.approx(sum(lengths), abs=FRAME / 2)
    assert audio.num_samples == heard(audio).shape[1]
    rate, channel = audio.sample_rate, heard(audio)[-1]
    for part in (channel[rate // 5 : rate * 4 // 5], channel[rate * 6 // 5 : rate * 9 // 5]):
        assert pitch(part, rate) == pytest.approx(440, abs=3)
        assert np.sqrt(2 * np.square(part).mean()) == pytest.approx(TONE, rel=0.1)  # neither faded nor doubled
    assert len(speech_for_model(audio)) == pytest.approx(audio.seconds * 16_000, abs=1)


@pytest.mark.parametrize(("rate", "layout"), [(48_000, "stereo"), (48_000, "mono"), (24_000, "mono")])
def test_a_chain_of_ogg_files_is_read_to_its_end(tmp_path, rate, layout):
    one = encoded(tmp_path / "1.opus", tone(1.0, 48_000), 48_000, "libopus", "ogg")
    two = encoded(tmp_path / "2.opus", tone(1.0, rate, 1 + (layout == "stereo")), rate, "libopus", "ogg", layout)
    (tmp_path / "chained.opus").write_bytes(one.read_bytes() + two.read_bytes())
    audio = open_audio(tmp_path / "chained.opus")
    assert audio.channels == 1 + (layout == "stereo")
    assert audio.seconds == pytest.approx(2.0, abs=FRAME / 2)
    first, last = sounding(audio)
    assert first < FRAME and last > 2.0 - FRAME


def test_adts_that_changes_its_rate(tmp_path):
    one = encoded(tmp_path / "1.aac", tone(1.0, 24_000), 24_000, "aac", "adts")
    two = encoded(tmp_path / "2.aac", tone(1.0, 44_100, 2), 44_100, "aac", "adts", "stereo")
    lengths = [open_audio(path).seconds for path in (one, two)]
    (tmp_path / "joined.aac").write_bytes(one.read_bytes() + two.read_bytes())
    assert open_audio(tmp_path / "joined.aac").seconds == pytest.approx(sum(lengths), abs=FRAME)


@pytest.mark.parametrize("spoilt", [1, 250, 1000])
@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.aac", "aac")])
def test_frames_whose_beginning_is_damaged_keep_their_time(tmp_path, name, codec, spoilt):
    """FFmpeg makes no packets of them. Tags between frames are no sound."""
    container = "adts" if name.endswith("aac") else "mp3"
    path = encoded(tmp_path / name, tone(2.0, 44_100), 44_100, codec, container)
    whole, data = open_audio(path), bytearray(path.read_bytes())
    begin = data.index(data[:2] if container == "adts" else b"\xff\xfb", len(data) // 2)
    tagged = tmp_path / f"tagged {name}"
    tagged.write_bytes(data[:begin] + b"ID3\4\0\0\0\0\7\x76" + bytes(1014) + data[begin:])
    assert open_audio(tagged).seconds == pytest.approx(whole.seconds, abs=FRAME / 2)
    data[begin : begin + spoilt] = bytes(spoilt)
    path.write_bytes(data)
    assert open_audio(path).seconds == pytest.approx(whole.seconds, abs=FRAME)
    assert open_audio(path).heard.lost > 0


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [("a.mp3", "libmp3lame", "mp3"), ("a.aac", "aac", "adts"), ("a.m4a", "aac", "ipod")],
)
def test_a_damaged_packet_is_silence_of_its_length(tmp_path, name, codec, container):
    path = encoded(tmp_path / name, tone(2.0, 44_100), 44_100, codec, container)
    whole = open_audio(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 250] = np.random.default_rng(2).bytes(250)
    (tmp_path / f"damaged {name}").write_bytes(data)
    damaged = open_audio(tmp_path / f"damaged {name}")
    assert whole.heard.lost == 0 < damaged.heard.lost < 9
    assert damaged.seconds == pytest.approx(whole.seconds, abs=FRAME)
    assert sounding(damaged)[1] == pytest.approx(sounding(whole)[1], abs=FRAME)
    assert len(heard(damaged)[0]) == damaged.num_samples


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [("a.flac", "flac", "flac"), ("a.mka", "flac", "matroska"), ("a.tta", "tta", "tta")],
)
def test_a_frame_whose_checksum_is_wrong_is_no_sound(tmp_path, name, codec, container):
    """It can be decoded, to something that was never recorded."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=(1, 240_000)).astype(np.float32)
    path = encoded(tmp_path / name, noise, 48_000, codec, container)
    whole, data = open_audio(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    damaged = open_audio(path)
    assert whole.heard.lost == 0 < damaged.heard.lost < 9
    assert damaged.seconds == pytest.approx(whole.seconds, abs=FRAME)
    found, right = heard(damaged), heard(whole_again(path, data))
    length = min(found.shape[1], right.shape[1])
    assert all(sample in (0, other) for sample, other in zip(found[0, :length], right[0, :length], strict=True))


def whole_again(path, data):
    """The sound without the damage."""
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return open_audio(path)


def test_what_is_damaged_all_through_is_refused(tmp_path):
    path = encoded(tmp_path / "a.m4a", tone(1.0, 44_100), 44_100, "aac", "ipod")
    data = path.read_bytes()
    begin = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[begin - 8 : begin - 4])[0] - 8
    path.write_bytes(data[:begin] + b"\xff" * size + data[begin + size :])
    with pytest.raises(InputError, match="cannot be decoded as sound \\(track 1: it cannot be decoded\\)"):
        open_audio(path)


@pytest.mark.parametrize(("container", "codec"), [("matroska", "pcm_s16le"), ("matroska", "libopus"), ("mp4", "aac")])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_sound_that_begins_after_the_picture_waits_for_it(tmp_path, container, codec, start):
    audio = open_audio(film(tmp_path / "film", [tone(1.0, 48_000)], container, codec, start))
    first, last = sounding(audio)
    assert first == pytest.approx(start, abs=FRAME / 2)
    assert last == pytest.approx(start + 1.0, abs=FRAME)


def test_sound_alone_begins_with_its_first_sample(tmp_path):
    path = encoded(tmp_path / "a.mka", tone(1.0, 48_000), 48_000, "pcm_s16le", "matroska", start=24_000)
    assert open_audio(path).seconds == 1.0


@pytest.mark.parametrize(("codec", "container"), [("pcm_s16le", "matroska"), ("libopus", "webm")])
def test_a_pause_of_the_recorder_is_silence(tmp_path, codec, container):
    samples = tone(2.0, 48_000)
    path = encoded(tmp_path / "a", samples, 48_000, codec, container, jump=(48_000, 36_000))
    audio = open_audio(path)
    assert audio.seconds == pytest.approx(2.75, abs=0.02)
    found = heard(audio)[0]
    assert np.abs(found[round(1.05 * 48_000) : round(1.7 * 48_000)]).max() < 0.01
    for begin in (0.3, 1.0 + 0.8):
        assert np.abs(found[round(begin * 48_000) : round((begin + 0.1) * 48_000)]).max() > 0.2


def test_times_of_another_day_are_no_silence(tmp_path):
    path = encoded(
        tmp_path / "a.mka", tone(2.0, 48_000), 48_000, "pcm_s16le", "matroska", jump=(48_000, 48_000 * 86_400)
    )
    assert open_audio(path).seconds == 2.0


def wav(path, samples, rate=24_000, channels=1, bits=16, code=1):
    pcm = (samples.T * 2**15).astype("<i2").tobytes()
    kind = struct.pack("<HHIIHH", code, channels, rate, rate * channels * bits // 8 % 2**32, channels * bits // 8, bits)
    head = b"WAVEfmt " + struct.pack("<I", 16) + kind + b"data" + struct.pack("<I", len(pcm))
    path.write_bytes(b"RIFF" + struct.pack("<I", len(head) + len(pcm)) + head + pcm)
    return path


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"rate": 1}, "1 samples a second"),
        ({"rate": 300}, "300 samples a second"),
        ({"rate": 2 * 10**9}, "2000000000 samples a second"),
        ({"channels": 0}, "no channels"),
        ({"channels": 300}, "300 channels"),
        ({"code": 0x7777}, "no decoder"),
        ({"bits": 0}, "no decoder"),
    ],
)
def test_headers_that_cannot_be_speech_are_refused_before_anything_is_decoded(tmp_path, header, words):
    path = wav(tmp_path / "a.wav", tone(1.0, 24_000), **header)
    for look in (check_audio, open_audio):
        with pytest.raises(InputError, match=words) as error:
            look(path)
        assert str(path) in str(error.value)


def test_a_sound_in_memory_at_no_rate_of_speech_is_refused():
    with pytest.raises(InputError, match="1 samples a second"):
        open_audio(Sound(np.zeros((1, 9000), np.float32), 1))


def test_the_next_track_is_used_where_the_first_has_no_decoder(tmp_path):
    path = film(tmp_path / "a.mkv", [tone(1.0, 48_000), tone(1.0, 48_000, hertz=880)])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"A_PCM/INT/LIT", b"A_PCM/???/LIT", 1))
    audio = open_audio(path)
    assert audio.track == 1 and audio.heard.passed_over == ("track 1: there is no decoder for it",)
    assert pitch(heard(audio)[0], 48_000) == pytest.approx(880, abs=3)


@pytest.mark.parametrize("tag", ["Über uns".encode("latin-1"), "你好世界".encode("gbk"), b"\xff\xfe\x80"])
def test_tags_need_not_be_utf_8(tmp_path, tag):
    path = wav(tmp_path / "a.wav", tone(1.0, 24_000))
    info = b"INFOINAM" + struct.pack("<I", len(tag)) + tag + b"\0" * (len(tag) % 2)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", len(info)) + info)
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", len(data) - 8)
    path.write_bytes(data)
    assert open_audio(path).seconds == 1.0


def test_another_track_is_offered_where_the_first_is_silent(tmp_path):
    path = film(tmp_path / "a.mkv", [np.zeros((1, 48_000), np.float32), tone(1.0, 48_000)], titles=("Game", "Voice"))
    audio = open_audio(path)
    track = audible_track(audio)
    assert is_faint(speech_for_model(audio))
    assert (track.number, str(track)) == (1, "track 2 (Voice)")


@pytest.mark.parametrize(("right", "cancels"), [(-1.0, True), (-0.95, True), (1.0, False), (0.0, False), (-0.3, False)])
def test_opposite_phase_is_found(right, cancels):
    left = tone(1.0, 16_000)
    assert open_audio(Sound(np.concatenate([left, right * left]), 16_000)).heard.cancels == cancels


@pytest.mark.parametrize(("level", "faint"), [(1.0, False), (1e-2, False), (1e-4, True), (0.0, True)])
@pytest.mark.parametrize("seconds", [0.1, 12.0])
def test_what_is_too_faint_for_speech_is_found(level, faint, seconds):
    late = np.concatenate([np.zeros((1, round(seconds * 8000)), np.float32), tone(seconds / 2, 16_000)], axis=1)
    assert is_faint(speech_for_model(open_audio(Sound(late * np.float32(level), 16_000)))) == faint


def test_ordinary_sound_is_untouched(tmp_path):
    samples = (tone(1.0, 22_050, 2) * 2**15).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes(samples.T.tobytes())
    audio = open_audio(tmp_path / "a.wav")
    np.testing.assert_array_equal(heard(audio), samples / np.float32(2**15))
    assert (audio.heard.lost, audio.heard.is_cut, audio.heard.cancels, audio.heard.passed_over) == (0, False, False, ())
