"""``infinitetalk export FILE``: a ComfyUI graph, bare or in a picture or video, or a video made here, as a command."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..export.command import SHELLS, Command, command, own_shell
from ..export.exported import Files
from ..export.manifest import manifest
from ..export.upstream import upstream_command
from ..facts.language import spoken
from ..graphs.embedded import PICTURES, graph_in, picture_graph, video_tags
from ..graphs.graph import read_graph
from ..graphs.places import FolderFiles, PortableFiles
from ..graphs.read import settings_of
from ..graphs.video import VIDEOS, read_video, shortened
from ..job.record import METADATA_KEY
from ..settings.flags import Parser
from .console import note, say

TARGETS = ("ours", "upstream")
OF_A_MANIFEST = {
    "pictures": "pictures or videos: print a manifest for infinitetalk batch, a line for each",
    "sounds": "the sounds of these lines: as many, or one for all; or several for one picture",
}


def parser() -> Parser:
    """The flags of the command."""
    found = Parser(
        "infinitetalk export",
        "FILE [--shell SHELL] [--full] [--target TARGET] [--strict] [--comfyui DIR] [--node ID] "
        "[--pictures FILES] [--sounds FILES]",
        "Prints the command that makes the video of a ComfyUI graph, or a video once more.",
    )
    found.add_argument("file", type=Path, metavar="FILE", help="a graph (.json, or in a .png or .mp4), or a video")
    found.add_argument("--shell", choices=SHELLS, default=own_shell(), help="where it will run (default: %(default)s)")
    found.add_argument("--full", action="store_true", help="every flag, not only those that differ from the defaults")
    found.add_argument(
        "--target", choices=TARGETS, default="ours", help="upstream: MeiGen's own script (default: ours)"
    )
    found.add_argument("--comfyui", type=Path, metavar="DIR", help="folder of ComfyUI, to look files up in")
    found.add_argument(
        "--strict", action="store_true", help="refuse a graph whose video would be another take; precision is none"
    )
    for name, told in OF_A_MANIFEST.items():
        found.add_argument(f"--{name}", nargs="+", type=Path, default=[], metavar="FILE", help=spoken(told))
    found.add_argument("--node", metavar="ID", help="the sampler that is meant, where the graph has several")
    return found


def run(args: argparse.Namespace) -> int:
    """Print the command, and on stderr what the user should know of it.

    Raises:
        InputError: see ``export``.
    """
    made = export(args)
    for sentence in made.notes:
        note(f"note: {sentence}")
    for line in made.take:
        note(line)
    say(made.text)
    return 0


def export(given: argparse.Namespace) -> Command:
    """The command that ``parser``'s result asks for.

    Raises:
        InputError: a file that is neither, or something that has no equivalent.
    """
    path, files = given.file, _files(given.comfyui)
    tags = video_tags(path) if path.suffix.lower() in VIDEOS else {}
    if tags and METADATA_KEY not in tags and (graph := graph_in(tags, path)) is not None:
        exported = settings_of(graph, files, given.node)
    elif path.suffix.lower() in PICTURES:
        exported = settings_of(picture_graph(path), files, given.node)
    elif path.suffix.lower() in VIDEOS:
        exported = read_video(path, files, given.node)
        if not given.full:
            exported = replace(exported, settings=shortened(exported.settings))
    elif path.suffix.lower() == ".json":
        exported = settings_of(read_graph(path), files, given.node)
    else:
        raise InputError(f"{path} is neither a graph (.json, or a .png or .mp4 that carries one) nor a video (.mp4).")
    if given.strict and exported.take is not None and exported.take.other:
        raise InputError(f"--strict: {path} would become another take, because {'; '.join(exported.take.other)}.")
    if given.pictures or given.sounds:
        if given.target != "ours":
            raise InputError("--pictures and --sounds make a manifest for infinitetalk batch; leave --target out.")
        lines = manifest(exported.settings, given.pictures, given.sounds, given.full)
        return Command(lines, exported.notes, given.shell, exported.take.lines if exported.take else ())
    make = {"ours": command, "upstream": upstream_command}[given.target]
    return make(exported, given.shell, given.full)


def _files(comfyui: Path | None) -> Files:
    return PortableFiles() if comfyui is None else FolderFiles(comfyui)
