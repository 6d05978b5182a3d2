"""Plans of several cards, predicted for machines that are not here."""

from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.commands.timing import transformer_size
from infinitetalk.pipeline.facts.model_sizes import WAN_14B
from infinitetalk.pipeline.facts.sizes import GIB
from infinitetalk.pipeline.parallel.division import Division, Rates, Speed, divide
from infinitetalk.pipeline.planning.memory import MARGIN, VaePlan, Workload, host_bytes, plan_memory
from infinitetalk.pipeline.planning.windows import tokens_per_window
from infinitetalk.pipeline.settings.presets import settings_with_preset
from infinitetalk.pipeline.settings.validation import resolve

BF16 = torch.bfloat16
FREE = int(23.2 * GIB)  # of an RTX 3090's 24 GiB, as its driver leaves them
PCIE = Rates(link=5e9, products=60e12)  # four RTX 3090, whose messages go by way of the host's memory
UNTOLD = {"num_persistent_param_in_dit": None, "blocks_to_swap": None, "offload_model": False, "vram_limit": None}
NVLINK = Rates(link=300e9, products=650e12)  # H200


def speed(rates, side=640):
    size = transformer_size(WAN_14B, quantised=False, itemsize=2)
    return Speed(rates, tokens_per_window(81, side, side), size.dim, size.blocks, size.block_parameters)


def division(rates, cards, passes, side=640):
    return divide(cards, passes, WAN_14B.num_heads, speed=speed(rates, side))


def test_four_cards_of_24_gb_hold_bf16_in_parts():
    settings = resolve(settings_with_preset("02_comfyui_equivalent", quant=None).replace(**UNTOLD))
    whole = transformer_size(WAN_14B, quantised=False, itemsize=2)
    work = Workload.of(settings, (640, 640), 2, division(PCIE, 4, 2))
    assert (work.tokens, work.passes, work.together) == (16_800, 1, 2)
    placement, memory = plan_memory(replace(whole, shares=4), settings, work, FREE, VaePlan(BF16, 2))
    assert placement.resident == 40 and memory.peak + MARGIN < FREE
    alone, _ = plan_memory(whole, settings, Workload.of(settings, (640, 640), 2), FREE, VaePlan(BF16, 2))
    assert alone.resident < 30


def test_what_does_not_stay_waits_in_host_memory_once():
    whole = transformer_size(WAN_14B, quantised=False, itemsize=2)
    settings = resolve(settings_with_preset("02_comfyui_equivalent", quant=None).replace(**UNTOLD))
    work = Workload.of(settings, (640, 640), 2, Division(2, 2))
    placement, memory = plan_memory(replace(whole, shares=4), settings, work, 8 * GIB, VaePlan(BF16, 4))
    assert placement.resident < 40 and memory.peak <= 8 * GIB
    each, all = host_bytes(replace(whole, shares=4), placement, False), host_bytes(whole, placement, False)
    assert 4 * each == pytest.approx(all, abs=4)


@pytest.mark.parametrize(
    ("rates", "cards", "passes", "side", "expected"),
    [
        (PCIE, 4, 1, 640, Division(1, 4)),
        (PCIE, 4, 2, 640, Division(2, 2)),
        (PCIE, 4, 3, 640, Division(1, 4)),
        (NVLINK, 2, 3, 640, Division(1, 2)),
        (NVLINK, 8, 2, 480, Division(2, 4)),
        (Rates(link=0.3e9, products=60e12), 2, 3, 480, Division(2, 1)),  # 2 + 1 rather than tokens over so slow a link
        (Rates(link=0.01e9, products=60e12), 2, 1, 480, Division(2, 1)),  # the same twice is sooner there
    ],
)
def test_the_division_follows_the_bandwidth(rates, cards, passes, side, expected):
    assert division(rates, cards, passes, side) == expected


def test_seconds_of_a_step_are_predicted():
    """Two H200 took 1.86 times less than one for a pass at 640x640, of which the messages are what is left."""
    found = speed(NVLINK)
    assert 1.7 < found.step(Division(), 1) / found.step(Division(1, 2), 1) < 2
    slow = speed(PCIE)
    assert 3 < slow.step(Division(), 1) / slow.step(Division(1, 4), 1) < 4
    assert slow.step(Division(2, 2), 2) < slow.step(Division(1, 4), 2)


def test_what_was_measured_decides_nothing_by_a_hair():
    """Around the link with which three passes on two cards take as long either way: (2 + 1), or tokens shared."""
    found = speed(Rates(link=1.0, products=60e12))
    even = 6 * found.exchange(2) / found.computing
    divisions = [division(Rates(even * factor, 60e12), 2, 3) for factor in (0.5, 0.9, 1.1, 2)]
    assert divisions == [Division(2, 1), Division(1, 2), Division(1, 2), Division(1, 2)]
