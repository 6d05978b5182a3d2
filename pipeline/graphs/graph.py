"""A ComfyUI graph in one normal form, whatever file it came from.

Knows nodes, links and values, and how to walk from a node to what feeds it; knows no node kind but those that
hold a constant, and nothing of settings. ``read_graph`` takes what ComfyUI saves (``workflow_file`` unfolds it)
and what it queues (the API format). ComfyUI itself is not needed.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from ..errors import InputError, in_short
from ..facts.json_text import read_json

MOST_NODES, MOST_LINKS = 10_000, 100_000  # many times what people's graphs have
BYPASSED, MUTED = "bypassed", "muted"

# kinds whose only output is the value of their first widget: the frontend's, core's, KJNodes', and of two small packs
CONSTANTS = frozenset(
    ("PrimitiveNode", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean", "PrimitiveString")
    + ("PrimitiveStringMultiline", "INTConstant", "FloatConstant", "BOOLConstant", "StringConstant")
    + ("StringConstantMultiline", "Int", "Float", "String", "easy int", "easy float", "easy string", "easy boolean")
)
# where a graph is in what people have of it: a prompt that was queued, a payload for RunPod's worker, a page's export
_WRAPPERS = ("prompt", "output", "workflow", "input")
_WRAPPERS_DEEP = 4
SEEDS = ("Seed (rgthree)",)  # hold a seed of 0 or more; below it, they draw one for every run
_READ_FROM_TEXT = {"Int": int, "Float": float}  # ComfyLiterals has a text field for them


@dataclass(frozen=True)
class Origin:
    """Where a link comes from: a node's id and the number of its output. The node may be missing from the file."""

    node: str
    output: int


@dataclass(frozen=True)
class Node:
    """A node that runs.

    Attributes:
        id: as ComfyUI numbers them, "12:3" for node 3 in the subgraph 12.
        kind: its class.
        title: what the user calls it; the kind if nothing.
        values: widgets by name, where the file stores names.
        positional: widgets in order, where the file stores that; ``orders.with_names`` knows orders.
        links: what feeds its inputs, by name; past everything that only passes through. A linked widget's
            stored value does not count.
    """

    id: str
    kind: str
    title: str
    values: dict[str, object]
    positional: tuple[object, ...]
    links: dict[str, Origin]

    def __str__(self) -> str:
        title = f" {self.title!r}" if self.title != self.kind else ""
        return f"node {self.id}{title} ({self.kind})"


@dataclass(frozen=True)
class Skipped:
    """A node that does not run, and why: BYPASSED or MUTED."""

    node: Node
    why: str


@dataclass(frozen=True)
class Graph:
    """A graph.

    Attributes:
        nodes: those that run, by id.
        skipped: those that do not.
        name: what to call it in messages.
        saved: whether texts are as the page saves them; when it queues them, it drops comments and makes choices.
    """

    nodes: dict[str, Node]
    skipped: tuple[Skipped, ...] = ()
    name: str = "the graph"
    saved: bool = False


def read_graph(path: Path) -> Graph:
    """The graph of a .json file that ComfyUI saved or exported.

    Raises:
        InputError: it cannot be read, is no graph, or of an unknown version; or its links run in a circle.
    """
    try:
        data = read_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8; give a graph that ComfyUI saved as .json.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({in_short(error)}); save the graph in ComfyUI again.") from error
    return graph_of(data, str(path))


def graph_of(data: object, name: str = "the graph") -> Graph:
    """The graph in parsed JSON: in the API format or as the UI saves it, bare or inside what is sent to a server.

    Raises:
        InputError: see ``read_graph``.
    """
    from .workflow_file import unfold  # which builds what is defined here

    for _ in range(_WRAPPERS_DEEP):
        if (inside := _unpacked(data)) is None:
            break
        data = inside
    if isinstance(data, dict):
        if isinstance(data.get("nodes"), list):
            return _checked(unfold(data, name))
        if data and all(isinstance(n, dict) and isinstance(n.get("class_type"), str) for n in data.values()):
            return from_prompt(data, name)
    raise InputError(f"{name} is not a ComfyUI graph: it has neither nodes as the UI saves them nor as the API takes.")


def _unpacked(data: object) -> dict[str, object] | None:
    """What a dict holds under one of _WRAPPERS that is no node itself; None for a bare graph."""
    if not isinstance(data, dict) or isinstance(data.get("nodes"), list):
        return None
    for wrapper in _WRAPPERS:
        inside = data.get(wrapper)
        if isinstance(inside, str) and inside.lstrip().startswith("{"):  # as VideoHelperSuite stores a prompt
            try:
                inside = read_json(inside)
            except ValueError:
                continue
        if isinstance(inside, dict) and not isinstance(inside.get("class_type"), str):
            return inside
    return None


