"""Exported commands, split by a real shell and run without a process for each, which would import PyTorch anew."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SCRIPT = "generate_infinitetalk.py"
# As the shell would run them, one after another: the script itself, with its words, each in its folder.
DRIVER = """
import contextlib, json, os, runpy, sys
for line in sys.stdin:
    script, words, folder = json.loads(line)
    os.chdir(folder)
    sys.argv, code = [script, *words], 0
    with contextlib.redirect_stdout(sys.stderr):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
    print(code, flush=True)
"""


@dataclass(frozen=True)
class Runner:
    """A process that runs commands, and the file with what they print."""

    process: subprocess.Popen[str]
    printed: Path

    def run(self, script: Path, line: str, folder: Path) -> None:
        """Run a line that calls the script.

        Args:
            line: for a POSIX shell; an interpreter, the script, flags.
            folder: to run it in.

        Raises:
            AssertionError: it did not end well; says what it printed.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([str(script), words_of(line), str(folder)]), file=self.process.stdin, flush=True)
        code = self.process.stdout.readline().strip()
        assert code == "0", f"{line}\n{self.printed.read_text(encoding='utf-8', errors='replace')[-3000:]}"


@contextmanager
def runner(python: Path, environment: Mapping[str, str], printed: Path) -> Iterator[Runner]:
    """A ``Runner`` of this interpreter while the context lasts."""
    with printed.open("wb") as errors:
        process = subprocess.Popen(
            [str(python), "-c", DRIVER],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Runner(process, printed)
        finally:
            process.communicate()


def words_of(line: str) -> list[str]:
    """What a shell hands to the script that this line calls.

    Args:
        line: for a POSIX shell; an interpreter, the script, flags.
    """
    flags = line.partition(SCRIPT)[2].removeprefix("'")
    shell = "bash" if "$'" in flags else "sh"  # not every sh knows $'…'
    done = subprocess.run([shell, "-c", rf"printf '%s\0' {flags}"], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def called(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The words with which a script that has ended called the ``recorder`` in Python's place."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("called ")[2])
