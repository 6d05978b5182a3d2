"""``infinitetalk [generate]``: flags in, a video and its path out.

Everything that can be refused without PyTorch is refused before it is imported.
"""

from __future__ import annotations

import argparse
import os
from datetime import datetime

from ..checkpoints.defaults import with_default_paths
from ..errors import InputError
from ..job.job import load_job
from ..job.output import output_path
from ..run.progress import ConsoleProgress, Loading, no_progress
from ..settings.definition import ONE_GPU
from ..settings.flags import Parser, build_parser, config_of, settings_from
from ..settings.validation import resolve
from .console import Messages, say


def parser() -> Parser:
    """All settings as flags."""
    return build_parser()


def run(args: argparse.Namespace) -> int:
    """Make the video, or print the plan of it.

    Raises:
        InputError: settings or files are not right.
    """
    settings = with_default_paths(resolve(settings_from(args, config_of(args))))
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(f"torchrun started {os.environ['WORLD_SIZE']} processes, but {ONE_GPU}")
    if settings.resume and settings.save_file is None:
        raise InputError("--resume needs --save_file: the name of the video to go on with.")
    job = load_job(settings)
    settings = settings.replace(save_file=output_path(settings, job, datetime.now()))
    from ..planning.checked import check_run

    check_run(settings, job)
    if settings.dry_run:
        from ..planning.describe import describe
        from ..run.generator import prepare

        prepared = prepare(settings, job)
        say(describe(prepared.plan, prepared.windows_done))
        return 0

    progress = no_progress if settings.quiet else ConsoleProgress(Messages())
    progress(Loading("loading PyTorch"))
    from ..run.generator import generate

    say(str(generate(settings, job, progress)), exact=True)
    return 0
