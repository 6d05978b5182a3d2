"""Everything that a user can get wrong: the command line answers in one sentence, with exit code 2, and leaves nothing.

Each case is a whole call of the command on a small random checkpoint. It spoils one thing; the words that
must be in the sentence say which file or flag it is, what was found and what to do.
"""

import errno
import json
import os
import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.run.resume import load_state
from infinitetalk.tests.golden.speech import save_wav
from infinitetalk.tests.support.places import PORTRAIT
from PIL import Image

RATE = 16_000


def write_sound(path, samples):
    """Float samples [n] as a wav file of 16-bit integers."""
    save_wav(path, (np.asarray(samples)[:, None] * 32767).astype(np.int16), RATE)


def tone(seconds):
    return np.sin(np.arange(int(seconds * RATE)) * 0.05) * np.sin(np.arange(int(seconds * RATE)) * 0.0009) * 0.3


def test_the_good_flags_are_good(command, tmp_path):
    assert command() == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["video.mp4"]


# Flags


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"frame_num": 18}, "--frame_num: 18 found, 4n+1 expected, for example 17 or 21"),
        ({"frame_num": 1}, "--frame_num: 1 found, at least 5"),
        ({"motion_frame": 17}, "--motion_frame: 17 found, fewer than --frame_num (17)"),
        ({"motion_frame": 0}, "--motion_frame: 0 found, at least 1"),
        ({"sample_steps": 0}, "--sample_steps: 0 found, at least 1"),
        ({"sample_solver": "flowmatch_distill", "sample_steps": 5}, "exactly 4 steps; give --sample_steps 4"),
        ({"sample_text_guide_scale": -1}, "--sample_text_guide_scale: -1.0 found, at least 0"),
        ({"sample_text_guide_scale": "nan"}, "--sample_text_guide_scale: nan found, a finite number"),
        ({"sample_audio_guide_scale": -0.5}, "--sample_audio_guide_scale: -0.5 found, at least 0"),
        ({"sample_audio_guide_scale": "inf"}, "--sample_audio_guide_scale: inf found, a finite number"),
        ({"sample_shift": "nan"}, "--sample_shift: nan found, a finite number"),
        ({"sample_shift": 0}, "--sample_shift: 0.0 found, at least 0.01"),
        ({"apg_momentum": "nan"}, "--apg_momentum: nan found"),
        ({"preset": "03_balance"}, "Did you mean 03_balanced?"),
        ({"sample_solver": "dpm"}, "--sample_solver: 'dpm' found, one of euler,"),
        ({"size": "480p"}, "--size '480p' is not known: give infinitetalk-480, infinitetalk-720, or WIDTHxHEIGHT"),
        ({"size": "0x0"}, "--size 0x0: each side must be 64 to 4096"),
        ({"size": "99999x64"}, "--size 99999x64: each side must be 64 to 4096"),
        ({"device": "gpu"}, "--device: 'gpu' found, auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, "--device: cuda:99 found, but PyTorch sees"),
        ({"attention": "flash"}, "--attention flash needs a CUDA card"),
        ({"mode": "stream"}, "--mode: 'stream' found, one of streaming, clip"),
        ({"crf": 60}, "--crf: 60 found, at most 51"),
        ({"color_correction_strength": 2}, "--color_correction_strength: 2.0 found, at most 1"),
        ({"image": None}, "Give --image or --video, or --input_json FILE"),
        ({"audio": None}, "Give --audio, or --input_json FILE"),
        ({"video": "clip.mp4"}, "--image and --video are both given"),
        ({"image": "me.png"}, "--image: me.png does not exist; give a file"),
        ({"audio": "."}, "--audio: . is a folder; give a file"),
    ],
)
def test_flags(refusal, flags, words):
    assert words in refusal(**flags)


def test_words_without_a_flag(capsys):
    for argv, words in (
        (["me.png", "hello.wav"], "'me.png' stands where a flag was expected; name files by --image, --audio"),
        (["inf", "video.mp4"], "'inf' is not a command; did you mean info?"),
        (["--image", "me.png", "hello.wav"], "'hello.wav' stands where a flag was expected"),
    ):
        assert main(argv) == 2
        assert words in capsys.readouterr().err


# The JSON file

