"""The ways of ``--color_method``: a row for each, with all that is known of it without PyTorch.

What computes them is in ``media/colour.py`` (lab) and ``media/colour_transfer.py``, by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ColourFacts:
    """One way of pulling a frame's colours to the reference's.

    Attributes:
        help: what it is, for people, after its name.
        first: whether the reference is the first window's for all windows, rather than that of each window.
        color_matcher: methods of the package color-matcher that it stands for, as ComfyUI-WanVideoWrapper calls it.
        exactness: how near it comes to them, for people.
    """

    name: str
    help: str
    first: bool = False
    color_matcher: tuple[str, ...] = ()
    exactness: str = ""


_ROWS = (
    ColourFacts("lab", "is upstream's: mean and spread in CIE L*a*b*", first=True),
    ColourFacts(
        "mkl",
        "maps the covariance of a frame's colours to the reference's",
        color_matcher=("default", "mkl", "mvgd"),
        exactness="within 1e-5 of full scale",
    ),
    ColourFacts(
        "hm",
        "gives each channel the reference's histogram",
        color_matcher=("hm",),
        exactness="the same for the same frame; where many pixels are equal, as in clipped whites, the last bits of a "
        "frame decide up to a fifth of full scale",
    ),
    ColourFacts(
        "hm-mkl-hm",
        "is hm, mkl and hm again",
        color_matcher=("hm-mkl-hm", "hm-mvgd-hm"),
        exactness="as hm",
    ),
)
COLOURS: Mapping[str, ColourFacts] = {row.name: row for row in _ROWS}
# reinhard takes logarithms of negative numbers as ComfyUI-WanVideoWrapper calls it: every frame becomes NaN
BROKEN = ("reinhard",)


def colours_help() -> str:
    """One line about all of them."""
    told = "; ".join(f"{row.name} {row.help}" for row in COLOURS.values())
    return f"how colours are pulled: {told}"
