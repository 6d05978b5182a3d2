"""Forty jobs of the demo on two workers, some of them bad: killed on the way, compared with single runs, timed.

``python -m infinitetalk.tests.support.batches`` does all of it; ``make test-batch`` calls it, and
``make test`` has a sample. Every process computes with one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infinitetalk.tests.support.places import PORTRAIT, SPEECH

BAD = (  # what is wrong with them, and what their sentence says
    ({"image": "none.png"}, "does not exist"),
    ({"audio": "text.wav"}, "text.wav"),
    ({"sample_steps": 0}, "--sample_steps"),
    ({"frame_num": 80}, "4n+1 expected"),
    ({"imge": "me.png"}, "did you mean image?"),
    ("{", "it is not JSON"),
)
PROGRAM = [sys.executable, "-m", "infinitetalk"]  # the one that tests import
FLAGS = ["--preset", "demo", "--device", "cpu", "--mode", "clip", "--threads", "1", "--config", "none"]


def environment(cache: Path) -> dict[str, str]:
    """One thread, a cache of one's own, and English."""
    own = {"INFINITETALK_CACHE": str(cache), "INFINITETALK_LANG": "en", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


class Run:
    """A manifest in a folder, and what becomes of it.

    Args:
        jobs: how many, of which ``bad`` are bad.
        flags: that all have.
        make: runs a single command with such words, returning its code; else a process of its own does.
    """

    def __init__(
        self, folder: Path, jobs: int, bad: int, flags: list[str], make: Callable[[list[str]], int] | None = None
    ) -> None:
        self.folder = folder
        self._make = make or self._in_a_process
        self.flags = flags
        shutil.copy(PORTRAIT, folder / "me.png")
        shutil.copy(SPEECH, folder / "a.wav")
        (folder / "text.wav").write_text("no sound")
        good = [{"id": f"job{number:02d}", "image": "me.png", "audio": "a.wav"} for number in range(jobs - bad)]
        self.good = [job | {"base_seed": number} for number, job in enumerate(good)]
        lines = [json.dumps(job) for job in self.good]
        for number, (wrong, _) in enumerate(BAD[:bad]):
            whole = {"id": f"bad{number}", "image": "me.png", "audio": "a.wav"}
            line = wrong if isinstance(wrong, str) else json.dumps(whole | wrong)
            lines.insert(number * len(lines) // bad, line)
        (folder / "jobs.jsonl").write_text("\n".join(lines) + "\n")
        self.bad = bad

    def start(self, out: str, workers: int) -> subprocess.Popen:
        """Begin the batch."""
        words = ["batch", "jobs.jsonl", "--out", out, *self.flags, "--workers", str(workers)]
        return self._popen(words)

    def _popen(self, words: list[str]) -> subprocess.Popen:
        with (self.folder / "log").open("ab") as log:
            own = environment(self.folder / "cache")
            return subprocess.Popen([*PROGRAM, *words], cwd=self.folder, env=own, stdout=log, stderr=log)

    def killed(self, out: str, workers: int, kills: int, last: int | None = None, seed: int = 0) -> tuple[int, int]:
        """Run the batch, killed so many times on the way; how it ended at last, and how often it was killed in work.

        It is killed wherever it is, a while after there is one more video.

        Args:
            last: workers of the run that is not killed; None: as many.
        """
        chance, done = random.Random(seed), 0
        for _ in range(kills):
            process, before, wanted = self.start(out, workers), self.results(out), chance.random() * 3
            while process.poll() is None and self.results(out) <= before:
                time.sleep(0.02)
            end = time.monotonic() + wanted
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                done += 1
            process.wait()
        return self.start(out, last or workers).wait(), done

    def results(self, out: str) -> int:
        """Videos that are there."""
        return len(list((self.folder / out).glob("*.mp4")))

    def check(self, out: str, singles: int) -> None:
        """See that results and videos are as they should be; so many videos are compared with single runs."""
        lines = (self.folder / out / "results.jsonl").read_text().splitlines()
        found = {result["id"]: result for result in map(json.loads, lines)}
        assert len(found) == len(lines) == len(self.good) + self.bad, (self.folder / "log").read_text()[-3000:]
        failed = [result["error"] for result in found.values() if result["state"] == "failed"]
        assert len(failed) == self.bad
        assert all(any(words in sentence for sentence in failed) for _, words in BAD[: self.bad]), failed
        names = sorted(path.name for path in (self.folder / out).iterdir())
        assert names == [*(f"{job['id']}.mp4" for job in self.good), "results.jsonl"], names
        for job in self.good[:: max(1, len(self.good) // max(1, singles))][:singles]:
            assert self.hash(out, job["id"]) == self.single(out, job), job["id"]

    def hash(self, out: str, id: str) -> str:
        """Of a video's bytes."""
        return hashlib.sha256((self.folder / out / f"{id}.mp4").read_bytes()).hexdigest()

    def single(self, out: str, job: dict) -> str:
        """The same of what a command makes for one job, under the same name, which it carries."""
        words = [f"--{name}={value}" for name, value in job.items() if name != "id"]
        path = self.folder / out / f"{job['id']}.mp4"
        path.unlink()
        assert self._make([*self.flags, *words, "--save_file", f"{out}/{job['id']}.mp4"]) == 0
        return self.hash(out, job["id"])

    def _in_a_process(self, words: list[str]) -> int:
        return self._popen(["generate", *words]).wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--bad", type=int, default=len(BAD))
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--singles", type=int, default=34, help="videos that are compared with single runs")
    parser.add_argument("--timed", action="store_true", help="times of one worker, of two, and of single runs as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), options.jobs, options.bad, FLAGS)
        code, kills = run.killed("out", 2, options.kills)
        assert code == 3
        print(f"killed {kills} times", flush=True)
        began = time.monotonic()
        run.check("out", options.singles)
        single = (time.monotonic() - began) / max(1, options.singles)
        if options.timed:
            seconds = {workers: timed(run, f"timed{workers}", workers) for workers in (1, 2)}
            good = len(run.good)
            print(
                f"one worker {seconds[1]:.1f} s, two {seconds[2]:.1f} s: {seconds[1] / seconds[2] / 2:.3f} of the ideal"
            )
            print(f"a job: {seconds[1] / good:.2f} s by one worker, {single:.2f} s by a command of its own")
        print(f"{len(run.good)} videos, {options.singles} compared with single runs; {run.bad} sentences")


def timed(run: Run, out: str, workers: int) -> float:
    """Seconds of a batch that nothing ends."""
    began = time.monotonic()
    assert run.start(out, workers).wait() == 3
    return time.monotonic() - began


if __name__ == "__main__":
    main()