ENTRIES = {"prompt": "p", "cond_video": str(PORTRAIT), "cond_audio": {"person1": "speech.wav"}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"prompt": "p", "cond_video": "a.png"}, ["cond_video in job.json is 'a.png', which is not a file"]),
        ({**ENTRIES, "promt": "p"}, ["unknown entry 'promt'; did you mean 'prompt'?"]),
        ({**ENTRIES, "cond_audio": {"persn1": "a.wav"}}, ["unknown entry 'persn1'; did you mean 'person1'?"]),
        ({"prompt": "p", "cond_video": str(PORTRAIT)}, ["lacks the entry 'cond_audio'; add it or give --audio"]),
        ('{"prompt": "p",}', ["line 1 column", "no comma follows the last entry"]),
        ("{'prompt': 'p'}", ["line 1 column 2", "texts stand in double quotes"]),
        (r'{"cond_video": "C:\Users\me.png"}', ["escape", "a backslash is written twice"]),
        ("", ["job.json is not JSON"]),
        ("[" * 100_000, ["job.json is not JSON"]),
        ('{"prompt": "é"}'.encode("utf-16"), ["job.json is not JSON in UTF-8; save it as UTF-8"]),
        (PORTRAIT.read_bytes(), ["job.json is not JSON in UTF-8"]),
    ],
    ids=range(11),
)
def test_json(refusal, content, words):
    data = json.dumps(content) if isinstance(content, dict) else content
    Path("job.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    sentence = refusal(image=None, audio=None, prompt=None, input_json="job.json")
    assert sentence.startswith("error: --input_json: ") and all(word in sentence for word in words)


def test_a_json_that_is_no_file(refusal):
    Path("folder").mkdir()
    assert "--input_json: folder is a folder" in refusal(input_json="folder")
    assert "--input_json: no.json does not exist" in refusal(input_json="no.json")


def test_a_byte_order_mark_and_paths_beside_the_json_work(command, speech, tmp_path):
    folder = tmp_path / "my job \N{SNOWMAN}"
    folder.mkdir()
    shutil.copy(speech, folder / "spee\N{LATIN SMALL LETTER C WITH CEDILLA}h.wav")
    entries = {**ENTRIES, "cond_audio": {"person1": "spee\N{LATIN SMALL LETTER C WITH CEDILLA}h.wav"}}
    (folder / "job.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8-sig")
    saved = folder / "a video"
    assert command(image=None, audio=None, prompt=None, input_json=folder / "job.json", save_file=saved) == 0
    assert saved.with_suffix(".mp4").is_file()


# Sound


def float_sound(path, samples):
    """A wav file of 32-bit floats, which can hold what integers cannot."""
    data = np.asarray(samples, dtype="<f4").tobytes()
    kind = struct.pack("<IHHIIHH", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    path.write_bytes(
        b"RIFF%bWAVEfmt %bdata%b%b" % (struct.pack("<I", 36 + len(data)), kind, struct.pack("<I", len(data)), data)
    )


def write_video(path, frames=4):
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
        for number in range(frames):
            pixels = np.full((64, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "cannot be decoded as sound"),
        (lambda path: path.write_text("This is not sound.\n" * 20), "cannot be decoded as sound"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "cannot be decoded as sound"),
        (lambda path: write_sound(path, []), "give a file with sound in it"),
        (lambda path: write_sound(path, [0.5] * 100), "less than one video frame"),
        (lambda path: float_sound(path, [0.0] * 9000 + [np.nan]), "samples that are NaN or infinite"),
        (lambda path: float_sound(path, [np.inf] * 9000), "samples that are NaN or infinite"),
        (lambda path: shutil.copy(PORTRAIT, path), "has no sound, only video"),
        (write_video, "has no sound, only video"),
    ],
    ids=["empty", "text", "noise", "no samples", "short", "nan", "infinite", "a picture", "a silent film"],
)
def test_sound(refusal, tmp_path, make, words):
    make(tmp_path / "voice.wav")
    sentence = refusal(audio=tmp_path / "voice.wav")
    assert "voice.wav" in sentence and words in sentence


def test_silence_works_and_is_said(command, capsys, tmp_path):
    write_sound(tmp_path / "silence.wav", np.zeros(12_800))
    assert command(audio=tmp_path / "silence.wav", quiet=None) == 0
    assert "silence.wav is silent" in capsys.readouterr().err
    with av.open(str(tmp_path / "out" / "video.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20


# The reference


def cut_short(path):
    path.write_bytes(PORTRAIT.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("This is not a picture.\n" * 20), "neither a picture nor a video"),
        (lambda path: path.write_bytes(bytes(range(256)) * 20), "give a PNG, JPEG or MP4 file"),
        (cut_short, "is a damaged picture"),
        (lambda path: write_sound(path, tone(0.5)), "has sound but no video in it: give a picture or a video"),
        (lambda path: write_video(path, frames=0), "neither a picture nor a video"),
        (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(999)), "HEIC"),
        (lambda path: path.write_bytes(b"%PDF-1.4\n" + b"x" * 500), "give a PNG, JPEG or MP4 file"),
        (lambda path: Image.new("1", (20_000, 20_000)).save(path, "png"), "too large a picture (over 178 megapixels)"),
        (lambda path: Image.new("RGB", (2000, 20)).save(path, "png"), "is 2000x20: too long a strip"),
    ],
    ids=["empty", "text", "noise", "cut short", "sound", "no frames", "heic", "pdf", "huge", "strip"],
)
@pytest.mark.parametrize("flag", ["image", "video"])
def test_reference(refusal, tmp_path, flag, make, words):
    make(tmp_path / "me")
    sentence = refusal(**{"image": None, flag: tmp_path / "me"})
    assert f"{tmp_path / 'me'} " in sentence and words in sentence


