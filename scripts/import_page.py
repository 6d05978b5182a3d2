"""Writes the tables of nodes in docs/import.md and docs/import.zh-CN.md from import_nodes.toml, between marks.

``python -m infinitetalk.scripts.import_page`` rewrites them; tests fail where a page says something else, and where a
node that the exporter reads is in no row.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

from ..pipeline.graphs.native.sampling import LOOPED, STREAMED
from ..pipeline.graphs.workflow_file import INERT

ROOT = Path(__file__).parent.parent
DOCS, GRAPHS = ROOT / "docs", ROOT / "pipeline" / "graphs"
TABLE = Path(__file__).parent / "import_nodes.toml"
PARTS = ("wrapper", "core", "both")
PAGES = {"en": DOCS / "import.md", "zh": DOCS / "import.zh-CN.md"}
HEADS = {"en": ("node", "becomes", "take"), "zh": ("节点", "变成", "是否同一条")}
WORDS = {
    "en": {
        "same": "the same",
        "near": "the same up to",
        "other": "another",
        "precision": "the same; rounds otherwise",
        "none": "no frame depends on it",
    },
    "zh": {
        "same": "相同",
        "near": "除此之外相同",
        "other": "另一条",
        "precision": "相同；舍入不同",
        "none": "不影响画面",
    },
}
# words that look like a node's name and are none
_NO_NODES = {"FantasyTalking", "FlowEdit", "FreeInit", "Uni3C"}
_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{3,40}(\+| \(rgthree\))?")


def rows(part: str) -> list[dict[str, Any]]:
    """The rows of one of ``PARTS``."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))[part]


def nodes_told() -> set[str]:
    """Every node that is in a row."""
    return {node for part in PARTS for row in rows(part) for node in row["nodes"]}


def nodes_read() -> set[str]:
    """Every node of others, and ours around the core's model, that the readers name: text written as classes are."""
    found = set()
    for path in GRAPHS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
                found.add(node.value)
    ours = {name for name in found if name.startswith("InfiniteTalk") and name not in (STREAMED, LOOPED)}
    return {name for name in found if _is_class(name)} - ours - _NO_NODES - set(INERT)


def _is_class(name: str) -> bool:
    return name.endswith(")") or sum(letter.isupper() for letter in name) > 1 and not name.isupper()


def table(part: str, language: str) -> str:
    """One table, as Markdown."""
    words = WORDS[language]
    lines = ["| " + " | ".join(HEADS[language]) + " |", "|---|---|---|"]
    for row in rows(part):
        english = language == "en"
        verdict = ("; " if english else "；").join(words[each] for each in row["verdict"])
        why, colon = (row.get("why"), ": ") if english else (row.get("why_zh"), "：")
        cells = ", ".join(row["nodes"]), row[language], verdict + (colon + why if why else "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def page(language: str) -> str:
    """A page with its tables made anew."""
    text = PAGES[language].read_text(encoding="utf-8")
    for part in PARTS:
        begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->\n"
        head, rest = text.split(begin)
        text = head + begin + table(part, language) + end + rest.split(end)[1]
    return text


def main() -> None:
    for language, path in PAGES.items():
        path.write_text(page(language), encoding="utf-8")


if __name__ == "__main__":
    main()
