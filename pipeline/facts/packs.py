"""The packs of ``--pack``: what each does to speech, picture and frames apart from sampling, a row for each.

What a graph was made with decides small things that add up to another video. The code is where each thing is done;
noise, solvers, colours and resizing have settings of their own. Imports no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PackFacts:
    """One pack.

    Attributes:
        help: what it is, for people, after its name.
        first_channel: whether the first channel is heard, rather than the mean of all.
        sinc: whether sound is resampled as torchaudio does, rather than by soxr.
        cut_first: whether speech beyond the longest video is cut off before its loudness is measured.
        loudness: whether speech is brought to -23 LUFS.
        late_features: whether features are brought to 25 a second behind the last layer of wav2vec2, which hears base
            models' samples as they are, and whether the first of them are heard again beyond the end of the speech.
        late_silence: whether only the last of several windows hears silence behind the end of the speech, the end of
            what is stored of it; the others hear its last frame.
        plain_samples: whether a speech encoder whose folder does not say hears samples as they are, rather than with
            zero mean and unit variance.
        clip_centre: whether CLIP sees the middle of the picture, in 8 bits and antialiased, rather than all, squeezed.
        clip_before_fit: whether CLIP sees the picture as it is before the last step of --resize.
        holds_seen: whether the motion frames are held in what the model sees alone, and not for the solver.
        unclamped: whether decoded frames may exceed the range until they are written.
        differs: what of it is not the same here, for people.
    """

    name: str
    help: str
    first_channel: bool = False
    sinc: bool = False
    cut_first: bool = False
    loudness: bool = True
    late_features: bool = False
    late_silence: bool = False
    plain_samples: bool = False
    clip_centre: bool = False
    clip_before_fit: bool = False
    holds_seen: bool = False
    unclamped: bool = False
    differs: str = ""


UPSTREAM = PackFacts("upstream", "MeiGen's own script")
_ROWS = (
    UPSTREAM,
    PackFacts(
        "kijai",
        "ComfyUI-WanVideoWrapper of autumn 2025",
        first_channel=True,
        sinc=True,
        cut_first=True,
        late_silence=True,
        plain_samples=True,
        clip_centre=True,
        unclamped=True,
        differs="behind the end of the speech it hears a stored table of silence: --silence gives it, else it is "
        "computed",
    ),
    PackFacts(
        "comfy",
        "ComfyUI's own nodes",
        sinc=True,
        loudness=False,
        late_features=True,
        clip_centre=True,
        clip_before_fit=True,
        holds_seen=True,
    ),
)
PACKS: Mapping[str, PackFacts] = {row.name: row for row in _ROWS}


def packs_help() -> str:
    """One line about all of them."""
    told = ", ".join(f"{row.name} ({row.help})" for row in PACKS.values())
    return f"whose way of hearing speech, showing the picture to CLIP and passing frames on: {told}"
