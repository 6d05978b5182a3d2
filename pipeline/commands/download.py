"""``infinitetalk download``: what a preset needs and is not here yet, into the guide's layout or ComfyUI's folders.

What is published where is data (``facts.published``); fetching and checking is for ``fetching``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.lookup import weights_folders
from ..errors import InputError
from ..facts.downloads import DEFAULTS, GROUPS
from ..facts.published import PARTS, Part
from ..facts.sizes import size_text
from ..graphs.places import FolderFiles
from ..settings.flags import Parser
from ..settings.presets import load_preset, preset_names
from .console import note, say
from .fetching import (
    Told,
    Wanted,
    alone,
    ask_hub,
    check_disk,
    clear,
    fetch,
    free_space,
    require_modelscope,
    told_by_table,
)


@dataclass(frozen=True)
class Layout:
    """Where files go.

    Attributes:
        root: the weights folder, or ComfyUI's models.
        comfy: ComfyUI, whose other folders are looked through too; None for the guide's layout.
    """

    root: Path
    comfy: FolderFiles | None = None

    def wanted(self, part: Part) -> list[Wanted]:
        """The files of a part, where they go or already are.

        Raises:
            InputError: the part has no place in this layout.
        """
        folder = part.place if self.comfy is None else part.comfy
        if folder is None:
            where = "only into ComfyUI: give --comfyui DIR" if self.comfy is None else "only without --comfyui"
            raise InputError(f"{part.name} goes {where}; --list shows where everything goes.")
        return [Wanted(part, file, self._place(part, folder, file.name, file.path)) for file in part.files]

    def _place(self, part: Part, folder: str, name: str, path: str) -> Path:
        (file,) = (file for file in part.files if file.path == path)
        place = self.root / part.path_in(folder, file)
        if self.comfy is None or place.exists() or "/" in folder:
            return place
        return self.comfy.preset_file(part.flag, name) or place

    def takes(self, part: Part) -> bool:
        """Whether the part has a place here."""
        return (part.place if self.comfy is None else part.comfy) is not None


def parser() -> Parser:
    """The flags of the command."""
    found = Parser(
        "infinitetalk download",
        "[PART ...] [--preset NAME] [--list] [--to DIR | --comfyui DIR] [--dry_run]",
        "Fetches what a preset needs and is not here yet, from Hugging Face; checks sizes and hashes.\n"
        "An interrupted call goes on when it is repeated. Mirrors and tokens: huggingface_hub's own variables "
        "(HF_ENDPOINT, HF_TOKEN).",
        f"Parts: {', '.join([*GROUPS, *PARTS])}.\nPresets: {', '.join(preset_names())}.",
    )
    found.add_argument("parts", nargs="*", metavar="PART", help="parts to fetch, by name")
    found.add_argument("--preset", metavar="NAME", help="all that this preset needs")
    found.add_argument("--list", action="store_true", help="show the parts, what presets need, and what is here")
    found.add_argument(
        "--to", type=Path, metavar="DIR", help="the weights folder (default: weights, here or in the clone)"
    )
    found.add_argument("--comfyui", type=Path, metavar="DIR", help="a ComfyUI: into the folders that its nodes list")
    found.add_argument("--dry_run", action="store_true", help="show what would be fetched; asks nobody")
    found.add_argument(
        "--trust_hub", action="store_true", help="take the hub's own sizes and hashes, where it has newer files"
    )
    found.add_argument("--modelscope", action="store_true", help="from modelscope.cn, by the package modelscope")
    return found


def run(args: argparse.Namespace) -> int:
    """Fetch, or show what would be fetched.

    Raises:
        InputError: an unknown name, a folder that is none, no room, or files that cannot be had.
    """
    layout = _layout(args)
    parts = _parts(args, layout)
    if args.list:
        say(listing(parts or [part for part in PARTS.values() if layout.takes(part)], layout))
        return 0
    if not parts:
        raise InputError("give --preset NAME, or parts by name; --list shows both.")
    wanted = [file for part in parts for file in layout.wanted(part)]
    missing = [file for file in wanted if not _is_here(file, args.trust_hub)]
    if args.dry_run:
        say(described(wanted, missing, layout))
        return 0
    _fetch_all(missing, layout, args)
    say(_end(len(wanted), len(missing), layout, args.preset))
    return 0


def _fetch_all(missing: list[Wanted], layout: Layout, args: argparse.Namespace) -> None:
    if args.modelscope:
        require_modelscope()
    if not missing:
        return
    _quiet_bars()
    told: list[Told] = [told_by_table(file) if args.modelscope else ask_hub(file, args.trust_hub) for file in missing]
    told_size = sum(known.size or 0 for known in told)
    check_disk(layout.root, max(told_size, _about(missing, layout)) if args.modelscope else told_size)
    with alone(layout.root):
        for number, (file, known) in enumerate(zip(missing, told, strict=True), 1):
            size = "" if known.size is None else f" ({size_text(known.size)})"
            note(f"{number}/{len(missing)} {file.path}{size}")
            fetch(file, known, layout.root, args.modelscope)
        clear(layout.root, list(dict.fromkeys(file.part for file in missing)))


def _quiet_bars() -> None:
    """No bars where nobody looks."""
    if sys.stderr is not None and not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


def _layout(args: argparse.Namespace) -> Layout:
    if args.to is not None and args.comfyui is not None:
        raise InputError("--to and --comfyui both say where files go; give one of them.")
    if args.comfyui is not None:
        return Layout(args.comfyui / "models", FolderFiles(args.comfyui))
    usual = weights_folders()
    root = args.to or next((folder for folder in usual if folder.is_dir()), usual[0])
    if root.exists() and not root.is_dir():
        raise InputError(f"--to: {root} is a file; give a folder.")
    return Layout(root)


def _parts(args: argparse.Namespace, layout: Layout) -> list[Part]:
    """What is asked for, each part once."""
    names = [name for given in args.parts for name in GROUPS.get(given, (given,))]
    for name in names:
        if name not in PARTS:
            known = [*GROUPS, *PARTS]
            near = difflib.get_close_matches(name, [*known, *preset_names()], n=1)
            hint = (
                f"did you mean {'--preset ' if near[0] not in known else ''}{near[0]}?" if near else "--list has all."
            )
            raise InputError(f"{name!r} is no part; {hint}")
    of_preset = () if args.preset is None else load_preset(args.preset).parts(layout.comfy is not None)
    if args.preset is not None and not of_preset:
        raise InputError(f"--preset {args.preset}: its models come with the program; there is nothing to fetch.")
    if layout.comfy is None and _state(PARTS["text_encoder"], layout) == "yes":  # it serves as well, and gives the
        of_preset = tuple(part for part in of_preset if part.name != "t5_fp8")  # frames of before
    return list(dict.fromkeys([*of_preset, *(PARTS[name] for name in names)]))


def _is_here(wanted: Wanted, trust_hub: bool) -> bool:
    """Whether a file is there already.

    Raises:
        InputError: something of another size is in its place.
    """
    if not wanted.path.exists():
        return False
    if not wanted.path.is_file():
        raise InputError(f"{wanted.path} is a folder, where a file is to go; move it away.")
    size, known = wanted.path.stat().st_size, wanted.file.size
    if known is not None and size != known and not trust_hub:
        raise InputError(
            f"{wanted.path} has {size} bytes, the published file {known}: it is incomplete, or another one. Move it "
            "away and run it again, or keep it with --trust_hub."
        )
    return True


def listing(parts: list[Part], layout: Layout) -> str:
    """Parts with what they are, sizes and licences, whether they are here, and what presets need."""
    rows = [("part", "what", "size", "here", "licence", "from")]
    rows += [
        (part.name, part.what, size_text(part.size), _state(part, layout), part.licence, part.address) for part in parts
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ["  ".join([*(f"{text:<{w}}" for text, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
    for name in preset_names():
        needed = load_preset(name).parts(layout.comfy is not None)
        lines.append(f"\n{name}, {size_text(sum(part.size for part in needed))}: {' '.join(p.name for p in needed)}")
    return "\n".join(lines)


def _state(part: Part, layout: Layout) -> str:
    here = [file.path.is_file() for file in layout.wanted(part)]
    return "yes" if all(here) else "in part" if any(here) else "no"


def described(wanted: list[Wanted], missing: list[Wanted], layout: Layout) -> str:
    """What would be fetched, and what is here."""
    lines = [f"here   {file.path}" for file in wanted if file not in missing]
    for file in missing:
        size = "" if file.file.size is None else f", {size_text(file.file.size)}"
        lines.append(f"fetch  {file.path}{size}, from {file.part.url(file.file)}")
    about, free = size_text(_about(missing, layout)), size_text(free_space(layout.root))
    return "\n".join([*lines, "", f"about {about} to fetch into {layout.root}, where {free} are free"])


def _about(missing: list[Wanted], layout: Layout) -> int:
    """Bytes of files as far as the table tells."""
    parts = dict.fromkeys(file.part for file in missing)
    whole = [part for part in parts if all(file in missing for file in layout.wanted(part))]
    rest = (file.file.size or 0 for file in missing if file.part not in whole)
    return sum(part.size for part in whole) + sum(rest)


def _end(wanted: int, fetched: int, layout: Layout, preset: str | None) -> str:
    done = f"{layout.root}: {fetched} files fetched" if fetched else f"{layout.root}: all {wanted} files are here"
    if preset is None:
        return done
    if layout.comfy is not None:
        return f"{done}; press R in ComfyUI, and choose the preset {preset}"
    return f"{done}; now: infinitetalk --preset {preset}{_flags(layout, preset)} --image me.png --audio speech.wav"


def _flags(layout: Layout, preset: str) -> str:
    """The flags of models that lie where nobody looks by itself."""
    if layout.root in weights_folders():
        return ""
    needed = {part.flag for part in load_preset(preset).parts()}
    return "".join(f" --{flag} {layout.root / place}" for flag, place in DEFAULTS.items() if flag in needed)
