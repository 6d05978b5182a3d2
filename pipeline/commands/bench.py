"""``infinitetalk bench``: what one's own card can do, in about two minutes and without weights; ``timing`` does it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InputError
from ..parallel.launch import processes, start
from ..settings.flags import Parser
from .console import note, say

if TYPE_CHECKING:
    from ..parallel.cards import Cards


def parser() -> Parser:
    """The flags of the command."""
    found = Parser(
        "infinitetalk bench",
        "[--gpus N]",
        "Times attention, transformer blocks and the VAE at the real sizes with random weights, and tells what a\n"
        "window of each preset would take here. About two minutes; needs no weights and a few gigabytes.",
    )
    found.add_argument("--gpus", type=int, default=1, metavar="N", help="what N cards would take together")
    return found


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.gpus < 1:
        raise InputError(f"--gpus: {args.gpus} found, at least 1 expected.")
    if args.gpus > 1 and processes() == 1:
        start(["bench"], args.gpus)
        return 0
    if processes() > 1:
        from .together import work

        work("auto", _together)
    from ..planning.machine import choose_device
    from .timing import describe, measure, usual_sizes

    device = choose_device("auto")
    say(describe(measure(device, usual_sizes(device), lambda text: note(f"timing {text}"))))
    return 0


def _together(cards: Cards) -> str:
    """What the first card can do, and all of them by the links that were measured between them."""
    from .timing import describe, measure, usual_sizes

    if not cards.first:
        return ""
    measured = measure(cards.device, usual_sizes(cards.device), lambda text: note(f"timing {text}"))
    return describe(replace(measured, cards=cards.count, rates=cards.rates))