def test_a_reference_of_one_pixel_works_and_is_said(command, capsys, tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.gif")
    assert command(image=tmp_path / "dot.gif", quiet=None) == 0
    assert "dot.gif is only 1x1 and is enlarged to 64x64" in capsys.readouterr().err


# The output


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forbidden(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "secret")


def test_where_nothing_can_be_written(refusal, speech, tmp_path, monkeypatch):
    assert f"--save_file: cannot write into {speech} (Not a directory)" in refusal(save_file=speech / "video")
    assert "--save_file: cannot write into" in refusal(save_file=tmp_path / ("x" * 300))
    assert "--save_file: it is empty" in refusal(save_file="")
    (tmp_path / "folder.mp4").mkdir()
    assert "folder.mp4 is a folder; give the name of a file in it" in refusal(save_file=tmp_path / "folder.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", forbidden)
        assert f"--save_file: cannot write into {tmp_path} (Permission denied)" in refusal()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_folder_that_is_read_only(refusal, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert f"cannot write into {tmp_path / 'locked'} (Permission denied)" in refusal(
        save_file=tmp_path / "locked" / "a"
    )


def test_a_file_that_may_not_be_read(refusal, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", forbidden)
        assert f"{PORTRAIT} cannot be read (Permission denied)" in refusal()
    with monkeypatch.context() as patch:
        patch.setattr("infinitetalk.pipeline.commands.generate.load_job", forbidden)
        assert "secret cannot be opened (Permission denied); check its permissions" in refusal()


def test_an_existing_video_is_kept_unless_told_otherwise(refusal, command, tmp_path):
    precious = tmp_path / "video.mp4"
    precious.write_bytes(b"precious")
    assert "video.mp4 exists; give --overwrite to replace it, or another name" in refusal(save_file=precious)
    assert precious.read_bytes() == b"precious"
    assert command(save_file=precious, overwrite=True) == 0
    assert precious.read_bytes() != b"precious"


def test_what_the_video_is_made_from_is_never_overwritten(refusal, tmp_path):
    source = tmp_path / "clip.mp4"
    write_video(source)
    whole = source.read_bytes()
    for overwrite in (True, None):
        sentence = refusal(image=None, video=source, save_file=tmp_path / "clip", overwrite=overwrite)
        assert "clip.mp4 is what it is made from; give another name" in sentence
    assert source.read_bytes() == whole


def test_a_disk_that_is_full_from_the_beginning(refusal, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    assert "video.partial.state (No space left on device): free some space or give another --save_file" in refusal()


def test_a_disk_that_fills_up_loses_nothing_that_was_finished(command, capsys, tmp_path, monkeypatch):
    sync = os.fsync

    def full_after_the_first_window(file):
        state = load_state(tmp_path / "out" / "video.mp4")
        if state is not None and state.windows:
            full_disk()
        sync(file)

    monkeypatch.setattr(os, "fsync", full_after_the_first_window)
    assert command() == 2
    out, err = capsys.readouterr()
    assert out == "" and "No space left on device" in err and "keeps the first 17 frames" in err
    assert not (tmp_path / "out" / "video.mp4").exists()
    with av.open(str(tmp_path / "out" / "video.partial.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 17
