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
class Exported:
    """A video to make, as settings, and what the user should know about it.

    Attributes:
        settings: reference, speech and prompts included (``image`` or ``video``, ``audio``, ``prompt``,
            ``negative_prompt``), the file's name too (``save_file``).
        notes: whole sentences, one a line: what was mapped to something similar, what was left out and why.
    """

    settings: Settings
    notes: tuple[str, ...] = ()


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

    def notes(self) -> tuple[str, ...]:
        """What the user should know about the paths."""
