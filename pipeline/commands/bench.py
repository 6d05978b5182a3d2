"""``infinitetalk bench``: what one's own card can do, in about two minutes and without weights; ``timing`` does it."""

from __future__ import annotations

import argparse

from ..settings.flags import Parser
from .console import note, say


def parser() -> Parser:
    """The flags of the command: none."""
    return Parser(
        "infinitetalk bench",
        "",
        "Times attention, transformer blocks and the VAE at the real sizes with random weights, and tells what a\n"
        "window of each preset would take here. About two minutes; needs no weights and a few gigabytes.",
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from ..planning.machine import choose_device
    from .timing import describe, measure, usual_sizes

    device = choose_device("auto")
    say(describe(measure(device, usual_sizes(device), lambda text: note(f"timing {text}"))))
    return 0
