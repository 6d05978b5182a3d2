"""What ComfyUI's UI saves, unfolded: subgraphs, reroutes, Set and Get nodes, bypassed and muted nodes.

Does what the frontend does when it turns a workflow into a prompt: links are followed through everything that
only passes on, and a subgraph's nodes take their place under ids like "12:3". Reads schema 0.4 (links are lists)
and 1 (links are dicts). Knows the few kinds of nodes that exist in the frontend only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import InputError
from .graph import BYPASSED, MOST_NODES, MUTED, Graph, Node, Origin, Skipped, too_large

VERSIONS = (0.4, 1)
INERT = (  # notes, and switches for other nodes, which the frontend keeps to itself
    ("Note", "MarkdownNote", "Note Plus (mtb)", "Label (rgthree)", "Bookmark (rgthree)")
    + (
        "Fast Groups Bypasser (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Bypasser (rgthree)",
        "Fast Muter (rgthree)",
    )
)
REROUTES = ("Reroute", "Reroute (rgthree)")
SETTERS, GETTERS = ("SetNode", "easy setNode"), ("GetNode", "easy getNode")
INVISIBLE_LINKS = ("Anything Everywhere", "Anything Everywhere?", "Anything Everywhere3", "Prompts Everywhere")
CONTROLS = ("fixed", "increment", "decrement", "randomize")
_GROUPS = ("workflow>", "workflow/")

_LONGEST_WAY, _DEEPEST = 200, 40  # far beyond what people make, far below what Python can follow
_MUTED, _BYPASSED = 2, 4  # litegraph's modes
_INPUTS, _OUTPUTS = "-10", "-20"  # what stands for a subgraph's own inputs and outputs among its nodes


def unfold(data: dict[str, Any], name: str) -> Graph:
    """The graph of a saved workflow.

    Raises:
        InputError: an unknown version, something that is no node or link, links that run in a circle, or a node
            whose links are not in the file.
    """
    definitions = data.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    subgraphs = subgraphs if isinstance(subgraphs, list) else []
    known = {str(each.get("id")): each for each in subgraphs if isinstance(each, dict)}
    for part in (data, *known.values()):
        version = part.get("version", VERSIONS[0])
        if version not in VERSIONS or isinstance(version, bool):
            raise InputError(
                f"{name} is a workflow of version {version!r}; 0.4 and 1 are known. Save it with Export (API) instead."
            )
    scope = _Scope(name, data, known, _Count())
    nodes, skipped = scope.nodes_and_skipped()
    return Graph({node.id: node for node in nodes}, tuple(skipped), name, saved=True)


@dataclass
class _Count:
    """The nodes that were unfolded so far, in all scopes together."""

    nodes: int = 0


@dataclass(frozen=True, eq=False)
class _Scope:
    """The workflow itself, or a subgraph in the place of one node."""

    name: str
    data: dict[str, Any]
    definitions: dict[str, dict[str, Any]]
    count: _Count
    parent: _Scope | None = None
    owner: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    given: dict[tuple[str, str], object] = field(default_factory=dict)  # promoted widgets: (inner node, widget)
    insides: dict[str, _Scope] = field(default_factory=dict)  # of the subgraphs that were looked into

    def error(self, sentence: str) -> InputError:
        return InputError(f"{self.name}: {sentence}; save the workflow in ComfyUI again.")

    @cached_property
    def nodes(self) -> dict[str, dict[str, Any]]:
        nodes = self.data.get("nodes")
        if not isinstance(nodes, list):
            raise self.error(f"subgraph {self.prefix}{self.data.get('name')} has no list of nodes")
        for node in nodes:
            if not isinstance(node, dict) or not _is_id(node.get("id")) or not isinstance(node.get("type"), str):
                raise self.error("an entry of nodes has no id or no type")
            if not _are_slots(node.get("inputs"), link=True) or not _are_slots(node.get("outputs"), link=False):
                raise self.error(f"node {self.prefix}{node['id']} ({node['type']}) has an input or output that is none")
        return {str(node["id"]): node for node in nodes}

    @cached_property
    def links(self) -> dict[object, tuple[str, int]]:
        """Where each link starts: the node's id and the number of its output."""
        return {link["id"]: (str(link["origin_id"]), link["origin_slot"]) for link in self._link_dicts()}

    @cached_property
    def outputs(self) -> dict[int, object]:
        """The link that ends in each output of the subgraph."""
        return {
            link["target_slot"]: link["id"] for link in self._link_dicts() if str(link.get("target_id")) == _OUTPUTS
        }

    def _link_dicts(self) -> Iterator[dict[str, Any]]:
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = self.data.get("links") or ()
        if not isinstance(links, list | tuple):
            raise self.error("links is no list")
        for link in links:
            link = dict(zip(keys, link, strict=False)) if isinstance(link, list) else link
            ids = [link.get(key) for key in ("id", "origin_id", "target_id")] if isinstance(link, dict) else [None]
            slots = [link.get(key) for key in ("origin_slot", "target_slot")] if isinstance(link, dict) else [None]
            if not all(map(_is_id, ids)) or not all(isinstance(slot, int) for slot in slots):
                raise self.error(f"an entry of links is no link: {str(link)[:80]!r}")
            yield link

    @cached_property
    def setters(self) -> dict[str, str]:
        """The Set node of each name."""
        return {_held(node): identity for identity, node in self.nodes.items() if node["type"] in SETTERS}

    def nodes_and_skipped(self) -> tuple[list[Node], list[Skipped]]:
        """The nodes of this scope and of the subgraphs in it that run, and those that do not."""
        running: list[Node] = []
        skipped: list[Skipped] = []
        for identity, node in self.nodes.items():
            self.count.nodes += 1
            if self.count.nodes > MOST_NODES:
                raise too_large(self.name)
            kind, mode = node["type"], node.get("mode", 0)
            if kind in INVISIBLE_LINKS and mode not in (_MUTED, _BYPASSED):
                raise InputError(
                    f"{self.name}: node {self.prefix}{identity} ({kind}) makes links that are not in the file; "
                    "save the workflow with Export (API), which has them."
                )
            if kind.startswith(_GROUPS):
                raise InputError(
                    f"{self.name}: node {self.prefix}{identity} ({kind}) is a group node of old, which is not unfolded "
                    "here; save the workflow with Export (API)."
                )
            if kind in INERT + REROUTES + SETTERS + GETTERS:
                continue
            if mode in (_MUTED, _BYPASSED):
                skipped.append(Skipped(self._node(identity, {}), MUTED if mode == _MUTED else BYPASSED))
            elif kind in self.definitions:
                inner = self._inside(identity).nodes_and_skipped()
                running += inner[0]
                skipped += inner[1]
            else:
                links = self._links_of(identity)
                running += [node for node, _ in links.values() if node is not None]
                running.append(self._node(identity, {name: origin for name, (_, origin) in links.items()}))
        return running, skipped

    def _node(self, identity: str, links: dict[str, Origin]) -> Node:
        node = self.nodes[identity]
        kind, stored = node["type"], node.get("widgets_values")
        named = node.get("widgets_values_named")
        values = dict(stored) if isinstance(stored, dict) else {}
        positional = tuple(stored) if isinstance(stored, list) else ()
        if positional:
            values |= _by_inputs(node, positional)
        if isinstance(named, dict):
            values, positional = values | named, ()
        return Node(self.prefix + identity, kind, str(node.get("title") or kind), values, positional, links)

    def _links_of(self, identity: str) -> dict[str, tuple[Node | None, Origin]]:
        """What feeds each input; with a node that holds a constant, if a subgraph's promoted widget does."""
        found: dict[str, tuple[Node | None, Origin]] = {}
        for number, entry in enumerate(_inputs(self.nodes[identity])):
            origin = self._resolve_input(identity, number, ())
            if isinstance(origin, _Constant):
                found[entry["name"]] = self._constant(identity, entry["name"], origin.value)
            elif origin is not None:
                found[entry["name"]] = (None, origin)
        for (inner, widget), value in self.given.items():
            if inner == identity and widget not in found:
                found[widget] = self._constant(identity, widget, value)
        return found

    def _constant(self, identity: str, widget: str, value: object) -> tuple[Node, Origin]:
        where = f"{self.prefix}{identity}.{widget}"
        return Node(where, "PrimitiveNode", "promoted widget", {"value": value}, (), {}), Origin(where, 0)

    def _resolve_input(self, identity: str, number: int, way: tuple[object, ...]) -> Origin | _Constant | None:
        """Where an input's value comes from. ``way`` is what was passed so far."""
        here = (self.prefix, identity, number)
        if len(way) >= _LONGEST_WAY:
            raise self.error(
                f"the link to node {self.prefix}{identity} ({self.nodes[identity]['type']}) passes more than "
                f"{_LONGEST_WAY} nodes that only pass it on; link it directly"
            )
        if here in way:
            raise InputError(
                f"{self.name}: links run in a circle through node {self.prefix}{identity} "
                f"({self.nodes[identity]['type']}); remove one of them."
            )
        inputs = _inputs(self.nodes[identity])
        if number >= len(inputs) or inputs[number].get("link") is None:
            return None
        link = inputs[number]["link"]
        if link not in self.links:
            return Origin(f"link {link}", 0)
        return self._follow(self.links[link], str(inputs[number].get("type", "*")), (*way, here))

    def _follow(self, start: tuple[str, int], wanted: str, way: tuple[object, ...]) -> Origin | _Constant | None:
        """Where a link's value comes from, past everything that only passes on, for an input of a type."""
        identity, number = start
        if identity == _INPUTS and self.parent is not None:
            return self._resolve_outside(self.parent, number, way)
        if number < 0:
            raise self.error(f"a link comes from output {number} of node {self.prefix}{identity}, which no node has")
        if identity not in self.nodes:
            return Origin(self.prefix + identity, number)
        node = self.nodes[identity]
        kind, mode = node["type"], node.get("mode", 0)
        if mode == _BYPASSED:
            passed = _passed_input(node, number, wanted)
            return None if passed is None else self._resolve_input(identity, passed, way)
        if kind in REROUTES + SETTERS:
            return self._resolve_input(identity, 0, way)
        if kind in GETTERS:
            return self._resolve_getter(node, way)
        if mode == _MUTED:
            return None
        if kind in self.definitions:
            inner = self._inside(identity)
            if number not in inner.outputs:
                return None
            return inner._follow(inner.links[inner.outputs[number]], wanted, way)
        return Origin(self.prefix + identity, number)

    def _resolve_outside(self, parent: _Scope, number: int, way: tuple[object, ...]) -> Origin | _Constant | None:
        """What the node that stands for this subgraph has at one of its inputs: a link, or a promoted widget."""
        declared = self.data.get("inputs") or []
        if not _are_slots(declared, link=False) or not 0 <= number < len(declared):
            raise self.error(f"subgraph {self.prefix}{self.data.get('name')} has no input number {number}")
        name, owner = declared[number]["name"], str(self.owner["id"])
        for index, entry in enumerate(_inputs(self.owner)):
            if entry["name"] == name and entry.get("link") is not None:
                found = parent._resolve_input(owner, index, way)
                if found is not None:
                    return found
        own = (_INPUTS, name)
        return _Constant(self.given[own]) if own in self.given else None

    def _resolve_getter(self, node: dict[str, Any], way: tuple[object, ...]) -> Origin | _Constant | None:
        name = _held(node)
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.setters:
                return scope._resolve_input(scope.setters[name], 0, way)
            scope = scope.parent
        return Origin(f"link {name!r}", 0)

    def _inside(self, identity: str) -> _Scope:
        """The subgraph that a node stands for."""
        if identity in self.insides:
            return self.insides[identity]
        node, prefix = self.nodes[identity], f"{self.prefix}{identity}:"
        definition = self.definitions[node["type"]]
        scope: _Scope | None = self
        depth = 0
        while scope is not None:
            if scope.data is definition:
                raise self.error(f"subgraph {definition.get('name')} contains itself")
            scope, depth = scope.parent, depth + 1
        if depth > _DEEPEST:
            raise self.error(f"it has more than {_DEEPEST} subgraphs in each other; unpack some of them")
        promoted = self._promoted(identity)
        found = _Scope(self.name, definition, self.definitions, self.count, self, node, prefix, promoted)
        self.insides[identity] = found
        return found

    def _promoted(self, identity: str) -> dict[tuple[str, str], object]:
        """Values of the widgets that a subgraph shows on its outside: by inner node and name, or by own input."""
        node = self.nodes[identity]
        stored, named = node.get("widgets_values"), node.get("widgets_values_named")
        stored = stored if isinstance(stored, list) else []
        own = [entry["name"] for entry in _inputs(node) if isinstance(entry.get("widget"), dict)]
        properties = node.get("properties")
        listed = properties.get("proxyWidgets") if isinstance(properties, dict) else None
        listed = [entry for entry in listed if _is_proxy(entry)] if isinstance(listed, list) else []
        targets = [_target(entry) for entry in listed] or [(_INPUTS, name) for name in own]
        values = dict(zip(targets, _without_controls(stored, len(targets)), strict=False))
        for target, entry in zip(targets, listed, strict=False):
            if len(entry) > 3 and isinstance(entry[3], dict) and "value" in entry[3]:
                values[target] = entry[3]["value"]
        if isinstance(named, dict):
            values |= {target: named[target[1]] for target in targets if target[1] in named}
        for (inner, widget), value in self.given.items():  # what is shown further out rules
            if inner == identity:
                values |= {target: value for target in targets if target[1] == widget}
        return {target: value for target, value in values.items() if value is not None}


