"""What leaves the repository: the wheel, the requirements, the script that runs from a clone."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import infinitetalk
import pytest

ROOT = Path(infinitetalk.__file__).resolve().parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOST_OWNS = {"torch", "torchaudio", "torchvision", "numpy", "transformers", "diffusers", "torchao", "huggingface-hub"}


def requirement_name(line):
    return re.match(r"[A-Za-z0-9._-]+", line).group().lower()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The sources alone, in a folder that is no Python identifier."""
    target = tmp_path_factory.mktemp("clone") / "ComfyUI-InfiniteTalk 0.1 (copy)"
    kept = ("pipeline", "presets", "assets")
    for name in kept:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "generate_infinitetalk.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def test_one_version():
    assert PROJECT["version"] == infinitetalk.__version__


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, infinitetalk; print(sorted({'torch', 'numpy', 'transformers', 'av', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_script_runs_its_own_folder_from_anywhere(copy, tmp_path, flag):
    init = copy / "__init__.py"
    init.write_text(init.read_text(encoding="utf-8").replace(infinitetalk.__version__, "9.9.9"), encoding="utf-8")
    command = [sys.executable, "-I", str(copy / "generate_infinitetalk.py"), flag]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert ("9.9.9" if flag == "--version" else "--infinitetalk_dir") in done.stdout


def test_wheel_holds_the_package_and_nothing_else(copy, tmp_path):
    (copy / "tests").mkdir(exist_ok=True)
    (copy / "tests" / "test_nothing.py").write_text("")
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {path for folder in ("pipeline", "presets", "assets") for path in (ROOT / folder).rglob("*")}
    wanted = {path.relative_to(ROOT).as_posix() for path in sources if path.is_file() and path.suffix != ".pyc"}
    wanted |= {"__init__.py", "generate_infinitetalk.py"}
    assert held == {f"infinitetalk/{name}" for name in wanted}


def test_comfyui_requirements_are_small_leaves():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    leaves = [line for line in lines if line and not line.startswith("#")]
    assert leaves
    for line in leaves:
        assert line in PROJECT["dependencies"]
        assert requirement_name(line) not in HOST_OWNS
        needs = importlib.metadata.requires(requirement_name(line)) or []
        needed = {requirement_name(need) for need in needs if "extra ==" not in need}
        assert needed <= {"numpy", "scipy", "wcwidth", "typing-extensions"}, f"{line} brings {needed}"
