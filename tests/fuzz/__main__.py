"""``python -m infinitetalk.tests.fuzz``: many spoilt files of each kind; ``make fuzz`` calls it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from .kinds import KINDS
from .running import fuzz, number_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this one; may be given again")
    parser.add_argument("--numbers", type=number_of, default="0-2000", help="which files, such as 0-2000 or 17")
    parser.add_argument("--keep", type=Path, help="a folder for what failed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for kind in given.kind or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            found = fuzz(kind, given.numbers, Path(folder))
            for number, error in found.failures.items():
                print(f"{kind} {number}: {error}", file=sys.stderr)
            if found.failures and given.keep is not None:
                Path(folder, "place").rename(given.keep / kind)
        failed += len(found.failures)
        print(f"{kind:22} {found.read:6} read {found.refused:6} refused {len(found.failures):4} failed", flush=True)
    print("all read or refused" if not failed else f"{failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
