"""The job: from flags, from upstream's JSON, from both; what is missing or misspelt is said."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.job.job import BUNDLED, GUIDES_EXAMPLE, Job, load_job
from infinitetalk.pipeline.job.output import check_beside, output_path, path_to_write
from infinitetalk.pipeline.media.audio import Sound
from infinitetalk.pipeline.media.reference import Footage
from infinitetalk.pipeline.settings.definition import NEGATIVE_PROMPT, PROMPT, Settings

ENTRIES = {"prompt": "Someone talks.", "cond_video": "face.png", "cond_audio": {"person1": "voice.wav"}}
TWO = {"person1": "voice.wav", "person2": "other.wav"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("face.png", "voice.wav", "other.png", "other.wav"):
        Path(name).write_bytes(b"")
    return tmp_path


def write(entries, path="job.json"):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = entries if isinstance(entries, str) else json.dumps(entries, ensure_ascii=False)
    Path(path).write_text(text, encoding="utf-8")
    return Settings(input_json=path)


def refusal(settings):
    with pytest.raises(InputError) as caught:
        load_job(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_from_json_as_upstream(folder):
    job = load_job(write({**ENTRIES, "audio_type": "para"}))
    assert job == Job(Path("face.png"), Path("voice.wav"), "Someone talks.", NEGATIVE_PROMPT)


def test_from_flags_without_json(folder):
    job = load_job(Settings(video="face.png", audio="voice.wav", prompt="", negative_prompt="blur"))
    assert job == Job(Path("face.png"), Path("voice.wav"), "", "blur")


def test_flags_win_over_the_json(folder):
    settings = write({**ENTRIES, "negative_prompt": "fog", "prompt": "\N{SNOWMAN}"}).replace(image=Path("other.png"))
    assert load_job(settings) == Job(Path("other.png"), Path("voice.wav"), "\N{SNOWMAN}", "fog")
    settings = settings.replace(audio=Path("other.wav"), prompt="p", negative_prompt="n")
    assert load_job(settings) == Job(Path("other.png"), Path("other.wav"), "p", "n")


def test_the_default_json_is_not_read_when_flags_say_everything(folder):
    write("not JSON", "examples.json")
    assert load_job(Settings(image="face.png", audio="voice.wav", prompt="p")).prompt == "p"
    assert "not JSON" in refusal(Settings(image="face.png", audio="voice.wav"))


def test_a_picture_and_a_sound_are_enough(folder):
    assert load_job(Settings(image="face.png", audio="voice.wav")).prompt == PROMPT
    assert "Give --audio, or --input_json FILE" in refusal(Settings(image="face.png"))


def test_a_named_json_is_read_even_then(folder):
    assert "does not exist" in refusal(Settings(input_json="no.json", image="face.png", audio="voice.wav", prompt="p"))


def test_paths_are_looked_up_here_then_beside_the_json_then_above_it(folder):
    entries = {**ENTRIES, "cond_video": "assets/face.png"}
    settings = write(entries, "pack/assets/job.json")
    above = folder / "pack" / "assets" / "face.png"
    beside = folder / "pack" / "assets" / "assets" / "face.png"
    here = folder / "assets" / "face.png"
    assert "cond_video" in refusal(settings)
    for file in (above, beside, here):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        assert load_job(settings).reference.resolve() == file


def test_the_bundled_example_is_complete_from_anywhere(folder):
    job = load_job(Settings(input_json=BUNDLED / "single_example_image.json"))
    assert job.reference.is_file() and job.speech.is_file() and job.prompt
    assert str(BUNDLED) in refusal(Settings(input_json="there/single_example_image.json"))


def test_the_guides_example_shows_a_drawn_person(folder):
    job = load_job(Settings(input_json=GUIDES_EXAMPLE))
    assert job.reference.resolve() == (BUNDLED / "drawn_portrait.png").resolve() and job.speech.is_file()


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"promt": "p"}, "unknown entry 'promt'; did you mean 'prompt'?"),
        ({**ENTRIES, "colour": 1}, "known are prompt, "),
        ({**ENTRIES, "cond_audio": {"person_1": "voice.wav"}}, "did you mean 'person1'?"),
        ({**ENTRIES, "bbox": {"person2": [0, 0, 5, 5]}}, "must have a box for each of person1"),
        ({**ENTRIES, "bbox": {"person1": [5, 0, 5, 9]}}, "the box [5, 0, 5, 9] is none"),
        ({**ENTRIES, "audio_type": "mix", "cond_audio": TWO}, "audio_type in job.json is 'mix'"),
        ({**ENTRIES, "cond_audio": {"person2": "voice.wav"}}, "lacks the entry 'person1'"),
        ({**ENTRIES, "cond_audio": "voice.wav"}, 'like {"person1": "a.wav"} expected'),
        ({**ENTRIES, "cond_audio": {"person1": 1}}, "'person1' in job.json is 1, a text expected"),
        ({**ENTRIES, "cond_video": "no.png"}, "cond_video in job.json is 'no.png', which is not a file"),
        ({**ENTRIES, "prompt": None}, "'prompt' in job.json is None, a text expected"),
        ({"prompt": "p", "cond_video": "face.png"}, "lacks the entry 'cond_audio'; add it or give --audio"),
        ({"prompt": "p", "cond_audio": {"person1": "voice.wav"}}, "lacks the entry 'cond_video'"),
        ([ENTRIES], "holds a list"),
        ("{", "is not JSON in UTF-8"),
    ],
)
def test_what_is_wrong_with_the_json_is_said(folder, entries, sentence):
    assert sentence in refusal(write(entries))


def test_a_byte_order_mark_is_no_obstacle(folder):
    settings = write(ENTRIES)
    Path("job.json").write_bytes(b"\xef\xbb\xbf" + Path("job.json").read_bytes())
    assert load_job(settings).prompt == "Someone talks."


@pytest.mark.parametrize(("flag", "value"), [("image", "no.png"), ("video", "no.mp4"), ("audio", "."), ("image", ".")])
def test_a_flag_must_name_a_file(folder, flag, value):
    assert f"--{flag}: {value} " in refusal(Settings(**{flag: value}))


JOB = Job(Path("face.png"), Path("voice.wav"), "A cat / a dog:\n talks, " + "\N{SNOWMAN}\u732b" + "x" * 80)
NOW = datetime(2025, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(("given", "path"), [("out", "out.mp4"), ("out.MP4", "out.MP4"), ("v1.5", "v1.5.mp4")])
def test_the_video_is_an_mp4(folder, given, path):
    assert output_path(Settings(save_file=given), JOB, NOW) == Path(path)


def test_without_a_name_size_prompt_and_time_make_one(folder):
    path = output_path(Settings(size="832x480"), JOB, NOW)
    assert path.name.startswith("infinitetalk-14B_832x480_A_cat_a_dog_talks_\u732bx")
    assert path.name.endswith("x_20250102_030405.mp4") and len(path.name) < 120
    path.write_bytes(b"")
    assert output_path(Settings(), Job(Path(), Path(), "///"), NOW).name.startswith(
        "infinitetalk-14B_infinitetalk-480_2"
    )


def test_what_cannot_be_written_is_refused_early(folder):
    assert output_path(Settings(save_file="new/folder/out"), JOB, NOW) == Path("new/folder/out.mp4")
    assert not Path("new").exists()
    Path("out.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="out.mp4 exists"):
        output_path(Settings(save_file="out"), JOB, NOW)
    assert output_path(Settings(save_file="out", overwrite=True), JOB, NOW) == Path("out.mp4")
    Path("dir.mp4").mkdir()
    with pytest.raises(InputError, match="dir.mp4 is a folder"):
        output_path(Settings(save_file="dir", overwrite=True), JOB, NOW)
    with pytest.raises(InputError, match="cannot write into"):
        output_path(Settings(save_file="out.mp4/b", overwrite=True), JOB, NOW)


def test_what_is_in_memory_lies_nowhere_and_hinders_no_name(folder):
    Path("out.mp4").write_bytes(b"")
    job = Job(Footage(torch.zeros(1, 2, 2, 3)), Sound(np.zeros((1, 9), np.float32), 16000), "p")
    assert output_path(Settings(save_file="out", overwrite=True), job, NOW) == Path("out.mp4")
    with pytest.raises(InputError, match="out.mp4 is what it is made from"):
        output_path(Settings(save_file="out", overwrite=True), replace(job, speech=Path("out.mp4")), NOW)


def test_a_video_that_is_to_be_written_has_a_name():
    assert path_to_write(Settings(save_file="out.mp4")) == Path("out.mp4")
    with pytest.raises(InputError, match="--save_file: it is left out"):
        path_to_write(Settings())


@pytest.mark.parametrize("name", ["x" * 240, "y" * 251, "/".join(["folder"] * 800)])
def test_names_that_are_too_long_are_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(InputError, match=r"--save_file: .*give another name"):
        check_beside(output_path(Settings(save_file=tmp_path / name), JOB, NOW), ())
    assert not list(tmp_path.iterdir())


def test_a_current_folder_that_was_removed_is_said(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="--save_file: cannot write into"):
        output_path(Settings(save_file="out"), JOB, NOW)
