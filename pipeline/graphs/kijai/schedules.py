"""The guidance by the prompt of a graph of ComfyUI-WanVideoWrapper: one scale, or one for each step.

Knows the nodes that list scales; nothing of what a sampler does with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...settings.roles import Values
from ..graph import Graph, Node, computed, number, refusal, text, whole
from ..orders import Order

LISTED: Order = {
    "steps": int,
    "cfg_scale_start": float,
    "cfg_scale_end": float,
    "interpolation": str,
    "start_percent": float,
    "end_percent": float,
}
ORDERS: dict[str, tuple[Order, ...]] = {
    "CreateCFGScheduleFloatList": (LISTED,),
    "StringToFloatList": ({"string": str},),
}
_FACTORS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "ease_in": lambda t: t * t,
    "ease_out": lambda t: t * (2 - t),
}
_MOST = 1000  # steps of a list


def text_guidance(graph: Graph, sampler: Node) -> Values:
    """``sample_text_guide_scale``, or ``text_guide_schedule`` where a node lists a scale for each step.

    Raises:
        InputError: it is computed in another way, or is no number.
    """
    source = computed(graph, sampler, "cfg")
    if source is None or source.kind not in ORDERS:
        return {"sample_text_guide_scale": float(number(graph, sampler, "cfg"))}
    scales = _typed(graph, source) if source.kind == "StringToFloatList" else _interpolated(graph, source)
    return {"text_guide_schedule": scales, "sample_text_guide_scale": scales[0]}


def _typed(graph: Graph, node: Node) -> tuple[float, ...]:
    written = text(graph, node, "string")
    try:
        return tuple(float(part) for part in written.split(","))
    except ValueError as error:
        raise refusal(graph, node, f"string is {written!r}, where numbers and commas were expected") from error


def _interpolated(graph: Graph, node: Node) -> tuple[float, ...]:
    """From one scale to another over a part of the steps, 1 outside it (that pack's nodes_utility.py)."""
    steps, how = whole(graph, node, "steps"), text(graph, node, "interpolation", "linear")
    if not 0 < steps <= _MOST or how not in _FACTORS:
        raise refusal(graph, node, f"steps {steps} and interpolation {how} have no equivalent here")
    start, end = (number(graph, node, name) for name in ("cfg_scale_start", "cfg_scale_end"))
    parts = [number(graph, node, name) for name in ("start_percent", "end_percent")]
    first, last = (min(int(steps * part), steps - 1) for part in parts)
    scales = [1.0] * steps
    for step in range(first, last + 1):
        along = 0.0 if last == first else (step - first) / (last - first)
        scales[step] = round(start + _FACTORS[how](along) * (end - start), 2)
    return (1.0, *scales[1:]) if parts[0] > 0 else tuple(scales)
