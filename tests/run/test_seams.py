"""Even seams: the pieces of a window against the formula on the whole of it."""

import pytest
import torch
from infinitetalk.pipeline.run.seams import even_seam

FRAMES = 21
CUTS = {"as the VAE's": [1, 4, 4, 4, 4, 4], "one by one": [1] * 21, "uneven": [3, 1, 7, 2, 8], "whole": [21]}


def random_frames(count, seed):
    return torch.rand(3, count, 4, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("motion", "count"), [(9, 4), (7, 3), (1, 20), (5, 1), (20, 1), (9, 12), (13, 30)])
def test_pieces_are_shifted_as_the_formula_says(cuts, motion, count):
    window, previous = random_frames(FRAMES, 1), random_frames(1, 2)[:, 0]
    expected = window.clone()
    missing = previous - window[:, motion - 1]
    for j in range(min(count, FRAMES - motion)):
        expected[:, motion + j] = (window[:, motion + j] + missing * (1 - (j + 1) / (count + 1))).clamp(-1, 1)
    before = window.clone()
    pieces = list(even_seam(window.split(cuts, dim=1), previous, motion, count))
    assert [piece.shape[1] for piece in pieces] == cuts
    made = torch.cat(pieces, dim=1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    last = min(motion + count, FRAMES)
    assert torch.equal(made[:, :motion], window[:, :motion]) and torch.equal(made[:, last:], window[:, last:])
    assert not torch.equal(made[:, motion:last], window[:, motion:last])
    assert torch.equal(window, before)  # nobody else's frames are written to


@pytest.mark.parametrize("given", [(None, 4), (torch.zeros(3, 4, 6), 0)])
def test_a_first_window_and_no_frames_leave_the_pieces_themselves(given):
    previous, count = given
    pieces = random_frames(FRAMES, 1).split(4, dim=1)
    assert all(one is other for one, other in zip(even_seam(pieces, previous, 9, count), pieces, strict=True))


def test_pieces_leave_as_they_come():
    taken = []
    pieces = (taken.append(number) or random_frames(4, number) for number in range(5))
    evened = even_seam(pieces, torch.zeros(3, 4, 6), 9, 4)
    for number in range(5):
        next(evened)
        assert taken == list(range(number + 1))
