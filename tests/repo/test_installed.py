"""What users get, run without the repository: the wheel, and what ComfyUI's registry takes of a clone.

Each is laid out in a folder of its own, and one process runs every command's help and small runs of the others there.
"""

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import infinitetalk
import pytest
from infinitetalk.tests.support.places import ROOT

NOT_FOR_USERS = {"benchmarks", "scripts", "tests", "training"}
FOR_TWO = "assets/demo_model/InfiniteTalk/multi/"  # of the clone and the wheel alone
FOR_COMFYUI = {"nodes", "locales", "web", "workflows", "requirements.txt"}
# of what the wheel is made: folders that it holds whole, and modules beside them
IN_WHEEL = {"pipeline", "presets", "assets", "py.typed", "__init__.py", "__main__.py", "generate_infinitetalk.py"}
# in these two lines lies the whole difference between a wheel and a clone
START_WHEEL = """
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="infinitetalk")
main = script.load()
"""
START_CLONE = """
import generate_infinitetalk
generate_infinitetalk.register_package()
from infinitetalk.pipeline.commands.main import main
"""
# the test environment's own finder of the package would lend what is missing here
ALONE = """
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, PathFinder]
"""
RUN = """
import contextlib, dataclasses, importlib, io, json, shlex
from pathlib import Path
import infinitetalk
from infinitetalk.pipeline.commands import timing
from infinitetalk.pipeline.commands.help import demo_command
from infinitetalk.pipeline.commands.table import COMMANDS
from infinitetalk.pipeline.facts.model_sizes import WAN_14B

little = dataclasses.replace(WAN_14B, dim=64, ffn_dim=128, num_heads=2, num_layers=2)
timing.usual_sizes = lambda device: timing.Sizes(little, 8, 64, 64, 13)
small = "--size 64x64 --frame_num 17 --motion_frame 5 --max_frame_num 17 --sample_steps 1 --quiet --device cpu".split()
demo = shlex.split(demo_command().replace("\\\\\\n", " "))[1:]
helps = [[name, "--help"] for name in COMMANDS]
makes = [["doctor"], ["bench"], [*demo, *small], ["info", "talking.mp4"]]
runs = [["--help"], [], ["presets"], *(makes if ALL else [])]
told = {}
for argv in [*helps, *runs]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    told[" ".join(argv[:2])] = code, out.getvalue(), err.getvalue()
Path("told.json").write_text(json.dumps({"file": infinitetalk.__file__, "told": told}))
"""


def tracked():
    """The repository's files, new ones included, as names from its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def lay_out(names, folder):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """What the registry takes, in a folder that is no Python identifier."""
    ignored = tuple((ROOT / ".comfyignore").read_text(encoding="utf-8").split())
    assert all(line.endswith("/") and "*" not in line and not line.startswith("!") for line in ignored)
    kept = [name for name in tracked() if not name.startswith(ignored)]
    return lay_out(kept, tmp_path_factory.mktemp("registry") / "ComfyUI-InfiniteTalk 0.1 (copy)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the whole repository, unpacked."""
    clone = lay_out(tracked(), tmp_path_factory.mktemp("clone"))
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    built, unpacked = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", build, str(built)]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(built.glob("*.whl"))) as file:
        file.extractall(unpacked)
    return unpacked


def test_the_packages_that_are_named_are_those_on_disk():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {Path(name).parent for name in tracked() if name.startswith("pipeline/") and name.endswith(".py")}
    assert named == ["infinitetalk", *sorted(".".join(["infinitetalk", *folder.parts]) for folder in folders)]
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").is_file()] == []


def test_the_wheel_holds_the_program_and_nothing_else(wheel):
    held = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    wanted = {f"infinitetalk/{name}" for name in tracked() if name.split("/")[0] in IN_WHEEL}
    assert {name for name in held if ".dist-info/" not in name} == wanted


def test_the_registry_takes_the_program_and_the_nodes_but_not_what_developers_need(registry):
    held = {path.name for path in registry.iterdir()}
    assert held >= IN_WHEEL | FOR_COMFYUI
    assert held & NOT_FOR_USERS == set()
    in_wheel = [name for name in tracked() if name.split("/")[0] in IN_WHEEL]
    left_out = {name for name in in_wheel if not (registry / name).is_file()}
    assert left_out == {name for name in in_wheel if name.startswith(FOR_TWO)}


@pytest.mark.whole
@pytest.mark.parametrize(
    ("layout", "start", "everything"), [("wheel", START_WHEEL, True), ("registry", START_CLONE, False)]
)
def test_every_command_runs_from_what_users_get(request, tmp_path, layout, start, everything):
    """What makes something from the wheel alone: the registry's files are these and more."""
    folder = request.getfixturevalue(layout)
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{ALONE}{start}\nALL = {everything}\n{RUN}"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "told.json").read_text())
    assert Path(found["file"]).is_relative_to(folder)
    assert {words: (code, err) for words, (code, _, err) in found["told"].items() if code} == {}
    told = {words: out for words, (_, out, _) in found["told"].items()}
    assert all(told[words].startswith("usage: infinitetalk") for words in told if words.endswith("--help"))
    assert "03_balanced" in told["presets"]
    if everything:
        assert "nothing stands in the way" in told["doctor"]
        assert "a piece of it does not run here" not in told["bench"] and "03_balanced" in told["bench"]
        assert (tmp_path / "talking.mp4").stat().st_size > 1000 and "--size 64x64" in told["info talking.mp4"]


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_script_runs_its_own_folder_from_anywhere(registry, tmp_path, flag):
    version = registry / "pipeline" / "version.py"
    version.write_text(version.read_text(encoding="utf-8").replace(infinitetalk.__version__, "9.9.9"), encoding="utf-8")
    command = [sys.executable, "-I", str(registry / "generate_infinitetalk.py"), flag]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert ("9.9.9" if flag == "--version" else "--infinitetalk_dir") in done.stdout
