"""What leaves the repository: the wheel, the requirements, the script that runs from a clone."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib

import infinitetalk
from infinitetalk.tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOST_OWNS = {"torch", "torchaudio", "torchvision", "numpy", "transformers", "diffusers", "torchao", "huggingface-hub"}


def requirement_name(line):
    return re.match(r"[A-Za-z0-9._-]+", line).group().lower()


def test_one_version():
    assert PROJECT["version"] == infinitetalk.__version__


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, infinitetalk; print(sorted({'torch', 'numpy', 'transformers', 'av', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
