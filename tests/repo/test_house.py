"""What the contract of imports in pyproject.toml (``make lint``) cannot say of the rooms."""

import ast

import pytest
from infinitetalk.tests.support.places import ROOT

ENGINE = sorted((ROOT / "pipeline").rglob("*.py"))
CODE = [
    path
    for room in ("pipeline", "nodes", "scripts", "training", "benchmarks", "tests")
    for path in (ROOT / room).rglob("*.py")
]
LONGEST = 450  # lines of a module
HOSTS = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "server", "nodes"}
OURS_OUTSIDE = {"infinitetalk", "scripts", "training", "tests", "benchmarks"}
ONLY_IN = {  # package -> the rooms that may name it
    "torch.distributed": {"parallel"},
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "sqlite3"), {"serve"}),
    "ray": {"batch"},
}


def imports(path):
    """Modules that a file imports: absolute names, and for relative ones how many folders up they go."""
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            yield from ((alias.name, 0) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield statement.module or "", statement.level
            if not statement.level:
                yield from ((f"{statement.module}.{alias.name}", 0) for alias in statement.names)


def misplaced(path, engine=ROOT / "pipeline"):
    """Imports of a file of the engine that its room may not have."""
    inside = path.relative_to(engine)
    room = inside.parts[0].removesuffix(".py")
    for module, level in imports(path):
        if level > len(inside.parts):
            yield f"{inside}: {'.' * level}{module}"
        if not level and module.partition(".")[0] in HOSTS | OURS_OUTSIDE:
            yield f"{inside}: {module}"
        for package, rooms in ONLY_IN.items():
            if not level and (module == package or module.startswith(f"{package}.")) and room not in rooms:
                yield f"{inside}: {module}"


def test_the_engine_imports_nothing_above_it_and_each_room_only_its_own_packages():
    assert [found for path in ENGINE for found in misplaced(path)] == []


def too_long(paths):
    """Modules that have more lines than one reads as one."""
    return [path.name for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST]


def test_no_module_is_too_long(tmp_path):
    assert too_long(CODE) == []
    (tmp_path / "planted.py").write_text("\n" * (LONGEST + 1))
    assert too_long([tmp_path / "planted.py"]) == ["planted.py"]


@pytest.mark.parametrize(
    "line",
    [
        "from ... import __version__",
        "from ...nodes import sampler",
        "import comfy.model_management",
        "from infinitetalk.pipeline.run import generator",
        "import torch.distributed as dist",
        "from torch import distributed",
        "import ray",
    ],
)
def test_a_planted_import_is_found(tmp_path, line):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "planted.py").write_text(line)
    assert len(list(misplaced(tmp_path / "run" / "planted.py", tmp_path))) >= 1
