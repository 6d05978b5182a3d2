"""Long sound takes no more memory than short: whole ways in a process of their own, whose peak is measured."""

import re
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.media.audio import SAMPLE_RATE, frame_count, open_audio
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.speech import speech_for_model
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.models.speech_encoder import SpeechEncoder
from infinitetalk.pipeline.planning.windows import window_plan
from infinitetalk.tests.golden.encoders import random_weights
from infinitetalk.tests.golden.speech import BASE, speech_like
from infinitetalk.tests.support.forks import FORKS
from transformers import Wav2Vec2Config, Wav2Vec2Model

GIGABYTE = 1000  # MB


def save_long_wav(path, minutes, sample_rate, channels):
    """The same voice again and again, each minute at another level."""
    minute = np.tile(speech_like(6, sample_rate) * 2**14, 10).clip(-(2**15), 2**15 - 1)
    levels = np.random.default_rng(0).uniform(0.2, 1, minutes)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        for level in levels:
            file.writeframesraw(np.repeat((level * minute).astype("<i2"), channels).tobytes())
    return path


def peak():
    """The most memory that this process has had, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count the process that this one was forked from
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def all_features(encoder, path):
    """Ask for the features of every window of a video, as the streaming loop does. Returns the windows' number."""
    speech = speech_for_model(open_audio(path))
    features = encoder.encode(speech)
    spans = window_plan(frame_count(speech.size), frame_num=81, motion_frame=9)
    for span in spans:
        windows = features.windows(span.start, span.stop)
        assert windows.isfinite().all()
        assert windows.std() > 0.1
    return len(spans)


def small_encoder():
    model = Wav2Vec2Model(Wav2Vec2Config(**BASE)).eval()
    model.load_state_dict(random_weights({name: list(value.shape) for name, value in model.state_dict().items()}))
    return SpeechEncoder(model)


def encode_all(*paths):
    encoder = small_encoder()
    encoder.encode(speech_like(10, SAMPLE_RATE).astype(np.float32)).windows(0, 250)
    work = {"samples": 0, "features": 0}  # that have gone through the two parts of the network

    def count(kind, size):
        work[kind] += size

    encoder.model.feature_extractor.register_forward_pre_hook(lambda _, args: count("samples", args[0].numel()))
    encoder.model.encoder.register_forward_pre_hook(lambda _, args: count("features", args[0].shape[1]))
    yield {"peak": peak()}
    for path in paths:
        work.update(samples=0, features=0)
        yield {"windows": all_features(encoder, path), **work, "peak": peak()}


def write_all(*paths):
    """A video of one small frame a second with each sound."""
    for path in paths:
        audio = open_audio(path)
        speech_for_model(audio)
        with VideoWriter(path.with_suffix(".mp4"), VideoFormat(16, 16, fps=1), audio) as writer:
            writer.write_window(torch.zeros(round(audio.seconds), 16, 16, 3, dtype=torch.uint8))
            writer.finish()
        yield {"peak": peak()}


def tell(what, paths, told):
    torch.set_num_threads(1)
    told.send(list(what(*paths)))


def measured(what, *paths):
    """What ``encode_all`` or ``write_all`` say in a process of their own."""
    told, telling = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=tell, args=(what, paths, telling))
    process.start()
    telling.close()
    said = told.recv()
    process.join()
    print(what.__name__, said)  # for who wants to see: pytest -rP
    return said


@pytest.mark.parametrize(
    ("minutes", "times", "windows"), [(3, 2, (63, 125)), pytest.param(10, 6, (209, 1250), marks=pytest.mark.long)]
)
def test_long_speech(tmp_path, minutes, times, windows):
    """Planned, and all its features made: an hour within 1 GB, with work that grows linearly."""
    paths = [save_long_wav(tmp_path / f"{length}.wav", length, 8000, 1) for length in (minutes, times * minutes)]
    start, short, long = measured(encode_all, *paths)
    assert (short["windows"], long["windows"]) == windows
    assert long["peak"] - start["peak"] < GIGABYTE
    on_disk = (times - 1) * minutes * 60 * SAMPLE_RATE * 4 / 1e6  # pages of the temporary file that have been read
    assert long["peak"] - short["peak"] < 1.3 * on_disk + (times < 6) * 20  # what is there but once is 10 of these MB
    for work, least in (("samples", minutes * 60 * SAMPLE_RATE), ("features", minutes * 60 * 25)):
        assert least < short[work] < long[work] < 1.05 * times * short[work]


@pytest.mark.long
def test_the_original_sound_of_an_hour(tmp_path):
    """Stereo at 48 kHz, decoded three times, the last time into the video: an hour would grow by less than 1 GB."""
    paths = [save_long_wav(tmp_path / f"{minutes}.wav", minutes, 48_000, 2) for minutes in (1, 2, 3)]
    _, short, long = measured(write_all, *paths)
    assert (long["peak"] - short["peak"]) * 60 < GIGABYTE


def test_speech_on_disk_has_the_features_of_speech_in_memory(tmp_path):
    speech = speech_for_model(open_audio(save_long_wav(tmp_path / "sound.wav", 3, 8000, 1)))
    encoder = small_encoder()
    on_disk, in_memory = (encoder.encode(samples).windows(1450, 1550) for samples in (speech, np.array(speech)))
    assert torch.equal(on_disk, in_memory)
