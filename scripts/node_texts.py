"""Writes the nodes' texts: ``locales/`` and the help pages in ``web/docs/``, in English and Chinese.

English comes from the nodes' own schemas, as a running ComfyUI tells them; Chinese, and the notes of the help
pages in both, from the two files ``node_texts_*.toml`` beside this one. Run it as
``python -m infinitetalk.scripts.node_texts COMFYUI PYTHON``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import tomllib
from collections.abc import Collection
from pathlib import Path

from ..tests.support import comfy_host

ROOT = Path(__file__).parent.parent
PREFIX = "InfiniteTalk"
NEWER = ("InfiniteTalkCoreSampler",)  # nodes that newer hosts alone offer; with an older one their texts stay


def texts() -> dict[str, dict]:
    """What is written by hand, by language: names, tooltips and notes."""
    read = {}
    for language in ("en", "zh"):
        with (Path(__file__).parent / f"node_texts_{language}.toml").open("rb") as file:
            read[language] = tomllib.load(file)
    return read


def files(info: dict[str, dict]) -> dict[str, str]:
    """Path in the repository -> content, of everything that is written.

    Args:
        info: what ComfyUI answers to /object_info.

    Raises:
        KeyError: a text is missing in Chinese.
    """
    nodes = {name: node for name, node in sorted(info.items()) if name.startswith(PREFIX)}
    read = texts()
    definitions = {
        "en": {name: _english(node) for name, node in nodes.items()},
        "zh": {name: _chinese(name, node, read["zh"]) for name, node in nodes.items()},
    }
    made = {}
    for language, defined in definitions.items():
        folder = f"locales/{language}"
        made[f"{folder}/nodeDefs.json"] = _json(dict(sorted({**_written(folder, nodes), **defined}.items())))
        made[f"{folder}/commands.json"] = _json({key: {"label": t} for key, t in read[language]["commands"].items()})
        made[f"{folder}/main.json"] = _json({"nodeCategories": {PREFIX: PREFIX}})
        for name in nodes:
            page = _page(defined[name], read[language]["notes"].get(name, ""), read[language]["page"]["words"])
            # the page in English is also that of all other languages
            made[f"web/docs/{name}.md" if language == "en" else f"web/docs/{name}/{language}.md"] = page
    return made


def _written(folder: str, nodes: Collection[str]) -> dict[str, dict]:
    """What was written for nodes that this host does not offer."""
    before = json.loads((ROOT / folder / "nodeDefs.json").read_text(encoding="utf-8"))
    return {name: before[name] for name in NEWER if name in before and name not in nodes}


def _inputs(node: dict) -> dict[str, dict]:
    groups = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    return {name: specification[1] for name, specification in groups.items()}


def _english(node: dict) -> dict:
    inputs = {
        name: {"name": options.get("display_name", name), "tooltip": options["tooltip"]}
        for name, options in _inputs(node).items()
    }
    pairs = zip(node["output_name"], node["output_tooltips"], strict=True)
    outputs = {str(index): {"name": name, "tooltip": tooltip} for index, (name, tooltip) in enumerate(pairs)}
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def _chinese(name: str, node: dict, zh: dict) -> dict:
    own = zh["nodes"][name]

    def text(slot: str) -> dict:
        label, tooltip = own.get(slot) or zh["slots"][slot]
        return {"name": label, "tooltip": tooltip}

    outputs = {str(index): text(f"out_{slot}") for index, slot in enumerate(node["output_name"])}
    return {
        "display_name": own["display_name"],
        "description": own["description"],
        "inputs": {slot: text(slot) for slot in _inputs(node)},
        "outputs": outputs,
    }


def _page(defined: dict, notes: str, words: list[str]) -> str:
    inputs, outputs, input_, output, what = words
    lines = [f"# {defined['display_name']}", "", defined["description"], ""]
    if notes:
        lines += [notes.strip(), ""]
    for heading, column, slots in ((inputs, input_, defined["inputs"]), (outputs, output, defined["outputs"])):
        if slots:
            lines += [f"## {heading}", "", f"| {column} | {what} |", "|---|---|"]
            for key, slot in slots.items():
                label = slot["name"] if key.isdigit() or key == slot["name"] else f"{slot['name']} `{key}`"
                lines.append(f"| {label} | {slot['tooltip']} |".replace("\n", " "))
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def write(source: Path, python: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        comfy_host.prepare(Path(folder), ROOT, "infinitetalk")
        with comfy_host.running(source, python, Path(folder)) as host:
            made = files(host.get_json("/object_info"))
    for path, content in made.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