def from_prompt(prompt: dict[str, dict[str, object]], name: str = "the graph") -> Graph:
    """The graph of a prompt: the API format, in memory.

    Raises:
        InputError: an entry is no node, or links run in a circle.
    """
    nodes: dict[str, Node] = {}
    most = MOST_LINKS
    for identity, entry in prompt.items():
        kind, inputs = entry.get("class_type"), entry.get("inputs", {})
        if len(nodes) >= MOST_NODES:
            raise too_large(name)
        if not isinstance(kind, str) or not isinstance(inputs, dict):
            raise InputError(f"{name}: node {identity} has no class_type or no inputs; export the graph again.")
        links = {}
        for key, value in inputs.items():
            if _is_link(value):
                links[key] = Origin(value[0], _slot(value[1], f"{name}: node {identity}: its input {key}"))
        most -= len(links)
        if most < 0:
            raise too_large(name, MOST_LINKS, "links")
        values = {key: _unwrapped(value) for key, value in inputs.items() if key not in links}
        about = entry.get("_meta")
        title = about.get("title") if isinstance(about, dict) else None
        nodes[str(identity)] = Node(str(identity), kind, str(title or kind), values, (), links)
    return _checked(Graph(nodes, name=name))


def too_large(name: str, most: int = MOST_NODES, what: str = "nodes") -> InputError:
    """More than so many nodes or links, counted with every subgraph in the place of its node."""
    return InputError(f"{name} has more than {most} {what}; export the part that makes the video.")


def _is_link(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
        and not isinstance(value[1], bool)
    )


def _slot(number: float, where: str) -> int:
    if not math.isfinite(number) or number != int(number) or number < 0:
        raise InputError(f"{where} is linked to output {number} of a node; no node has that, link it again.")
    return int(number)


def _unwrapped(value: object) -> object:
    """Lists that are no links come as ``{"__value__": [...]}``."""
    return value["__value__"] if isinstance(value, dict) and value.keys() == {"__value__"} else value


def _checked(graph: Graph) -> Graph:
    """The same graph; its links are no more than people's graphs have, and do not run in a circle."""
    if sum(len(node.links) for node in graph.nodes.values()) > MOST_LINKS:
        raise too_large(graph.name, MOST_LINKS, "links")
    ways = {node.id: [origin.node for origin in node.links.values()] for node in graph.nodes.values()}
    try:
        TopologicalSorter(ways).prepare()
    except CycleError as error:
        names = " -> ".join(str(graph.nodes[identity]) for identity in error.args[1])
        raise InputError(f"{graph.name}: links run in a circle: {names}; remove one of them.") from error
    return graph


def of_kind(graph: Graph, *kinds: str) -> list[Node]:
    """The nodes of these kinds, in the order of the file."""
    return [node for node in graph.nodes.values() if node.kind in kinds]


def only(graph: Graph, kinds: Iterable[str], what: str, chosen: str | None = None) -> Node:
    """The one node of these kinds, or the chosen one.

    Args:
        what: for messages, such as "sampler".
        chosen: the id of one.

    Raises:
        InputError: there is none, there are several and none is chosen (lists them), or the chosen one is none.
    """
    found = of_kind(graph, *kinds)
    if chosen is not None:
        for node in found:
            if node.id == chosen:
                return node
        is_there = f"is {graph.nodes[chosen].kind}, no {what}" if chosen in graph.nodes else "is not there"
        raise InputError(f"{graph.name}: node {chosen} {is_there}; choose one of: {_listed(found)}.")
    if not found:
        raise InputError(f"{graph.name} has no {what} ({' or '.join(kinds)}).")
    if len(found) > 1:
        raise InputError(f"{graph.name} has {len(found)} {what}s; choose one with --node ID: {_listed(found)}.")
    return found[0]


def _listed(nodes: Iterable[Node]) -> str:
    return ", ".join(str(node) for node in nodes) or "none"


def feeding(graph: Graph, node: Node, slot: str) -> Node | None:
    """The node whose output goes into this input, None if nothing does.

    Raises:
        InputError: the link comes from nowhere.
    """
    origin = node.links.get(slot)
    if origin is None:
        return None
    if origin.node not in graph.nodes:
        raise refusal(graph, node, f"its input {slot} comes from {_place(origin)}, which is not in the file; link it")
    return graph.nodes[origin.node]


def linked(graph: Graph, node: Node, slot: str) -> Node:
    """The node whose output goes into this input.

    Raises:
        InputError: nothing is linked to it, or the link comes from nowhere.
    """
    found = feeding(graph, node, slot)
    if found is None:
        asleep = ", ".join(str(skipped.node) for skipped in graph.skipped if skipped.why == MUTED)
        hint = f" (muted: {asleep})" if asleep else ""
        raise refusal(graph, node, f"nothing is linked to its input {slot}{hint}; link it")
    return found


def _place(origin: Origin) -> str:
    return origin.node if origin.node.startswith("link ") else f"node {origin.node}"


_NEEDED = object()
_PLACEHOLDER = re.compile(r"\s*\{\{.*\}\}\s*")


