"""The command line: flags in, a video and its path out; every way a run can end has its exit code.

0 done, 2 bad input (one sentence on stderr), 130 interrupted. stdout gets the result alone: the
video's path, or the plan of --dry_run; everything else goes to stderr. Nothing heavy is imported
before the flags are known to be right.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TextIO

from ..errors import InputError
from ..job.job import load_job, output_path
from ..run.progress import ConsoleProgress, Loading, no_progress
from ..settings.definition import ONE_GPU
from ..settings.flags import build_parser, parse
from ..settings.validation import resolve, validate, warnings_for
from ..version import __version__

BAD_INPUT = 2
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: the words after the program's name; None takes those of this process.
    """
    try:
        return _command(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        _write(sys.stderr, f"error: {error}")
        return BAD_INPUT
    except PermissionError as error:  # of a file that nobody asked for before it was needed
        _write(sys.stderr, f"error: {error.filename} cannot be opened ({error.strerror}); check its permissions.")
        return BAD_INPUT
    except KeyboardInterrupt:
        _write(sys.stderr, "\ninterrupted")
        return INTERRUPTED


def _command(argv: list[str]) -> int:
    if "--help" in argv or "-h" in argv:
        _write(sys.stdout, _parser_of(argv[0]).format_help().rstrip())
        return 0
    if argv == ["--version"]:
        _write(sys.stdout, f"infinitetalk {__version__}")
        return 0
    if not argv or argv[0].startswith("-"):
        return _generate(argv)
    if argv[0] not in COMMANDS:
        if Path(argv[0]).suffix:
            raise InputError(f"{argv[0]!r} stands where a flag was expected; name files by --image, --audio and so on.")
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1) or list(COMMANDS)
        raise InputError(f"{argv[0]!r} is not a command; did you mean {near[0]}? (--help tells more.)")
    return COMMANDS[argv[0]](argv[1:])


def _parser_of(command: str) -> argparse.ArgumentParser:
    """The parser whose help is meant; commands without flags of their own are in the help of all."""
    if command == "export":
        from .export import export_parser

        return export_parser()
    if command == "recommend":
        from .recommend import recommend_parser

        return recommend_parser()
    return build_parser()


def _generate(argv: list[str]) -> int:
    settings = resolve(parse(argv))
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(f"torchrun started {os.environ['WORLD_SIZE']} processes, but {ONE_GPU}")
    for sentence in warnings_for(settings):
        _write(sys.stderr, f"warning: {sentence}")
    if settings.resume and settings.save_file is None:
        raise InputError("--resume needs --save_file: the name of the video to go on with.")
    job = load_job(settings)
    settings = settings.replace(save_file=output_path(settings, job, datetime.now()))
    if settings.dry_run:
        from ..planning.run_plan import plan_run
        from ..planning.windows import describe

        _write(sys.stdout, describe(plan_run(settings, job)))
        return 0

    progress = no_progress if settings.quiet else ConsoleProgress(sys.stderr)
    progress(Loading("loading PyTorch"))
    from ..run.generator import generate

    path = generate(settings, job, progress)
    _write(sys.stdout, str(path))
    return 0


def _inspect(argv: list[str]) -> int:
    from .inspect import describe, inspect

    if not argv or any(word.startswith("--") for word in argv):
        raise InputError("inspect: give the names of weights files, as in: infinitetalk inspect lora.safetensors")
    _write(sys.stdout, "\n\n".join(describe(inspect(Path(word))) for word in argv))
    return 0


def _convert(argv: list[str]) -> int:
    settings = validate(parse(argv))
    from .convert import convert

    _write(sys.stdout, str(convert(settings, no_progress if settings.quiet else ConsoleProgress(sys.stderr))))
    return 0


def _info(argv: list[str]) -> int:
    from ..job.record import read_record
    from .info import describe

    files = [word for word in argv if word != "--full"]
    if len(files) != 1 or files[0].startswith("--"):
        raise InputError("info: give the name of one video, as in: infinitetalk info video.mp4 [--full]")
    _write(sys.stdout, describe(read_record(Path(files[0])), full="--full" in argv))
    return 0


def _evaluate(argv: list[str]) -> int:
    from .evaluate import evaluate_command

    _write(sys.stdout, evaluate_command(argv))
    return 0


def _export(argv: list[str]) -> int:
    from .export import export

    command = export(argv)
    for note in command.notes:
        _write(sys.stderr, f"note: {note}")
    _write(sys.stdout, command.text)
    return 0


def _presets(argv: list[str]) -> int:
    if argv:
        raise InputError(f"presets: {argv[0]!r} found, nothing expected; --preset NAME takes one of them.")
    from .recommend import presets_table

    _write(sys.stdout, presets_table())
    return 0


def _recommend(argv: list[str]) -> int:
    from .recommend import recommend_command

    _write(sys.stdout, recommend_command(argv, _ask if sys.stdin.isatty() else None))
    return 0


def _doctor(argv: list[str]) -> int:
    if argv:
        raise InputError(f"doctor: {argv[0]!r} found, nothing expected.")
    from .doctor import describe, examine

    _write(sys.stdout, describe(examine()))
    return 0


def _bench(argv: list[str]) -> int:
    if argv:
        raise InputError(f"bench: {argv[0]!r} found, nothing expected.")
    from ..planning.machine import choose_device
    from .bench import describe, measure, usual_sizes

    device = choose_device("auto")
    _write(
        sys.stdout, describe(measure(device, usual_sizes(device), lambda text: _write(sys.stderr, f"timing {text}")))
    )
    return 0


def _ask(question: str) -> str:
    """A question on the terminal; an end of input is an empty answer."""
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(question.encode(encoding, "backslashreplace").decode(encoding))
    sys.stderr.flush()
    return sys.stdin.readline()


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "generate": _generate,
    "info": _info,
    "evaluate": _evaluate,
    "inspect": _inspect,
    "convert": _convert,
    "export": _export,
    "presets": _presets,
    "recommend": _recommend,
    "doctor": _doctor,
    "bench": _bench,
}


def _write(stream: TextIO, text: str) -> None:
    """A line of text, whatever the console can show."""
    encoding = stream.encoding or "ascii"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
