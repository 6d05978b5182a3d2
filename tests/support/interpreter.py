"""Triton's interpreter in the place of a card: a process that forks for each piece of code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DRIVER = """
import json, os, sys, traceback
import torch, triton.language
torch.set_num_threads(1)
for line in sys.stdin:
    places, code = json.loads(line)
    child = os.fork()
    if not child:
        sys.path[:0] = places
        try:
            exec(code, {})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Interpreter:
    """The process, and the file with what its children say of errors."""

    process: subprocess.Popen[str]
    errors: Path

    def run(self, code: str, folder: Path) -> None:
        """Run code that may import the modules of this folder.

        Raises:
            AssertionError: it raised something; says what.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([[str(folder)], code]), file=self.process.stdin, flush=True)
        ended = self.process.stdout.readline().strip()
        assert ended == "0", self.errors.read_text(encoding="utf-8")[-2000:]


@contextmanager
def interpreter(errors: Path) -> Iterator[Interpreter]:
    """An ``Interpreter`` while the context lasts."""
    with errors.open("w", encoding="utf-8") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            env={**os.environ, "TRITON_INTERPRET": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        )
        try:
            yield Interpreter(process, errors)
        finally:
            process.communicate()
