"""The engine's structure in figures: ``python -m infinitetalk.scripts.house [CHECKOUT ...]``.

Reads imports and definitions as text, so that any version can be measured: modules at the top of ``pipeline/``, circles
between its rooms, imports against the order in pyproject.toml, the longest module and function.
"""

from __future__ import annotations

import argparse
import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
Arrow = tuple[str, str, str]  # file, its room, the room that it imports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT], help="folders; this one if left out")
    for checkout in parser.parse_args().checkouts:
        print(f"{checkout.resolve().name}:")
        for name, value in figures(checkout / "pipeline").items():
            print(f"  {name:36} {value}")


def figures(engine: Path) -> dict[str, str]:
    """What is told of an engine, by name."""
    files = sorted(engine.rglob("*.py"))
    top = [path for path in engine.glob("*.py") if path.name != "__init__.py"]
    arrows = [arrow for path in files for arrow in imports(path, engine)]
    upward = [f"{file} -> {room}" for file, own, room in arrows if against(own, room)]
    module = max(files, key=lines)
    function = max((found for path in files for found in functions(path)), key=lambda found: found[1])
    return {
        "modules at the top of pipeline/": str(len(top)),
        "modules in all": str(len(files)),
        "circles between rooms": told(circles(arrows)),
        "imports against the order": told(upward),
        "longest module, lines": f"{lines(module)} ({module.relative_to(engine)})",
        "longest function, lines": f"{function[1]} ({function[0]})",
    }


def told(found: list[str]) -> str:
    return f"{len(found)}" + (f" ({'; '.join(found)})" if found else "")


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of each function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.stem}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def imports(path: Path, engine: Path) -> Iterator[Arrow]:
    """The rooms that a file imports, but for its own and for what only a type checker reads."""
    inside = path.relative_to(engine).with_suffix("").parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in checking:
            base = inside[: len(inside) - node.level]
            if node.level > len(inside):  # the root, which is no room
                continue
            module = (*base, *(node.module or "").split(".")) if node.module else base
            rooms = [module[0]] if module else [alias.name for alias in node.names]
            yield from ((str(path.relative_to(engine)), inside[0], room) for room in rooms if room != inside[0])


def order() -> dict[str, int]:
    """How far from the top each room is."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return {name.strip(" ()"): floor for floor, layer in enumerate(layers) for name in layer.split("|")}


ORDER = order()


def against(own: str, room: str) -> bool:
    """Whether an import goes up, as far as both rooms are in the order."""
    return own in ORDER and room in ORDER and ORDER[own] >= ORDER[room]


def circles(arrows: list[Arrow]) -> list[str]:
    """Groups of rooms that import each other, directly or by way of others."""
    below: dict[str, set[str]] = defaultdict(set)
    for _, own, room in arrows:
        below[own].add(room)

    def reached(room: str) -> set[str]:
        seen: set[str] = set()
        waiting = [room]
        while waiting:
            new = below[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    reach = {room: reached(room) for room in list(below)}
    groups = {
        frozenset(other for other in reach[room] if room in reach.get(other, ()))
        for room in reach
        if room in reach[room]
    }
    return sorted(", ".join(sorted(group)) for group in groups)


if __name__ == "__main__":
    main()
