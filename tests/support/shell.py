"""Exported commands, split by a real shell and run without a process for each, which would import PyTorch anew."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

SCRIPT = "generate_infinitetalk.py"
# As the shell would run them, one after another: the script itself, with its words, each in its folder.
DRIVER = """
import json, os, runpy, sys
for script, words, folder in json.load(sys.stdin):
    os.chdir(folder)
    sys.argv = [script, *words]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words} ended with {end.code}")
"""


def words_of(line: str) -> list[str]:
    """What a shell hands to the script that this line calls.

    Args:
        line: for a POSIX shell; an interpreter, the script, flags.
    """
    flags = line.partition(SCRIPT)[2].removeprefix("'")
    shell = "bash" if "$'" in flags else "sh"  # not every sh knows $'…'
    done = subprocess.run([shell, "-c", rf"printf '%s\0' {flags}"], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def run_all(python: Path, script: Path, lines: Mapping[Path, str], environment: Mapping[str, str]) -> None:
    """Run lines that call the script, in one process of this interpreter.

    Args:
        lines: by the folder to run each in.

    Raises:
        AssertionError: one did not end well; says what it printed.
    """
    runs = [(str(script), words_of(line), str(folder)) for folder, line in lines.items()]
    command = [str(python), "-c", DRIVER]
    given = {"input": json.dumps(runs), "env": {**os.environ, **environment}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, done.stderr[-3000:]
