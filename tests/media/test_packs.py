"""Speech as other packs hear it: ComfyUI-WanVideoWrapper (torchaudio's resampling, the first channel, cut before it is
measured) and ComfyUI's own nodes (at its loudness, features of 25 a second made last)."""

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.facts.packs import PACKS
from infinitetalk.pipeline.media.audio import Sound, frame_count
from infinitetalk.pipeline.media.speech import speech_for_model, speech_length
from infinitetalk.pipeline.models.image_encoder import _as_comfyui
from infinitetalk.pipeline.models.speech_encoder import Chunking, load_speech_encoder
from infinitetalk.pipeline.models.speech_features import features_from_tensor
from infinitetalk.tests.golden.core_run import sound
from infinitetalk.tests.golden.recipe import random_state, read_golden, reference_frames
from infinitetalk.tests.golden.speech import speech_like
from infinitetalk.tests.support.places import DATA
from safetensors.torch import save_file


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


def test_core_hears_a_quiet_sound_quietly_and_interpolates_behind_the_last_layer(tmp_path):
    expected, notes = read_golden(DATA / "core_inputs.safetensors")
    path = tmp_path / "wav2vec2.safetensors"
    save_file(random_state(notes["shapes"]), path)
    samples, rate = sound()
    speech = speech_for_model(Sound(samples, rate), PACKS["comfy"])
    features = load_speech_encoder(path).encode(speech, PACKS["comfy"])
    assert features.num_frames == len(expected["features"])
    found = features.windows(0, features.num_frames)[:, 2]
    assert (found - expected["features"]).abs().max() < 1e-4 * expected["features"].abs().max()
    loud = load_speech_encoder(path).encode(speech_for_model(Sound(samples, rate)))
    assert (loud.windows(0, features.num_frames)[:, 2] - found).abs().max() > 0.01


@pytest.mark.parametrize("crop", ["center", "none"])
def test_core_shows_clip_the_middle_or_all(crop):
    pixels = torch.from_numpy(reference_frames(1, 70, 100)).float().permute(0, 3, 1, 2) / 255
    found = _as_comfyui(pixels, 224, crop == "center")[0, :, ::3, ::3]
    assert (found - read_golden(DATA / "core_inputs.safetensors")[0][f"clip.{crop}"]).abs().max() < 1e-6


def test_long_speech_is_interpolated_at_the_positions_of_the_whole(tmp_path):
    path = tmp_path / "wav2vec2.safetensors"
    save_file(random_state(read_golden(DATA / "core_inputs.safetensors")[1]["shapes"]), path)
    encoder = load_speech_encoder(path)
    speech = speech_like(6.0, 16_000, 3).astype(np.float32)
    whole = encoder.encode(speech, PACKS["comfy"]).windows(0, 149)
    encoder.chunking = Chunking(whole=50, core=40, context=200)
    assert (encoder.encode(speech, PACKS["comfy"]).windows(0, 149) - whole).abs().max() < 1e-4 * whole.abs().max()


def test_beyond_the_end_core_hears_the_first_frame():
    frames = torch.arange(6.0)[:, None, None].expand(6, 2, 3)
    features = features_from_tensor(frames, None, repeats_first=True)
    assert features.windows(4, 9)[:, 2, 0, 0].tolist() == [4, 5, 0, 0, 0]
    assert features.windows(4, 9)[1, :, 0, 0].tolist() == [3, 4, 5, 0, 0]
    assert features.windows(3, 6)[2, :, 0, 0].tolist() == [3, 4, 5, 5, 5]  # a window that ends where the speech does


def test_the_last_frame_may_be_heard_to_the_end():
    frames = torch.arange(6.0)[:, None, None].expand(6, 2, 3)
    silent = features_from_tensor(frames, torch.full((2, 2, 3), -1.0))
    assert silent.windows(4, 9)[:, 2, 0, 0].tolist() == [4, 5, -1, -1, -1]
    assert silent.holding_last().windows(4, 9)[:, 2, 0, 0].tolist() == [4, 5, 5, 5, 5]
