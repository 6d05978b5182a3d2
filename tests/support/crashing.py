"""Crashes at every write, sync, rename, link and removal of a run, and what resuming makes of them.

``python -m infinitetalk.tests.support.crashing`` makes a video of three windows again and again, each time ended at
another call (``crash_shim.c``, preloaded), or with that call failing as on a full disk; goes on with it; and compares
all bytes with those of the run that nothing ended. ``make test-crash`` calls it; needs cc.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SHIM = Path(__file__).with_name("crash_shim.c")
CRASHED, REFUSED = 77, 2
FRAMES = 17 + 2 * 12  # three windows


def build(folder: Path) -> Path:
    """Compile what is preloaded."""
    made = folder / "crash_shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(SHIM), "-ldl"], check=True)
    return made


def run_all(*words: str) -> str:
    """Run this module with the shim before everything else; returns what it said.

    Raises:
        subprocess.CalledProcessError: something was lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LD_PRELOAD": str(build(Path(folder))), "OMP_NUM_THREADS": "1"}
        environment |= {"INFINITETALK_CACHE": str(Path(folder, "cache"))}
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--shimmed", *words]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


class Runs:
    """A generator that is warm, and the video that it makes where nothing ends it."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        import torch
        from infinitetalk.pipeline import Generator, Job, Settings
        from infinitetalk.tests.golden.speech import save_wav
        from infinitetalk.tests.support import random_checkpoint
        from infinitetalk.tests.support.places import PORTRAIT

        torch.set_num_threads(1)
        weights = random_checkpoint.write(folder / "weights", random_checkpoint.TINY)
        noise = np.random.default_rng(0).normal(size=640 * FRAMES) * (np.arange(640 * FRAMES) // 3000 % 2)
        save_wav(folder / "speech.wav", (noise[:, None] * 3000).astype(np.int16), 16_000)
        files = {"ckpt_dir": weights.ckpt_dir, "infinitetalk_dir": weights.infinitetalk}
        small = {"size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 1, "device": "cpu"}
        scales = {"sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 1.0}
        self._generator = Generator(Settings(**files, wav2vec_dir=weights.wav2vec_dir, **small, **scales))
        self._job = Job(PORTRAIT, folder / "speech.wav", "p")
        self._folder = folder
        self._number = 0
        self._shim = ctypes.CDLL(None)
        self._save(self._place() / "out.mp4", False)
        gc.collect()
        gc.freeze()  # processes that are forked close nothing of this one's
        first = self._place()
        self.calls = self._in_child(lambda: self._counted(first)) + 256 * int((first / "count").read_text())
        (first / "count").unlink()
        self._whole = (first / "out.mp4").read_bytes()
        assert [path.name for path in first.iterdir()] == ["out.mp4"]

    def _place(self) -> Path:
        self._number += 1
        place = self._folder / f"{self._number}"
        place.mkdir()
        return place

    def _save(self, path: Path, resume: bool) -> None:
        self._generator.save(self._job, path, self._generator.settings.replace(resume=resume))

    def _counted(self, place: Path) -> int:
        self._arm(place, -1, 0)
        self._save(place / "out.mp4", False)
        count = self._shim.crash_count()
        (place / "count").write_text(str(count // 256))
        return count % 256

    def _arm(self, place: Path, number: int, error: int) -> None:
        self._shim.crash_arm(str(place).encode(), ctypes.c_long(number), error)

    def _in_child(self, act: Callable[[], int | None]) -> int:
        """The exit code of a process that does this."""
        from infinitetalk.pipeline import InputError

        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = act() or 0
            except InputError:
                code = REFUSED
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def lost(self, number: int, error: int) -> str:
        """What a crash at this call, or its failing, has cost; empty if nothing."""
        place = self._place()
        path = place / "out.mp4"

        def strike() -> None:
            self._arm(place, number, error)
            self._save(path, False)

        ended = self._in_child(strike)
        if ended != CRASHED and not (error and ended in (0, REFUSED)):
            return f"it ended with {ended}"
        again = self._in_child(lambda: self._save(path, True))
        if again not in (0, REFUSED) or not path.exists():
            return f"going on ended with {again}"
        if path.read_bytes() != self._whole:
            return "going on ended with another video"
        left = sorted(file.name for file in place.iterdir() if file != path)
        return f"there is still {', '.join(left)}" if left else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shimmed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th call")
    given = parser.parse_args()
    if not given.shimmed:
        print(run_all("--every", str(given.every)), end="")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder).resolve())
        numbers, lost = range(0, runs.calls, given.every), 0
        for number in numbers:
            for error in (0, errno.ENOSPC):
                found = runs.lost(number, error)
                if found:
                    print(f"call {number} of {runs.calls} {'failed' if error else 'crashed'}: {found}", flush=True)
                    lost += 1
        print(f"{len(numbers)} of {runs.calls} calls crashed and failed; {lost or 'no'} videos were lost")
    return min(lost, 1)


if __name__ == "__main__":
    sys.exit(main())
