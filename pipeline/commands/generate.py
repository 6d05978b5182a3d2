"""``infinitetalk [generate]``: flags in, a video and its path out.

Everything that can be refused without PyTorch is refused before it is imported.
"""

from __future__ import annotations

import argparse
from datetime import datetime

from ..checkpoints.defaults import with_default_paths
from ..errors import InputError
from ..job.job import load_job
from ..job.output import output_path
from ..parallel.division import divide
from ..parallel.launch import processes, rank
from ..run.progress import Loading, no_progress
from ..settings.definition import Settings
from ..settings.flags import Parser, build_parser, config_of, settings_from
from ..settings.validation import resolve
from .console import progress_lines, say


def parser() -> Parser:
    """All settings as flags."""
    return build_parser()


def run(args: argparse.Namespace) -> int:
    """Make the video, or print the plan of it.

    Raises:
        InputError: settings or files are not right.
    """
    settings = with_default_paths(resolve(settings_from(args, config_of(args))))
    check_cards(settings)
    if settings.resume and settings.save_file is None:
        raise InputError("--resume needs --save_file: the name of the video to go on with.")
    job = load_job(settings)
    settings = settings.replace(save_file=output_path(settings, job, datetime.now()))
    from ..planning.checked import check_run

    check_run(settings, job)
    if settings.dry_run:
        from ..planning.describe import describe
        from ..run.generator import prepare

        prepared = prepare(settings, job, max(settings.gpus, processes()))
        if rank() == 0:
            say(describe(prepared.plan, prepared.windows_done))
        return 0

    progress = no_progress if settings.quiet or rank() else progress_lines()
    progress(Loading("loading PyTorch"))
    if processes() > 1:
        from .together import make

        make(settings, job, progress)
    if settings.gpus > 1:
        from .together import start

        start(settings)
        return 0
    from ..run.generator import generate

    say(str(generate(settings, job, progress)), exact=True)
    return 0


def check_cards(settings: Settings) -> None:
    """Look at what the settings say of several cards.

    Raises:
        InputError: there are others than they say, or only one.
    """
    started, together = processes(), settings.ulysses_size * settings.ring_size
    if started > 1 and settings.gpus not in (1, started):
        raise InputError(f"--gpus: {settings.gpus} found, but torchrun started {started} processes; leave --gpus out.")
    cards = max(started, settings.gpus)
    if together > 1 and cards > 1:
        divide(cards, 1, together, together)
    elif together > 1:
        raise InputError(
            f"--ulysses_size times --ring_size is {together}, but this is one process: add --gpus {together}, or start "
            f"with torchrun --nproc_per_node={together}."
        )
    elif settings.dit_fsdp and cards == 1:
        raise InputError(
            "--dit_fsdp: several cards expected, one found; add --gpus, start with torchrun, or leave it out."
        )
