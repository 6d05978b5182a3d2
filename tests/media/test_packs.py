"""Speech as ComfyUI-WanVideoWrapper hears it: torchaudio's resampling, the first channel, cut before it is measured."""

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.facts.packs import PACKS
from infinitetalk.pipeline.media.audio import Sound, frame_count
from infinitetalk.pipeline.media.speech import speech_for_model, speech_length
from infinitetalk.pipeline.models.speech_encoder import features_from_tensor
from infinitetalk.tests.golden.speech import speech_like


def heard_there(samples, rate, frames):
    """MultiTalkWav2VecEmbeds up to the feature extractor."""
    import pyloudnorm
    from torchaudio.functional import resample

    speech = torch.from_numpy(samples) if rate == 16_000 else resample(torch.from_numpy(samples), rate, 16_000)
    speech = speech[0][: int(frames / 25 * 16_000)].numpy()
    loudness = pyloudnorm.Meter(16_000).integrated_loudness(speech)
    return pyloudnorm.normalize.loudness(speech, loudness, -23.0)


@pytest.mark.parametrize("rate, frames", [(44_100, 30), (16_000, 1000), (22_050, 47)])
def test_kijais_speech(rate, frames):
    pytest.importorskip("torchaudio", reason="needs the package torchaudio")
    louder = np.linspace(0.2, 1, int(2.3 * rate))  # so that the part that is measured matters
    samples = np.stack([speech_like(2.3, rate, seed) * louder for seed in (0, 1)]).astype(np.float32)
    expected = heard_there(samples, rate, frames)
    found = speech_for_model(Sound(samples, rate), PACKS["kijai"], frames)
    assert len(found) == len(expected) == speech_length(Sound(samples, rate), PACKS["kijai"], frames)
    assert frame_count(len(found)) == min(frames, 57)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(speech_for_model(Sound(samples, rate))[: len(found)] - found).max() > 0.01


def test_the_last_frame_may_be_heard_to_the_end():
    frames = torch.arange(6.0)[:, None, None].expand(6, 2, 3)
    silent = features_from_tensor(frames, torch.full((2, 2, 3), -1.0))
    assert silent.windows(4, 9)[:, 2, 0, 0].tolist() == [4, 5, -1, -1, -1]
    assert silent.holding_last().windows(4, 9)[:, 2, 0, 0].tolist() == [4, 5, 5, 5, 5]
