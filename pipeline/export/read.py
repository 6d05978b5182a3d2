"""A graph as settings, whatever family its sampler is of.

Finds the node that makes the video; the families (``ours``, ``kijai``, ``native``) know the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from . import ours
from .exported import Exported, Files
from .graph import Graph, only

Reader = Callable[[Graph, str, Files], Exported]
READERS: dict[str, Reader] = {kind: family.read for family in (ours,) for kind in family.SAMPLERS}


def settings_of(graph: Graph, files: Files, node: str | None = None) -> Exported:
    """The settings of the graph's sampler.

    Args:
        node: id of the sampler, where there are several.

    Raises:
        InputError: there is none, there are several, or something in the graph has no equivalent.
    """
    sampler = only(graph, READERS, "sampler", node)
    return READERS[sampler.kind](graph, sampler.id, files)
