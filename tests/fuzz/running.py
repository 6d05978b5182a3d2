"""Reads spoilt files in a process of its own, with bounds on memory and on the processor's time for each."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

from infinitetalk.pipeline.errors import InputError, printable

from .kinds import KINDS, Kind

MEMORY = 2 << 30  # bytes more than the process has when it begins
SECONDS = 5  # of the processor, for one file
SLEEPS = 120  # seconds after which one that waits without working is given up
LONGEST_SENTENCE = 2000  # characters
_FAILED = 3
_PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Found:
    """What became of some files of a kind.

    Attributes:
        read, refused: how many were.
        failures: by the number of the file, what went wrong.
    """

    read: int
    refused: int
    failures: dict[int, str]


def fuzz(kind: str, numbers: range, folder: Path, most: int = 5) -> Found:
    """Read the files of these numbers, which decide how each is spoilt; a negative one is a whole file.

    Args:
        folder: where files are made; that of the last failure stays there.
        most: failures after which it ends.
    """
    seeds_folder, place = folder / "seeds", folder / "place"
    for each in (seeds_folder, place):
        each.mkdir(parents=True)
    seeds = KINDS[kind].seeds(seeds_folder)
    counts, failures = [0, 0], {}
    while numbers and len(failures) < most:
        status, told = _in_child(kind, numbers, seeds, place)
        counts[0] += told["read"]
        counts[1] += told["refused"]
        if status == 0:
            break
        failed = told["number"]
        failures[failed] = told["error"] or _death(status)
        numbers = range(failed + 1, numbers.stop)
    return Found(*counts, failures)


def _death(status: int) -> str:
    if status == -signal.SIGXCPU:
        return f"more than {SECONDS} s of the processor"
    if status == -signal.SIGALRM:
        return "it waits for ever"
    return f"the process ended with {status}"


def _in_child(kind: str, numbers: range, seeds: list[bytes], place: Path) -> tuple[int, dict]:
    """Exit code, and what was told last."""
    log = place.with_name("log")
    log.write_text("")
    child = os.fork()
    if child == 0:
        code = _FAILED
        try:
            gc.freeze()  # what others left, whose threads are not in this process, is not closed here
            _bound_memory()
            code = _read_all(kind, numbers, seeds, place, log)
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = log.read_text().splitlines()
    told = json.loads(lines[-1]) if lines else {"number": numbers.start, "read": 0, "refused": 0, "error": ""}
    return status, told


def _bound_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_all(kind: str, numbers: range, seeds: list[bytes], place: Path, log: Path) -> int:
    counts = {"read": 0, "refused": 0}
    path = place / KINDS[kind].file
    with log.open("a", buffering=1) as told:
        for number in numbers:
            path.write_bytes(KINDS[kind].spoil(Random(f"{kind} {number}"), seeds) if number >= 0 else seeds[number])
            told.write(json.dumps({**counts, "number": number, "error": ""}) + "\n")  # in case it never comes back
            signal.alarm(SLEEPS)
            most = int(time.process_time()) + 1 + SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
            word, error = _read_one(KINDS[kind], path)
            counts[word] += 1
            told.write(json.dumps({**counts, "number": number, "error": error}) + "\n")
            if error:
                return _FAILED
    return 0


def _read_one(kind: Kind, path: Path) -> tuple[str, str]:
    """Whether a file was read or refused, and what went wrong."""
    try:
        kind.read(path)
    except InputError as refusal:
        sentence = str(refusal)
        right = printable(sentence, "\n") == sentence and 0 < len(sentence) <= LONGEST_SENTENCE
        return "refused", "" if right else f"no sentence: {sentence[:LONGEST_SENTENCE]!r}"
    except BaseException:
        return "read", traceback.format_exc(limit=-6)
    return "read", ""


def number_of(text: str) -> range:
    """ "7" or "0-100"."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or int(first) + 1))


if sys.platform == "win32":
    raise ImportError("bounds on memory and time are those of Unix")