@dataclass(frozen=True)
class _Constant:
    """A promoted widget's value, where an input asked for its origin."""

    value: object


def _inputs(node: dict[str, Any]) -> list[dict[str, Any]]:
    return node.get("inputs") or []


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _are_slots(entries: object, link: bool) -> bool:
    """Whether these are inputs or outputs, or none."""
    if not entries:
        return True
    return isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and (not link or entry.get("link") is None or _is_id(entry["link"]))
        for entry in entries
    )


def _held(node: dict[str, Any]) -> str:
    """The name that a Set or Get node holds."""
    values = node.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _is_proxy(entry: object) -> bool:
    """Whether this is an entry of proxyWidgets: the inner node's id, its widget's name, ..."""
    return isinstance(entry, list) and len(entry) > 1 and _is_id(entry[0]) and isinstance(entry[1], str)


def _target(entry: list[object]) -> tuple[str, str]:
    """Which widget an entry of proxyWidgets means; "-1" is the subgraph's own input."""
    inner = str(entry[0])
    return (_INPUTS if inner == "-1" else inner), str(entry[1])


def _without_controls(stored: list[object], wanted: int) -> list[object]:
    """As many values as there are widgets: some versions store what is to happen to a seed behind it as well."""
    if len(stored) > wanted:
        stored = [v for n, v in enumerate(stored) if not (v in CONTROLS and n and isinstance(stored[n - 1], int))]
    return stored if len(stored) == wanted else []


