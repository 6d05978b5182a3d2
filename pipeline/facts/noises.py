"""Where the noise of a run comes from, by the names of ``--noise``: a row for each, with all that is known of it
without PyTorch.

What draws it is in ``sampling/noise.py``, by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NoiseFacts:
    """One way to draw noise.

    Attributes:
        help: what it is, for people, after its name.
        any_device: whether every device gives the same (but for last bits between kinds of CPU).
        goes_on: whether a window's noise follows from all draws before it, so that a run that is gone on with needs
            the generator's state.
    """

    name: str
    help: str
    any_device: bool = True
    goes_on: bool = False


_ROWS = (
    NoiseFacts("window", "follows from the seed and the window"),
    NoiseFacts("kijai", "is that of ComfyUI-WanVideoWrapper", goes_on=True),
    NoiseFacts("comfy", "that of ComfyUI's own samplers, one of them for each window"),
    NoiseFacts("comfy_counting", "the same with the next seed for each window, as of the node Core Sampler"),
    NoiseFacts(
        "upstream",
        "that of MeiGen's script, which another model of card draws otherwise",
        any_device=False,
        goes_on=True,
    ),
)
NOISES: Mapping[str, NoiseFacts] = {row.name: row for row in _ROWS}


def noises_help() -> str:
    """One line about all of them."""
    return "whose noise is drawn: " + "; ".join(f"{row.name} {row.help}" for row in _ROWS)
