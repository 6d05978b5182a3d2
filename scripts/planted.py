"""Whether ``make lint`` finds what it is there for: faults are planted in a copy, one after the other.

``make test-lint``, or ``python -m infinitetalk.scripts.planted``, with the environment that ``make lint`` makes. Knows
no checker: it plants, runs ``make lint`` and looks for what must have been said.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = (".*", "__pycache__", "build", "dist", "outputs", "shared", "weights")


@dataclass(frozen=True)
class Fault:
    """What is planted.

    Attributes:
        module: whose end it becomes.
        code: a line or more.
        said: what lint says of it.
    """

    name: str
    module: str
    code: str
    said: str


FAULTS = (
    Fault(
        "an import of what lies above",
        "pipeline/facts/words.py",
        "from ..settings import definition as planted  # noqa: E402, F401",
        "infinitetalk.pipeline.facts.words -> infinitetalk.pipeline.settings.definition",
    ),
    Fault(
        "a type error",
        "pipeline/settings/demo.py",
        "PLANTED: int = demo_checkpoint().ckpt_dir",
        "Incompatible types in assignment",
    ),
    Fault(
        "a function without types",
        "nodes/comfy/files.py",
        "def _planted(value: int):\n    return value",
        "Function is missing a return type annotation",
    ),
)


def main() -> int:
    """Plant all of them; 1 if one was not found, or if something is found where nothing is planted."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "infinite talk")  # a name with a space
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        before = _lint(copy)
        print(f"nothing planted: {'nothing found' if before is None else before}")
        found = [_finds(copy, fault) for fault in FAULTS] if before is None else []
    print(f"{sum(found)} of {len(FAULTS)} found")
    return 0 if sum(found) == len(FAULTS) else 1


def _finds(copy: Path, fault: Fault) -> bool:
    path = copy / fault.module
    clean = path.read_text(encoding="utf-8")
    path.write_text(f"{clean}\n\n{fault.code}\n", encoding="utf-8")
    said = _lint(copy)
    path.write_text(clean, encoding="utf-8")
    found = said is not None and fault.said in said
    print(f"{fault.name} in {fault.module}: {'found' if found else 'NOT FOUND'}")
    return found


def _lint(copy: Path) -> str | None:
    """What ``make lint`` says of the copy; None if it finds nothing."""
    # the environment is this one, and is not to be made anew
    command = ["make", "lint", f"PY={sys.executable}", "--old-file=.venv/installed-test"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
