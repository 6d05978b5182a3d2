"""Parts of recordings, speech laid out in time, and sums of sounds."""

import numpy as np
import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.job.speakers import Turn
from infinitetalk.pipeline.media.audio import Sound
from infinitetalk.pipeline.media.mixing import Mix, arranged, open_part


def sound(*values, rate=16_000):
    return Sound(np.array(values, np.float32), rate)


def noise(seconds, channels=1, rate=16_000, seed=0):
    return Sound(np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, int(seconds * rate))).astype("f4"), rate)


def whole(audio):
    return np.concatenate(list(audio.blocks()), axis=1)


def test_a_channel_of_a_recording():
    both = noise(6, channels=2)
    for number in range(2):
        part = open_part(both, number, None, None)
        assert np.array_equal(whole(part), both.samples[number : number + 1])
    with pytest.raises(InputError, match="has 2 channels, so there is none for speaker 3"):
        open_part(both, 2, None, None)


def test_turns_of_a_recording_are_heard_and_nothing_else():
    recording = noise(6, channels=2)
    part = open_part(recording, None, None, (Turn(1, 2), Turn(4, 9)))
    found, at = whole(part), np.arange(6 * 16_000) / 16_000
    inside = ((at > 1.006) & (at < 1.994)) | ((at > 4.006) & (at < 6))
    outside = (at < 1) | ((at > 2) & (at < 4))
    assert np.array_equal(found[:, inside], recording.samples[:, inside]) and not found[:, outside].any()
    assert part.digest() != recording.digest()
    with pytest.raises(InputError, match="begin after the end"):
        open_part(recording, None, None, (Turn(7, 8),))


def test_para_and_add():
    one, other = np.ones(5, np.float32), np.full(3, 2, np.float32)
    together, starts = arranged([one, other, None], together=True)
    assert [list(x) for x in together] == [[1] * 5, [2] * 3 + [0] * 2, [0] * 5] and starts == [0, 0, 0]
    after, starts = arranged([one, None, other], together=False)
    assert [list(x) for x in after] == [[1] * 5 + [0] * 3, [0] * 8, [0] * 5 + [2] * 3] and starts == [0, 5, 5]


def test_a_mix_is_the_sum():
    a, b = noise(5), noise(3, channels=2, seed=1)
    mix = Mix(((a, 0.0), (b, 2.5)))
    expected = np.zeros((2, int(5.5 * 16_000)), np.float32)
    expected[:, : 5 * 16_000] += a.samples
    expected[:, 40_000:] += b.samples
    assert (mix.channels, mix.num_samples) == (2, expected.shape[1])
    assert np.array_equal(whole(mix), expected)
    assert mix.digest() != Mix(((a, 0.0), (b, 2.4))).digest()


def test_a_mix_of_two_rates_has_the_higher_one():
    low, high = noise(2, rate=16_000), noise(1, rate=48_000, seed=1)
    mix = Mix(((low, 0.0), (high, 0.0)))
    assert (mix.sample_rate, mix.num_samples) == (48_000, 96_000)
    assert whole(mix).shape == (1, 96_000)