def _by_inputs(node: dict[str, Any], positional: tuple[object, ...]) -> dict[str, object]:
    """Widgets by the names of the inputs that are listed with them; nothing if the list does not go with them."""
    names = [str(entry["widget"].get("name")) for entry in _inputs(node) if isinstance(entry.get("widget"), dict)]
    controls = [
        number + 1
        for number, value in enumerate(positional[:-1])
        if not isinstance(value, bool) and isinstance(value, int) and positional[number + 1] in CONTROLS
    ]
    if len(names) != len(positional) and len(names) + len(controls) == len(positional):
        positional = tuple(value for number, value in enumerate(positional) if number not in controls)
    return dict(zip(names, positional, strict=True)) if len(names) == len(positional) else {}


def _passed_input(node: dict[str, Any], number: int, wanted: str) -> int | None:
    """The input that a bypassed node passes on to one of its outputs, as the frontend chooses it."""
    inputs = _inputs(node)
    types = [str(entry.get("type", "*")) for entry in inputs]
    outputs = node.get("outputs") or []
    own = str(outputs[number].get("type", "*")) if number < len(outputs) else "*"
    if wanted in ("*", ""):
        return number if number < len(inputs) else (0 if inputs else None)
    if number < len(inputs) and _goes_with(types[number], own) and _goes_with(types[number], wanted):
        return number
    if wanted in types:
        return types.index(wanted)
    return next((n for n, t in enumerate(types) if _goes_with(t, own) and _goes_with(t, wanted)), None)


def _goes_with(one: str, other: str) -> bool:
    """Whether two types may be linked: one may be anything, or several with commas between."""
    if "*" in (one, other) or "" in (one, other):
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))
