"""Voices out of mixes: the numbers of ComfyUI's AudioSeparation node and of Kijai's Mel-Band RoFormer node."""

import math

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.media import sinc
from infinitetalk.pipeline.media.audio import Sound
from infinitetalk.pipeline.models.voice import demucs
from infinitetalk.pipeline.models.voice.demucs import SOURCES, Demucs, spans_of
from infinitetalk.pipeline.models.voice.mel_band import MelBand
from infinitetalk.pipeline.models.voice.separator import load_separator, stored, voice_in
from infinitetalk.tests.golden.recipe import random_tensor, read_golden
from infinitetalk.tests.golden.voice import EVERY, SOUNDS, mix, simple
from infinitetalk.tests.support.places import DATA
from infinitetalk.tests.support.voice_files import write_demucs, write_mel_band

GOLDEN, _ = read_golden(DATA / "voice.safetensors")


def voice_of(separator, samples, rate):
    return stored(separator.voice(Sound(samples, rate)), separator.sample_rate, "the voice").samples


@pytest.mark.parametrize("rates", [(48_000, 44_100), (44_100, 16_000), (8_000, 44_100), (44_100, 44_100)])
def test_resampling_is_torchaudios(rates):
    torchaudio = pytest.importorskip("torchaudio", reason="needs the package torchaudio")
    sound = random_tensor("sound", (2, 10_007))
    blocks = [block.numpy() for block in sound.split(1_001, dim=1)]
    for exact, oracle in ((False, torchaudio.functional.resample), (True, torchaudio.transforms.Resample)):
        expected = oracle(sound, *rates) if not exact else oracle(*rates)(sound)
        found = np.concatenate(list(sinc.resample(blocks, *rates, exact_kernel=exact)), axis=1)
        assert found.shape == expected.shape == (2, sinc.resampled_length(10_007, *rates))
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("number", range(len(SOUNDS)))
def test_mel_band_cuts_and_adds_as_kijais_node(number):
    seconds, rate, channels = SOUNDS[number]
    found = voice_of(MelBand(simple, "cpu"), mix(seconds, rate, channels), rate)
    assert found.shape == (2, math.ceil(seconds * 44_100))
    np.testing.assert_allclose(found[:, ::EVERY], GOLDEN[f"sound {number}"].numpy(), rtol=0, atol=1e-6)


def test_mel_band_computes_what_kijais_network_does(tmp_path):
    file = write_mel_band(tmp_path / "MelBandRoformer_fp16.safetensors")
    separator = load_separator(file, "cpu")
    with torch.no_grad():
        found = separator._model(torch.from_numpy(mix(2.0, 44_100, 2)))
    expected = GOLDEN["network"]
    assert (found[:, ::EVERY] - expected).abs().max() < 2e-3 * expected.abs().max()  # half precision in the file
    assert expected.std() > 0.01


class Simple(torch.nn.Module):
    """A network in HDemucs's place: each source is another."""

    def forward(self, sound):
        return torch.stack([simple(sound) * (number + 1) for number in range(len(SOURCES))], dim=1)


def separated_at_once(samples, rate):
    """What the node does, with the whole sound in arrays: torchaudio's tutorial on Hybrid Demucs."""
    from torchaudio.transforms import Fade, Resample

    sound = torch.from_numpy(samples)
    sound = sound if len(sound) == 2 else sound[:2].mean(dim=0, keepdim=True).repeat(2, 1)
    sound = Resample(rate, 44_100)(sound)
    level = sound.mean(dim=0)
    sound = (sound - level.mean()) / level.std()
    length, start, end = sound.shape[1], 0, 485_100
    fade = Fade(0, 4_410, "linear")
    voice = torch.zeros_like(sound)
    while start < length - 4_410:
        voice[:, start:end] += fade(Simple()(sound[None, :, start:end])[0, SOURCES.index("vocals")])
        start += 480_690 if start == 0 else 485_100
        end += 485_100
        fade = Fade(4_410, 0 if end >= length else 4_410, "linear")
    return voice * level.std() + level.mean()


