"""The graph as a command, from inside ComfyUI: its folders, its interpreter, its idea of the card.

How a graph becomes a command is the engine's (``pipeline.export``); the same serves the shell.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import folder_paths

from ...pipeline.errors import InputError
from ...pipeline.export.command import Command, command, own_shell
from ...pipeline.graphs.graph import from_prompt, graph_of
from ...pipeline.graphs.ours import seed_note
from ...pipeline.graphs.read import samplers, settings_of
from . import host
from .files import FILES

SCRIPT = Path(__file__).parents[2] / "generate_infinitetalk.py"
SHELLS = {"sh": "sh", "PowerShell": "powershell"}  # as the node's widget has them


def default_shell() -> str:
    """The shell that this machine's users have, as the widget has it."""
    return next(shown for shown, shell in SHELLS.items() if shell == own_shell())


def of_graph(
    graph: dict[str, dict], shell: str, full: bool = False, node: str | None = None, workflow: dict | None = None
) -> Command:
    """The command that makes the video of a graph's sampler.

    Args:
        graph: in API format.
        shell: one of SHELLS.
        full: every setting that has a value.
        node: id of the sampler, where there are several.
        workflow: what the page would save; it tells whether the seed is that of the next run.

    Raises:
        InputError: there is none, there are several, or something in the graph has no equivalent.
    """
    read = from_prompt(graph)
    found = samplers(read)
    if node is None and len(found) > 1:
        listed = ", ".join(str(sampler) for sampler in found)
        raise InputError(f"The graph has several samplers ({listed}): link the video of one to the export node.")
    exported = settings_of(read, FILES, node)
    if workflow is not None:
        exported = replace(exported, notes=(*_seed_note(workflow, node or found[0].id), *exported.notes))
    if host.device() == "cpu" and host.has_cards():  # where ComfyUI was told so; the command would take the card
        exported = replace(exported, settings=exported.settings.replace(device="cpu"))
    if host.device() == "cpu" or exported.settings.t5_cpu:  # another shell may have another OMP_NUM_THREADS
        exported = replace(exported, settings=exported.settings.replace(threads=host.threads()))
    return command(exported, SHELLS[shell], full, (sys.executable, str(SCRIPT)))


def _seed_note(workflow: dict, sampler: str) -> tuple[str, ...]:
    try:
        return seed_note(graph_of(workflow), sampler)
    except InputError:  # the command comes from the prompt; a page that saves otherwise does not forbid it
        return ()


def save(made: Command, name: str) -> Path:
    """Write a command under ComfyUI's output folder."""
    ending = Path(made.file).suffix
    folder, stem, _, _, _ = folder_paths.get_save_image_path(
        name.removesuffix(ending), folder_paths.get_output_directory()
    )
    path = Path(folder, stem + ending)
    path.write_bytes(made.content)
    return path
