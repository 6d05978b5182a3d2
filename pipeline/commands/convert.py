"""``infinitetalk convert``: the transformer of these settings in one file; ``converting`` does it."""

from __future__ import annotations

import argparse
import sys

from ..run.progress import ConsoleProgress, no_progress
from ..settings.flags import Parser, build_parser, settings_from
from ..settings.validation import validate
from .console import say


def parser() -> Parser:
    """The settings that choose a transformer, as flags."""
    return build_parser(
        "infinitetalk convert",
        "--quant {fp8,int8} --save_file FILE --ckpt_dir DIR --infinitetalk_dir FILE [--lora_dir FILE]",
        "Writes the transformer with 8-bit matrices, LoRAs fused, into one file that loads in seconds.",
        "The file is a --dit_path that needs no --infinitetalk_dir, or a --quant_dir.",
    )


def run(args: argparse.Namespace) -> int:
    """Write the file and print its name.

    Raises:
        InputError: see ``converting.convert``.
    """
    settings = validate(settings_from(args))
    from .converting import convert

    say(str(convert(settings, no_progress if settings.quiet else ConsoleProgress(sys.stderr))))
    return 0
