"""Which cards compute what: arithmetic alone."""

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.parallel.division import Division, divide

HEADS = 40


@pytest.mark.parametrize(
    ("cards", "passes", "expected"),
    [
        (1, 3, Division()),
        (2, 1, Division(1, 2)),
        (2, 2, Division(2, 1)),
        (2, 3, Division(1, 2)),  # 2 + 1 would take as long as two passes, shared tokens take one and a half
        (3, 3, Division(3, 1)),
        (4, 2, Division(2, 2)),
        (4, 1, Division(1, 4)),
        (6, 3, Division(3, 2)),
        (8, 2, Division(2, 4)),
    ],
)
def test_passes_go_apart_as_far_as_they_go_evenly(cards, passes, expected):
    assert divide(cards, passes, HEADS) == expected


def test_the_settings_say_how_many_share_a_pass():
    assert divide(4, 2, HEADS, sequence=4) == Division(1, 4)
    assert divide(4, 3, HEADS, sequence=2) == Division(2, 2)
    with pytest.raises(InputError, match="there are 4 processes; their number must be a multiple"):
        divide(4, 1, HEADS, sequence=3)
    with pytest.raises(InputError, match="the model has 6 heads to share"):
        divide(8, 1, 6, sequence=8)
    with pytest.raises(InputError, match="8 cards cannot share a model of 6 heads"):
        divide(8, 1, 6)


@pytest.mark.parametrize("division", [Division(2, 1), Division(1, 2), Division(2, 2), Division(3, 2)])
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_every_pass_has_an_owner_and_every_card_its_groups(division, passes):
    for number in range(passes):
        group, place = division.owner(number)
        assert division.passes_of(group, passes)[place] == number
    for lists in (division.sequence_groups(), division.guidance_groups()):
        assert sorted(sum(lists, [])) == list(range(division.cards))
    for number, group in enumerate(division.sequence_groups()):
        assert {division.group(card) for card in group} == {number}