class Unfilled(InputError):
    """A value that a program fills in before it queues the graph; ``note`` is for who leaves it out."""

    def __init__(self, refusal: InputError, note: str) -> None:
        super().__init__(str(refusal))
        self.note = note


def is_placeholder(text: str) -> bool:
    """Whether a text stands for one that a program fills in, such as {{PROMPT}}."""
    return _PLACEHOLDER.fullmatch(text) is not None


def left_open(node: Node, name: str) -> str | None:
    """The placeholder that a widget of a node holds."""
    found = None if name in node.links else node.values.get(name)
    return found if isinstance(found, str) and is_placeholder(found) else None


def value(graph: Graph, node: Node, name: str, default: object = _NEEDED) -> object:
    """The value of a widget, typed in or from a node that holds a constant.

    Args:
        default: for a node of a version that has no such widget.

    Raises:
        InputError: another node computes it, or it is nowhere and there is no default.
    """
    source = computed(graph, node, name)
    if source is not None:
        raise refusal(
            graph, node, f"{name} is computed by {source}, which is not run here; type the value in, unlinked"
        )
    found = _NEEDED
    if name in node.links:
        found = constant_of(graph, graph.nodes[node.links[name].node])
    elif name in node.values:
        found = node.values[name]
    if isinstance(found, str) and is_placeholder(found):
        told = refusal(
            graph, node, f"{name} is {found}, which a program fills in before it queues the graph; type it in"
        )
        raise Unfilled(told, f"{node}: {name} is {found}, which a program fills in; the command leaves it out.")
    if found is not _NEEDED:
        return found
    if node.positional:
        raise refusal(
            graph,
            node,
            f"its {len(node.positional)} widgets are in an order that no known version of this node has; save the "
            "graph with Export (API), which stores their names",
        )
    if default is _NEEDED:
        raise refusal(graph, node, f"its value {name} is not in the file; save the graph in ComfyUI again")
    return default


def number(graph: Graph, node: Node, name: str, default: object = _NEEDED) -> float:
    """A ``value`` that is a number, without the dust that sliders leave: 1.0000000000000002 is 1.

    Raises:
        InputError: see ``value``; or it is none.
    """
    found = value(graph, node, name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise refusal(graph, node, f"{name} is {found!r}, where a number was expected")
    return found if isinstance(found, int) else round(found, 4)


def whole(graph: Graph, node: Node, name: str, default: object = _NEEDED) -> int:
    """A ``number`` that is whole."""
    found = number(graph, node, name, default)
    if found != int(found):
        raise refusal(graph, node, f"{name} is {found!r}, where a whole number was expected")
    return int(found)


def text(graph: Graph, node: Node, name: str, default: object = _NEEDED) -> str:
    """A ``value`` that is a text; it may be empty.

    Raises:
        InputError: see ``value``; or it is none.
    """
    found = value(graph, node, name, default)
    if not isinstance(found, str):
        raise refusal(graph, node, f"{name} is {found!r}, where a text was expected")
    return found


def computed(graph: Graph, node: Node, name: str) -> Node | None:
    """The node that computes a value when the graph runs, None if the value is known."""
    source = feeding(graph, node, name)
    return source if source is not None and constant_of(graph, source) is None else None


def before(graph: Graph, *nodes: Node) -> dict[str, Node]:
    """The nodes that something of these nodes comes from, by id; themselves too."""
    found: dict[str, Node] = {}
    ahead = list(nodes)
    while ahead:
        node = ahead.pop()
        if node.id not in found:
            found[node.id] = node
            ahead += [graph.nodes[origin.node] for origin in node.links.values() if origin.node in graph.nodes]
    return found


def after(graph: Graph, node: Node) -> dict[str, Node]:
    """The nodes that something of this node goes into, nearest first, by id."""
    fed: dict[str, list[Node]] = {}
    for each in graph.nodes.values():
        for name in dict.fromkeys(origin.node for origin in each.links.values()):
            fed.setdefault(name, []).append(each)
    found: dict[str, Node] = {}
    ahead = deque([node])
    while ahead:
        for each in fed.get(ahead.popleft().id, ()):
            if each.id not in found and each.id != node.id:
                found[each.id] = each
                ahead.append(each)
    return found


def constant_of(graph: Graph, node: Node) -> object | None:
    """The value that a node of CONSTANTS or SEEDS holds, None for other nodes and for those that are fed themselves."""
    if node.kind not in CONSTANTS and node.kind not in SEEDS or node.links:
        return None
    held = next(iter((*node.positional, *node.values.values())), None)
    if node.kind in SEEDS:
        return held if isinstance(held, int) and held >= 0 else None
    if isinstance(held, str) and node.kind in _READ_FROM_TEXT:
        try:
            return _READ_FROM_TEXT[node.kind](held)
        except ValueError:
            return None
    return held


def refusal(graph: Graph, node: Node, sentence: str) -> InputError:
    """An error about a node, with the file and the node in front and a full stop at the end."""
    said = " ".join(f"{node}: {sentence}".split())
    return InputError(f"{graph.name}: {said.rstrip('.')}.")
