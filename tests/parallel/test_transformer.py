"""One step of a small transformer on two and four processes, beside one."""

import pytest
import torch
from infinitetalk.tests.parallel.on_cards import differences, sharded_and_tiled
from infinitetalk.tests.support.several import in_processes


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_cards_compute_what_one_computes(count):
    everyone = in_processes(count, differences)
    first = everyone[0]
    worst, computed = first.pop("teacache")
    assert worst < 1e-4 and computed == 6
    for (division, passes, size), (equal, velocities) in first.items():
        assert equal or division[1] > 1, (division, passes, size)  # bit for bit where passes are whole
        for other in everyone[1:]:
            assert torch.equal(other[division, passes, size][1], velocities)


def test_parts_of_blocks_and_tiles_of_the_vae_on_several_cards_change_no_bit():
    for parts, tiles in in_processes(3, sharded_and_tiled):
        assert len(parts) == 9 and all(parts.values()), parts
        assert tiles == {1: True, 2: True, 3: True, 4: True}
