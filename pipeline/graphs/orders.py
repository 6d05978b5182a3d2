"""Widgets that a file stores by position, by name.

What ComfyUI saves holds a node's widgets as a bare list, and what it lists as inputs may be as old as the node.
So the order comes from tables of what each version of a node had. Knows how to choose an order, no node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .graph import Graph, Node

CONTROLS = ("fixed", "increment", "decrement", "randomize")
CONTROL = "control_after_generate"  # the widget that the frontend puts behind a seed

# the widgets of one version of a node, in order: name -> bool, int, float or str; an object fits everything
Order = Mapping[str, type]


def with_names(graph: Graph, orders: dict[str, tuple[Order, ...]]) -> Graph:
    """The graph with the widgets of these kinds of nodes under their names.

    The first order that fits is taken. An older version's list may be shorter and a newer one's longer, since
    widgets are appended; what is appended beyond the order, and what was saved as empty, is left out. Where a node's
    list fits no order, its values stay unknown, and ``graph.value`` says so if one is asked for.
    """
    nodes = {identity: _named(node, orders.get(node.kind, ())) for identity, node in graph.nodes.items()}
    return dataclasses.replace(graph, nodes=nodes)


def _named(node: Node, orders: tuple[Order, ...]) -> Node:
    if not orders or not node.positional:
        return node
    order = next((order for order in orders if _fits(node, order)), None)
    if order is None:
        return dataclasses.replace(node, values={})
    named = zip(order.items(), node.positional, strict=False)
    values = {name: stored for (name, kind), stored in named if not _is_unset(stored, kind)}
    return dataclasses.replace(node, values=values, positional=())


def _fits(node: Node, order: Order) -> bool:
    pairs = zip(order.items(), node.positional, strict=False)
    return all(
        name in node.links or _is_unset(stored, kind) or _is_a(stored, name, kind) for (name, kind), stored in pairs
    )


def _is_unset(stored: object, kind: type) -> bool:
    """Whether nobody chose it: a page of one version keeps a widget of another as nothing or an empty text."""
    return kind is not object and (stored is None or stored == "" and kind is not str)


def _is_a(stored: object, name: str, kind: type) -> bool:
    if name == CONTROL:
        return stored in CONTROLS
    if kind is int:
        return not isinstance(stored, bool) and (
            isinstance(stored, int) or isinstance(stored, float) and stored.is_integer()
        )
    if kind is float:
        return not isinstance(stored, bool) and isinstance(stored, int | float)
    return isinstance(stored, kind)
