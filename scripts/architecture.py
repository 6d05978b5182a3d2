"""Writes the list of modules in docs/architecture.md, between two marks there; the rest is written by hand.

A module's line is the first one of its docstring. ``python -m infinitetalk.scripts.architecture`` rewrites the list;
a test fails where it is out of date, or a module says nothing of itself.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: begin -->\n", "<!-- modules: end -->\n"
ROOMS = ("pipeline", "nodes", "scripts", "training", "benchmarks", "tests/support", "tests/golden")


def modules_part() -> str:
    """What stands between the marks, as Markdown: a table for each folder, its own line above it."""
    return "".join(_folder(folder) for room in ROOMS for folder in _folders(ROOT / room)) + "\n"


def first_line(file: Path) -> str:
    """What a module says of itself.

    Raises:
        ValueError: it says nothing.
    """
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{file.relative_to(ROOT)} has no docstring, and so no line in {FILE.name}.")
    return docstring.splitlines()[0]


def _folders(top: Path) -> list[Path]:
    """``top`` and the packages in it, each before what it holds."""
    return sorted({file.parent for file in top.rglob("*.py")} | {top})


def _folder(folder: Path) -> str:
    name = folder.relative_to(ROOT).as_posix()
    lines = [f"\n#### `{name}/`\n"]
    package = folder / "__init__.py"
    if package.is_file():
        lines.append(f"{first_line(package)}\n")
    modules = [file for file in sorted(folder.glob("*.py")) if file != package]
    if modules:
        lines += ["| module | |", "|---|---|"]
        lines += [f"| [`{file.name}`](../{name}/{file.name}) | {_cell(first_line(file))} |" for file in modules]
    return "\n".join(lines).rstrip("\n") + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def on_page() -> str:
    """What stands between the marks now."""
    return FILE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    before, begin, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    FILE.write_text(before + begin + modules_part() + end + after, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
