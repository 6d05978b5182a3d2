"""Graphs that were made to be heavy, by name; ``python -m infinitetalk.tests.support.hostile_graphs`` measures them.

Each is exported by a process of its own, as a user would: what it says, processor time and memory. Aims: 5 s, 300 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...pipeline.graphs.graph import MOST_NODES
from .graph_parts import node, sink, source, workflow

Graph = dict[str, Any]


def nested(definitions: int, each: int) -> Graph:
    """So many definitions of subgraphs that each hold ``each`` of the next."""
    subgraphs = [
        {"id": f"g{n}", "name": f"g{n}", "links": [], "nodes": [node(i, f"g{n + 1}") for i in range(each)]}
        for n in range(definitions)
    ]
    return {**workflow([node(1, "g0")], []), "definitions": {"subgraphs": subgraphs}}


def reroutes(count: int) -> Graph:
    """A link that passes so many reroutes."""
    numbers = range(10, 10 + count)
    nodes = [node(n, "Reroute", [("", "*", n)], ["*"]) for n in numbers]
    links = [[n, n - 1 if n > 10 else 1, 0, n, 0, "*"] for n in numbers]
    last = 10 + count
    return workflow([source(), *nodes, sink(last)], [*links, [last, last - 1, 0, 9, 0, "*"]])


def slot(text: str) -> Graph:
    """A prompt whose link comes from an output that no node has."""
    link = json.loads(f'["1", {text}]')
    return {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "inputs": {"x": link}}}


def windows(count: int) -> Graph:
    """So many windows of core's node, each of which takes the frames of all before it."""
    graph: Graph = {}
    for n in range(count):
        frames = {"previous_frames": [f"b{n - 1}", 0]} if n else {}
        graph[f"w{n}"] = {"class_type": "WanInfiniteTalkToVideo", "inputs": frames}
        more = {"more": [f"b{n - 1}", 0]} if n else {}
        graph[f"b{n}"] = {"class_type": "ImageBatch", "inputs": {"images": [f"w{n}", 3], **more}}
    return graph


def many(count: int) -> Graph:
    """A prompt of so many nodes."""
    return {str(n): {"class_type": "A", "inputs": {}} for n in range(count)}


def dense(count: int, each: int) -> Graph:
    """So many nodes that are each fed by so many before them."""
    return {
        str(n): {"class_type": "ImageBatch", "inputs": {f"x{m}": [str(m), 0] for m in range(max(0, n - each), n)}}
        for n in range(count)
    }


def prompt(text: str) -> Graph:
    """A prompt for Kijai's sampler."""
    encoder = {"class_type": "WanVideoTextEncode", "inputs": {"positive_prompt": text, "negative_prompt": ""}}
    sampler = {"class_type": "WanVideoSampler", "inputs": {"text_embeds": ["1", 0]}}
    return {"1": encoder, "2": sampler}


GRAPHS: dict[str, Callable[[], Graph]] = {
    "20 definitions, each holds two of the next": lambda: nested(20, 2),
    "3000 nested subgraphs": lambda: nested(3000, 1),
    "5000 reroutes": lambda: reroutes(5000),
    "slot NaN": lambda: slot("NaN"),
    "slot -5": lambda: slot("-5"),
    "slot Infinity": lambda: slot("Infinity"),
    "300 windows": lambda: windows(300),
    "500000 parentheses": lambda: prompt("(" * 500_000 + "x" + ")" * 500_000),
    f"{MOST_NODES + 1} nodes": lambda: many(MOST_NODES + 1),
    "4000 nodes, each fed by 200": lambda: dense(4000, 200),
}


def main() -> None:
    worst = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.json")
        for name, graph in GRAPHS.items():
            path.write_text(json.dumps(graph()), encoding="utf-8")
            words = [sys.executable, "-m", "infinitetalk", "export", str(path)]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            said = process.stderr.read() if process.stderr else ""
            _, status, usage = os.wait4(process.pid, 0)
            found = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
            worst = [max(pair) for pair in zip(worst, found, strict=True)]
            line = (said.strip().splitlines() or ["nothing"])[-1][:100]
            print(f"{name}: exit {os.waitstatus_to_exitcode(status)}, {found[0]:.1f} s, {found[1]:.0f} MB: {line}")
    print(f"at most {worst[0]:.1f} s of processor time and {worst[1]:.0f} MB")


if __name__ == "__main__":
    main()
