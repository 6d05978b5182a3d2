"""``infinitetalk doctor``: versions, the card, what is fast here and what is not, and why what is missing matters.

What is installed, and which models are where they are looked for, is told without PyTorch; ``ways`` tells of the card,
and tries each way of computing. Reads no weights and changes nothing.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.lookup import find_file
from ..errors import InputError
from ..facts.attention import ATTENTION
from ..facts.downloads import STAND_INS, part_of
from ..facts.packages import TRITON, Package
from ..facts.published import PARTS
from ..facts.sizes import GIB
from ..facts.solvers import by_package
from ..facts.words import listed
from ..settings.config import PRECEDENCE, find_config, places
from ..settings.flags import Parser
from ..version import __version__
from .console import say

FINE, MISSING, BAD = "ok", "--", "!!"
PYTORCH, PYAV, PSUTIL = Package("torch", "torch"), Package("av", "av"), Package("psutil", "psutil")
# what it is for: without it nothing works
NEEDED = {
    PYTORCH: "everything that is computed",
    Package("numpy", "numpy"): "arrays of sound",
    Package("safetensors", "safetensors"): "reading weights",
    Package("transformers", "transformers"): "speech, image and text encoders",
    Package("tokenizers", "tokenizers"): "splitting prompts",
    Package("sentencepiece", "sentencepiece"): "tokenizers that come as spiece.model",
    Package("PIL", "pillow"): "reading pictures",
    Package("soxr", "soxr"): "resampling speech",
    Package("pyloudnorm", "pyloudnorm"): "the loudness of speech",
    Package("ftfy", "ftfy"): "cleaning prompts as the models were trained with",
    PSUTIL: "how much memory is free",
}
# the same: without it something is slower or cannot be chosen
OPTIONAL = {
    **{package: f"--sample_solver {listed(names)}" for package, names in by_package().items()},
    TRITON: "fused kernels (--kernels triton) and fast int8 products; on Windows: triton-windows",
    **{row.package: f"--attention {row.name}: {row.help}" for row in ATTENTION.values() if row.package is not None},
}
LEAST_HOST_MEMORY = 24 * GIB  # of weights in 8 bits that wait in host memory, and what else a system needs
LEAST_DISK = 2 * GIB  # of an hour of speech and its video, several times


@dataclass(frozen=True)
class Finding:
    """A line: ``mark`` is FINE, MISSING or BAD (a run will fail or crawl)."""

    mark: str
    what: str
    found: str


def parser() -> Parser:
    """The flags of the command."""
    found = Parser(
        "infinitetalk doctor",
        "[--quick]",
        "Versions, the card, what is fast here and what is not, and why what is missing matters.\n"
        "ok: as it should be; --: missing, and what that means; !!: to be mended first.",
    )
    found.add_argument("--quick", action="store_true", help="only what can be told at once: versions, memory, disk")
    return found


def run(args: argparse.Namespace) -> int:
    """Examine and print."""
    say(describe(examine(args.quick)))
    return 0


def examine(quick: bool = False) -> list[Finding]:
    """Everything, in the order in which it is told; ``quick`` without what needs PyTorch."""
    found = [*_software(), *_machine(), *_models(), _config()]
    if quick or PYTORCH.installed() is None:
        return found
    from .ways import cards, ways

    return [*found, *cards(), *ways()]


def describe(findings: list[Finding]) -> str:
    """The findings as lines of text, with a sentence at the end."""
    width = max(len(finding.what) for finding in findings) + 2
    lines = [f"{finding.mark} {finding.what:<{width}}{finding.found}" for finding in findings]
    bad = [finding.what for finding in findings if finding.mark == BAD]
    end = f"to mend first: {', '.join(bad)}" if bad else "nothing stands in the way"
    return "\n".join([*lines, "", end])


def _software() -> list[Finding]:
    python = f"{platform.python_version()} ({sys.executable})"
    found = [
        Finding(FINE, "infinitetalk", __version__),
        Finding(FINE, "Python", python),
        _video_library(),
    ]
    found += [_needed(package, purpose) for package, purpose in NEEDED.items()]
    return found + [_optional(package, purpose) for package, purpose in OPTIONAL.items()]


def _needed(package: Package, purpose: str) -> Finding:
    version = package.installed()
    if version is None:
        return Finding(BAD, package.name, f"not installed: pip install {package.name} (for {purpose})")
    return Finding(FINE, package.name, version or "installed")


def _optional(package: Package, purpose: str) -> Finding:
    version = package.installed()
    if version is None:
        return Finding(MISSING, package.name, f"not installed, optional; for {purpose}")
    if package.obstacle() is not None:
        return Finding(MISSING, package.name, f"{version}, {package.oldest} or newer is needed; for {purpose}")
    return Finding(FINE, package.name, version or "installed")


def _video_library() -> Finding:
    if PYAV.installed() is None:
        return Finding(BAD, "PyAV", "not installed: pip install av (for reading and writing videos)")
    import av

    if "libx264" not in av.codecs_available:
        return Finding(BAD, "PyAV", f"{av.__version__}, built without libx264: install av from PyPI to write videos")
    return Finding(FINE, "PyAV", f"{av.__version__} with libx264")


def _config() -> Finding:
    """Which config counts, what it says, and what wins over what."""
    try:
        config = find_config()
    except InputError as error:
        return Finding(BAD, "config", str(error))
    if config.path is None:
        return Finding(FINE, "config", f"none ({' or '.join(map(str, places()))}); what counts: {PRECEDENCE}")
    names = [*config.settings, *(f"preset {name}" for name in config.presets)]
    return Finding(FINE, "config", f"{config.path}: {', '.join(names) or 'empty'}; what counts: {PRECEDENCE}")


def _models() -> list[Finding]:
    """Which parts of the presets' models lie where runs look for them, and which LoRA may stand in for which."""
    parts = [part for part in PARTS.values() if part.place is not None]
    here = [part.name for part in parts if all(find_file(part.path_in(part.place or "", f), None) for f in part.files)]
    absent = [part.name for part in parts if part.name not in here]
    there = f"here: {', '.join(here) or 'none'}"
    if absent:
        there += f"; not here: {', '.join(absent)} (infinitetalk download --list)"
    found = [Finding(MISSING if absent else FINE, "models", there)]
    for own, other in STAND_INS.items():
        line, instead = f"infinitetalk download {part_of(own).name}", find_file(Path(other), None)
        if find_file(Path(own), None) is not None:
            found.append(Finding(FINE, "LoRA of 4 steps", f"{own}; without it {other} would take its place"))
        elif instead is not None:
            found.append(Finding(MISSING, "LoRA of 4 steps", f"{instead} takes the place of {own}: {line}"))
        else:
            found.append(Finding(MISSING, "LoRA of 4 steps", f"neither {own} nor {other}, which may stand in: {line}"))
    return found


def _machine() -> list[Finding]:
    if PSUTIL.installed() is None:  # told among the packages
        return []
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    little = memory.total < LEAST_HOST_MEMORY
    if little:
        text += "; real weights in 8 bits need about 24 GiB where they do not fit on the card"
    disk = shutil.disk_usage(tempfile.gettempdir())
    room = f"{disk.free / GIB:.0f} GiB free in {tempfile.gettempdir()}"
    return [
        Finding(MISSING if little else FINE, "host memory", text),
        Finding(FINE if disk.free > LEAST_DISK else BAD, "disk", room),
    ]
