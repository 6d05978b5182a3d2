"""What users are told of inputs that work, but not as they would hope."""

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.job.job import Job
from infinitetalk.pipeline.media.audio import Heard, Sound, open_audio
from infinitetalk.pipeline.media.reference import Footage, open_reference
from infinitetalk.pipeline.media.speech import speech_for_model
from infinitetalk.pipeline.planning.notices import picture_notices, short_notice, sound_notices
from infinitetalk.pipeline.planning.windows import window_plan
from infinitetalk.tests.media.test_tracks import film, tone
from infinitetalk.tests.support.places import ASSETS, PORTRAIT


def of_sound(source):
    audio = open_audio(source)
    return sound_notices(audio, speech_for_model(audio))


def of_picture(source, size, drawn_only=False):
    return picture_notices(Job(source, Sound(tone(1.0, 16_000), 16_000), "p"), open_reference(source), size, drawn_only)


def blank(height, width):
    return Footage(torch.zeros(1, height, width, 3))


def test_ordinary_inputs_are_not_talked_about():
    assert of_sound(Sound(tone(1.0, 16_000, 2), 16_000)) == ()
    assert of_picture(blank(400, 400), (640, 640)) == ()


def test_silence_and_faint_speech_are_two_warnings():
    (silent,) = of_sound(Sound(np.zeros((1, 16_000), np.float32), 16_000, "a.wav"))
    (faint,) = of_sound(Sound(tone(1.0, 16_000) * np.float32(5e-4), 16_000, "a.wav"))
    assert silent.startswith("a.wav is silent") and "below -70 LUFS" in faint


def test_opposite_phase_is_said_and_not_called_silence():
    left = tone(1.0, 16_000)
    (told,) = of_sound(Sound(np.concatenate([left, -left]), 16_000, "a.wav"))
    assert "a.wav are in opposite phase" in told


def test_the_track_that_is_not_silent_is_offered_by_name(tmp_path):
    silence = np.zeros((1, 48_000), np.float32)
    path = film(tmp_path / "a.mkv", [silence, silence, tone(1.0, 48_000)], titles=("Game", "Music", "Voice"))
    (told,) = of_sound(path)
    assert (
        f"The track of {path} that is used is silent" in told
        and "track 3 (Voice) is not" in told
        and "-map 0:a:2" in told
    )


def test_what_was_left_out_of_a_damaged_file_is_said():
    audio = Sound(tone(1.0, 16_000), 16_000, "a.mp3", Heard(lost=3, is_cut=True, passed_over=("track 1: no decoder",)))
    told = " ".join(sound_notices(audio, speech_for_model(audio)))
    assert "3 packets" in told and "further than 1.00 s" in told and "track 1: no decoder" in told


@pytest.mark.parametrize(
    ("source", "size", "words"),
    [
        ((200, 200), (640, 640), ["only 200x200"]),
        ((400, 900), (640, 640), ["left and right"]),
        ((1800, 800), (480, 832), ["74% of it is cut off at top and bottom"]),
        ((600, 800), (600, 640), []),
    ],
)
def test_small_and_cropped_pictures(source, size, words):
    told = of_picture(blank(*source), size)
    assert len(told) == len(words) and all(word in text for word, text in zip(words, told, strict=True))


def test_the_demo_model_says_what_it_knows():
    (told,) = of_picture(PORTRAIT, (192, 192), drawn_only=True)
    assert "drawn faces only" in told
    assert (
        of_picture(PORTRAIT, (192, 192)) == of_picture(ASSETS / "drawn_portrait.png", (192, 192), drawn_only=True) == ()
    )


@pytest.mark.parametrize(
    ("frames", "motion", "words"),
    [(10, 9, "--frame_num 13 "), (1, 1, "--frame_num 5 "), (3, 9, "--frame_num 13 "), (70, 9, None), (82, 9, None)],
)
def test_a_word_says_what_a_window_costs(frames, motion, words):
    told = short_notice(window_plan(frames, 81, motion), motion)
    assert bool(told) == (words is not None) and all(words in text and f"{frames} frames" in text for text in told)
