"""A graph as settings, whatever family its sampler is of.

Finds the node that makes the video; the families (``ours``, ``kijai``, ``native``) know the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..export.exported import Exported, Files
from . import ours
from .graph import Graph, Node, of_kind, only
from .kijai import reader as kijai
from .native import looped, streamed
from .native import reader as native

Reader = Callable[[Graph, str, Files], Exported]
READERS: dict[str, Reader] = {
    kind: family.read for family in (ours, kijai, native, streamed, looped) for kind in family.SAMPLERS
}


def settings_of(graph: Graph, files: Files, node: str | None = None) -> Exported:
    """The settings of the graph's sampler.

    Args:
        node: id of the sampler, where there are several.

    Raises:
        InputError: there is none, there are several, or something in the graph has no equivalent.
    """
    sampler = only(_videos(graph), READERS, "sampler", node)
    return READERS[sampler.kind](graph, sampler.id, files)


def samplers(graph: Graph) -> list[Node]:
    """The nodes that each make a video, of which one can be chosen."""
    return of_kind(_videos(graph), *READERS)


def _videos(graph: Graph) -> Graph:
    """The graph without windows that others go on from, which are no video by themselves."""
    earlier = native.earlier_windows(graph)
    return dataclasses.replace(graph, nodes={name: n for name, n in graph.nodes.items() if name not in earlier})
