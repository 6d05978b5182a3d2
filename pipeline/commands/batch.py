"""``infinitetalk batch MANIFEST --out DIR``: many videos, one worker for each card; ``batch/`` does it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..batch.dispatch import Crew
from ..batch.processes import LocalCrew, cards_for
from ..batch.run import Batch, Counts, make, shard_of
from ..errors import InputError
from ..facts.language import spoken
from ..settings.definition import names_with, setting_types
from ..settings.flags import Parser, config_of, settings_from, with_settings
from ..settings.roles import RUN
from .board import Board
from .console import say

FAILED = 3  # the exit code where some jobs failed
OF_THE_BATCH = ("overwrite", "quiet", "dry_run")
MANIFEST = "jobs, as .jsonl, .json or .csv"
OUT = "folder of the videos and of results.jsonl"
WORKERS = "processes that make videos (left out: one a card, or one without cards)"
SHARD = "only part I of N of the jobs (left out: by SLURM's array and step)"
RAY = "workers on a Ray cluster: its address, auto (the one that runs here) or local"
HELPS = {
    "overwrite": "replace videos that are there and were made from something else",
    "quiet": "print the path of results.jsonl and nothing else",
    "dry_run": "check everything, sum up hours and gigabytes, make nothing",
}
EPILOG = """\
A line of jobs.jsonl is a video: settings by name, and an id that names it. Paths are relative to the manifest.
  {"id": "anna", "image": "anna.png", "audio": "hello.wav", "prompt": "A woman talks."}
Flags hold for all lines that do not say otherwise. A .csv has the names in its first line, a .json is a list.

The same command goes on: a video that is there is left, an unfinished one goes on after its last window.
Exit codes: 0 all videos are there, 3 some jobs failed, 2 bad input. docs/batch.md tells more.
"""


def parser() -> Parser:
    """The flags of the command, and all settings that may hold for many videos."""
    words = "MANIFEST --out DIR [--workers N] [--shard I/N] [--ray [ADDRESS]] [flags]"
    found = Parser("infinitetalk batch", words, "Makes the videos of a manifest, each line one.", EPILOG)
    found.add_argument("manifest", type=Path, metavar="MANIFEST", help=spoken(MANIFEST))
    found.add_argument("--out", type=Path, required=True, metavar="DIR", help=spoken(OUT))
    found.add_argument("--workers", type=_count, metavar="N", help=spoken(WORKERS))
    found.add_argument("--shard", metavar="I/N", help=spoken(SHARD))
    found.add_argument("--ray", nargs="?", const="auto", metavar="ADDRESS", help=spoken(RAY))
    helps = {name: spoken(text) for name, text in HELPS.items()}
    names = [name for name in setting_types() if name not in names_with(RUN) or name in OF_THE_BATCH]
    return with_settings(found, [name for name in names if name != "save_file"], helps)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1024):
        raise InputError(f"--workers: {text!r} found, a whole number from 1 on expected.")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Make the videos, or tell what that would take.

    Raises:
        InputError: nothing can be made at all.
    """
    config = config_of(args)
    settings = settings_from(args, config)
    given = {name: value for name, value in vars(args).items() if name in setting_types() and name not in OF_THE_BATCH}
    flags = argparse.Namespace(**{name: None if value == [None] else value for name, value in given.items()})
    batch = Batch(args.manifest, args.out, flags, config, shard_of(args.shard), settings.overwrite)
    if settings.dry_run:
        from ..batch.summary import summary

        text, failed = summary(batch)
        say(text)
        return FAILED if failed else 0

    def crew() -> Crew:
        if args.ray is not None:
            from ..batch.cluster import RayCrew

            return RayCrew(args.ray, args.workers, settings.device)
        return LocalCrew(cards_for(settings.device, args.workers))

    with Board(settings.quiet, batch.shard) as board:
        counts = make(batch, crew, board)
        board.done(counts)
    say(str(batch.results), exact=True)
    return _code(counts)


def _code(counts: Counts) -> int:
    return FAILED if counts.failed else 0