@pytest.mark.parametrize("seconds, rate, channels", [(2.0, 16_000, 1), (11.05, 44_100, 2), (22.3, 44_100, 3)])
def test_demucs_cuts_and_adds_as_the_node(seconds, rate, channels):
    pytest.importorskip("torchaudio", reason="needs the package torchaudio")
    samples = mix(seconds, rate, channels)
    found = voice_of(Demucs(Simple(), "cpu"), samples, rate)
    np.testing.assert_allclose(found, separated_at_once(samples, rate).numpy(), rtol=0, atol=2e-6)


def test_chunks_are_eleven_seconds_then_eleven_and_a_tenth():
    lengths = [span.stop - span.start for span in spans_of(30 * 44_100)]
    assert lengths == [485_100, 489_510, 489_510]
    assert [span.start for span in spans_of(30 * 44_100)] == [0, 480_690, 965_790]


def test_demucs_is_torchaudios_network_with_the_files_weights(tmp_path):
    torchaudio = pytest.importorskip("torchaudio", reason="needs the package torchaudio")
    file = write_demucs(tmp_path / "hdemucs_high_trained.pt")
    expected = torchaudio.models.HDemucs(list(SOURCES), channels=4, nfft=4096, depth=6).eval()
    expected.load_state_dict(torch.load(file, weights_only=True))
    sound = torch.from_numpy(mix(1.0, 44_100, 2))[None]
    with torch.no_grad():
        torch.testing.assert_close(load_separator(file, "cpu")._model(sound), expected(sound), rtol=0, atol=0)


def test_silence_stays_silence():
    assert not voice_of(Demucs(Simple(), "cpu"), np.zeros((1, 16_000), np.float32), 16_000).any()


class Counted(Sound):
    """Sound that counts how much of it was listened to."""

    def blocks(self):
        self.__dict__["samples_heard"] = 0
        for block in super().blocks():
            self.__dict__["samples_heard"] += block.shape[1]
            yield block


@pytest.mark.parametrize("separator", [Demucs(Simple(), "cpu"), MelBand(simple, "cpu")])
def test_no_more_of_a_long_sound_is_held_than_two_chunks(separator):
    sound = Counted(mix(40.0, 44_100, 1), 44_100)
    given = 0
    for piece in separator.voice(sound):
        given += piece.shape[1]
        assert sound.samples_heard - given < 2.5 * 489_510
    assert given == separator.length(sound) == 40 * 44_100


def test_a_voice_is_separated_when_it_is_heard_and_only_once(tmp_path, monkeypatch):
    file = write_mel_band(tmp_path / "voice.safetensors")
    voice = voice_in(Sound(mix(0.5, 44_100, 1), 44_100), file, "cpu")
    assert not voice.is_made and (voice.sample_rate, voice.channels, voice.num_samples) == (44_100, 2, 22_050)
    first = np.concatenate(list(voice.blocks()), axis=1)
    assert voice.is_made and first.shape == (2, 22_050)
    file.unlink()
    np.testing.assert_array_equal(np.concatenate(list(voice.blocks()), axis=1), first)


@pytest.mark.parametrize("name", ["mask_estimators.0.to_freqs.7.0.2.weight", "layers.1.0.layers.0.0.to_qkv.weight"])
def test_a_file_that_lacks_something_is_named(tmp_path, name):
    from safetensors.torch import load_file, save_file

    file = write_mel_band(tmp_path / "voice.safetensors")
    save_file({key: tensor for key, tensor in load_file(file).items() if key != name}, file)
    with pytest.raises(InputError, match=f"--separate_voice.*{name}"):
        load_separator(file, "meta")


def test_other_bands_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    file = write_mel_band(tmp_path / "voice.safetensors")
    rest = {key: tensor for key, tensor in load_file(file).items() if "to_features.59." not in key}
    save_file(rest, file)
    with pytest.raises(InputError, match="59 bands in another way"):
        load_separator(file, "meta")


def test_without_torchaudio_there_is_a_sentence(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchaudio.models", None)
    with pytest.raises(InputError, match="--separate_voice with Hybrid Demucs needs torchaudio"):
        demucs._network()
