"""What every reader of a graph or a video gives, and what it may ask about files.

A reader is ``read(graph, sampler, files) -> Exported``: ``sampler`` is the id of the node that makes the video.
It maps what it knows, says in a note what it left out, and refuses by name (``InputError``) what would make
another video. Knows nothing of graphs or shells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..settings.definition import Settings


@dataclass(frozen=True)
class Take:
    """How near the video is to the one that was exported, with the same weights and seed.

    Attributes:
        other: why it is another take: other noise, steps, speech or reference. Each goes on after "because".
        near: what else differs in it, where it is the same take. Each goes on after "the same up to".
        precision: what rounds otherwise: never a reason to call a take another.
    """

    other: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    precision: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """For people."""
        return (f"take: {self.verdict}.", *([f"precision: {'; '.join(self.precision)}."] if self.precision else []))

    @property
    def verdict(self) -> str:
        """Whether it is the same take."""
        if self.other:
            return f"another, because {'; '.join(self.other)}"
        return f"the same up to {'; '.join(self.near)}" if self.near else "the same"


@dataclass(frozen=True)
class Exported:
    """A video to make, as settings, and what the user should know about it.

    Attributes:
        settings: reference, speech and prompts included (``image`` or ``video``, ``audio``, ``prompt``,
            ``negative_prompt``), the file's name too (``save_file``).
        notes: whole sentences, one a line: what was mapped to something similar, what was left out and why.
        take: how near that is to a graph of other nodes; None: it is from here, and the same.
    """

    settings: Settings
    notes: tuple[str, ...] = ()
    take: Take | None = None


class Files(Protocol):
    """Where the files are that a graph names, as ComfyUI's lists have the names: ``folder/name.safetensors``."""

    def model(self, setting: str, name: str) -> Path:
        """The weights file or folder for a setting (``lora_dir``, ``dit_path``, ``vae``, ...).

        Raises:
            InputError: it is not where it would have to be.
        """

    def preset_file(self, setting: str, name: str) -> Path | None:
        """The file that a preset names: one whose path ends like ``name``; None if there is none."""

    def source(self, name: str) -> Path:
        """A picture, a video or sound of the input folder; "x.png [output]" is one of another folder.

        Raises:
            InputError: it is not where it would have to be.
        """

    def pack_file(self, name: str) -> Path | None:
        """A file of a pack of nodes, by its path in the pack's folder; None if there is none, or nobody knows."""

    def notes(self) -> tuple[str, ...]:
        """What the user should know about the paths."""
