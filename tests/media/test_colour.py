"""Colour correction against upstream's, and its edges."""

import pytest
import torch
from infinitetalk.pipeline.media.colour import lab_statistics, match_colour
from infinitetalk.tests.golden.media import STRENGTHS, frames, reference
from infinitetalk.tests.golden.recipe import read_golden
from infinitetalk.tests.support.places import DATA

GOLDEN, _ = read_golden(DATA / "media.safetensors")


@pytest.mark.parametrize("strength", STRENGTHS)
def test_matches_upstream(strength):
    expected = GOLDEN[f"colour.{strength}"]
    assert (expected - frames()).abs().amax(dim=(0, 2, 3)).min() > 0.1  # each of the frames is really changed
    corrected = match_colour(frames(), lab_statistics(reference()), strength)
    torch.testing.assert_close(corrected, expected, rtol=0, atol=1e-3)


def test_strength_zero_returns_the_frames_themselves():
    source = frames()
    assert match_colour(source, lab_statistics(reference()), 0.0) is source


def test_a_frame_matched_to_itself_stays():
    frame = frames()[:, :1]
    torch.testing.assert_close(match_colour(frame, lab_statistics(frame[:, 0]), 1.0), frame, rtol=0, atol=1e-4)


def test_frames_do_not_depend_on_each_other():
    statistics = lab_statistics(reference())
    together = match_colour(frames(), statistics, 1.0)
    alone = [match_colour(frame[:, None], statistics, 1.0) for frame in frames().unbind(1)]
    assert torch.equal(together, torch.cat(alone, 1))


def test_a_large_window_goes_in_slices(monkeypatch):
    statistics = lab_statistics(reference())
    expected = match_colour(frames(), statistics, 0.5)
    monkeypatch.setattr("infinitetalk.pipeline.media.colour.PIXELS_AT_ONCE", 1)
    assert torch.equal(match_colour(frames(), statistics, 0.5), expected)


def test_a_grey_frame_gets_one_tint_not_specks():
    grey = frames()[:1, :1].expand(3, 1, -1, -1)
    corrected = match_colour(grey, lab_statistics(reference()), 1.0)
    order = grey[0, 0].flatten().argsort()
    steps = corrected[:, 0].flatten(1)[:, order].diff()
    assert steps.min() > -0.02  # lighter stays lighter, in every channel


def test_the_frames_type_is_kept():
    corrected = match_colour(frames().bfloat16(), lab_statistics(reference()), 1.0)
    assert corrected.dtype == torch.bfloat16
    torch.testing.assert_close(corrected[:, :1].float(), GOLDEN["colour.1.0"][:, :1], rtol=0, atol=0.05)


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        match_colour(frames(), lab_statistics(reference()), strength)
