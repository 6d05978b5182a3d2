"""The sentences that people are told, as templates gathered from the code, and which of them have no Chinese.

``python -m infinitetalk.scripts.sentences`` prints those without an entry in pipeline/facts/chinese.toml, as lines to
paste there; a test fails where there is one.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ..pipeline.facts.language import texts

ENGINE = Path(__file__).parent.parent / "pipeline"
SAYERS = {"InputError", "NotFinite", "Unavailable", "Notice", "Loading", "Fact", "Line", "note", "refusal"}
SAYERS |= {"error", "_not_read", "_misfit", "_in_the_way", "Missing", "_say"}
KEYWORDS = {"refusal", "refused"}
WHOLE = {"planning/notices.py", "residency/host_memory.py", "run/not_finite.py", "settings/validation.py"}
_NAMED = re.compile(r"(\{\}|--\{\}|--\w+): ")  # who says it: a flag, a file, a command


def templates() -> set[str]:
    """Every template that must have an entry."""
    return {found for path in ENGINE.rglob("*.py") for found in _in_module(path)}


def missing() -> list[str]:
    """Those that have none."""
    return sorted(templates() - set(texts()["sentences"]))


def key(template: str) -> str:
    """The template without the flag or the file that it begins with, which is said for itself."""
    rest = _NAMED.sub("", template, count=1) if _NAMED.match(template) else template
    return rest if len(_words(rest)) > 2 else template


def _words(template: str) -> list[str]:
    return template.replace("{}", "").split()


def _in_module(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    whole = path.relative_to(ENGINE).as_posix() in WHOLE
    for node in ast.walk(tree):
        said: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            said += node.args if name in SAYERS else []
            said += [word.value for word in node.keywords if word.arg in KEYWORDS]
        elif whole and isinstance(node, ast.JoinedStr):
            said.append(node)
        for expression in said:
            yield from _sentences(expression)


def _sentences(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _sentences(node.body)
        yield from _sentences(node.orelse)
    elif (found := template_of(node)) is not None:
        found = key(found)
        if len(_words(found)) > 1 and re.search("[a-z]{2}", found.replace("{}", "")):
            yield found


def template_of(node: ast.expr) -> str | None:
    """A text as it is written, with {} for what is put in; None if it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if isinstance(node, ast.JoinedStr):
        return "".join(template_of(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template_of(node.left), template_of(node.right)
        return None if left is right is None else (left or "{}") + (right or "{}")
    return None


if __name__ == "__main__":
    for template in missing():
        print(f'{json.dumps(template, ensure_ascii=False)} = ""')
