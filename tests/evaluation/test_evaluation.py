"""What is measured on a video: right on drawn frames whose truth is known, wrong where they are spoilt."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.commands.evaluate import describe
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.evaluation.measures import evaluate_frames
from infinitetalk.pipeline.evaluation.opening import mouth_curves
from infinitetalk.pipeline.evaluation.reader import load_reader
from infinitetalk.pipeline.media.audio import open_audio
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.speech import speech_for_model
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.settings.demo import FACE_READER
from infinitetalk.tests.support.places import SPEECH
from infinitetalk.training import prompts
from infinitetalk.training.clips import draw_clip, make_scenes

FRAMES = 70


@pytest.fixture(scope="module")
def speech():
    return np.array(speech_for_model(open_audio(SPEECH)))[: FRAMES * 640]


@pytest.fixture(scope="module")
def frames(speech):
    """A drawn person, held out from all training, whose mouth moves by the rule."""
    scenes = make_scenes([960_003], torch.from_numpy(speech)[None], [prompts.SMILING], clean=True)
    return ((draw_clip(scenes, 0, 0, FRAMES) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def reader():
    return load_reader(FACE_READER)[0]


def test_a_perfect_video_measures_as_one(frames, speech, reader):
    result = evaluate_frames(frames, speech, reader)
    assert result.frames == FRAMES and result.best_lag == 0
    assert result.correlation > 0.98 and result.error < 0.06
    assert result.background_db > 45 and result.seam_ratio is None
    assert result.smile > 0.5 and abs(result.sorrow) < 0.25


def test_a_late_mouth_is_found_late(frames, speech, reader):
    late = np.concatenate([frames[:1].repeat(5, axis=0), frames[:-5]])
    result = evaluate_frames(late, speech, reader)
    assert result.best_lag == 5 and result.best_correlation > 0.95 > result.correlation


def test_a_mouth_that_rests_is_not_in_step(frames, speech, reader):
    result = evaluate_frames(frames[:1].repeat(FRAMES, axis=0), speech, reader)
    assert abs(result.correlation) < 0.3 and result.motion < 0.01


def test_colours_background_and_seams_that_go_wrong_are_seen(frames, speech, reader):
    spoilt = frames.astype(np.int16)
    spoilt[35:, :, :, 0] += 12
    result = evaluate_frames(spoilt.clip(0, 255).astype(np.uint8), speech, reader, seams=[35])
    assert 6 < result.colour_drift < 13
    assert result.background_db < 35
    assert result.seam_ratio > 2
    assert "1, too few to tell" in describe(result, {})
    many = dataclasses.replace(result, seams=5)
    assert f"5, with {result.seam_ratio:.2f} times as much change" in describe(many, {})


def test_silence_closes_the_mouth_and_level_does_not_matter():
    times = torch.arange(32_000) / 16_000
    tone = 0.3 * torch.sin(2 * torch.pi * 300 * times)
    tone[16_000:] = 0
    opening, width = mouth_curves(torch.stack([tone, tone * 0.25]))
    assert opening.shape == width.shape == (2, 50)
    assert opening[0, 3:22].min() > 0.8 and opening[0, 33:].max() < 0.02
    torch.testing.assert_close(opening[0], opening[1], rtol=0, atol=0.02)
    assert mouth_curves(torch.zeros(1, 32_000))[0].max() == 0


@pytest.fixture
def video(tmp_path, frames):
    path = tmp_path / "talking.mp4"
    with VideoWriter(path, VideoFormat(*frames.shape[1:3], crf=12), open_audio(SPEECH)) as writer:
        writer.write_window(torch.from_numpy(frames))
        writer.finish()
    return path


def test_the_command_tells_writes_and_draws(video, tmp_path, capsys):
    numbers, picture = tmp_path / "numbers.json", tmp_path / "curves.png"
    words = ["evaluate", str(video), str(SPEECH), "--json", str(numbers), "--picture", str(picture)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "at lag 0 over 70 frames" in told and "whose own mean error is" in told
    found = json.loads(numbers.read_text())
    assert found["correlation"] > 0.95 and len(found["seen"]) == len(found["spoken"]) == 70
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "required: VIDEO, AUDIO; usage: infinitetalk evaluate VIDEO AUDIO"),
        (["a.mp4", "b.wav", "--json"], "--json: expected one argument"),
        (["a.mp4", "b.wav", "--colour"], "--colour is not a flag"),
        (["a.mp4", "b.wav", "--picture", "c.jpg"], "should end in .png"),
        (["a.mp4", "b.wav", "--json", "nowhere/c.json"], "the folder of"),
        (["missing.mp4", "b.wav"], "missing.mp4 does not exist"),
        ([str(SPEECH), "b.wav"], "is not a video that can be read"),
    ],
)
def test_bad_words_get_a_sentence(words, sentence, capsys):
    assert main(["evaluate", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
