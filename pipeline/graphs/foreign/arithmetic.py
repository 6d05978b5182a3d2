"""Numbers that small nodes compute when a graph runs: from constants, and from the length of a sound.

Knows what these nodes compute, as far as it is arithmetic on a few numbers; runs nothing else of a graph.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from ..graph import Graph, Node, Origin, constant_of, text
from ..orders import Order

Number = int | float
Length = Callable[[Node, str], float | None]  # seconds of the sound that goes into an input of a node

ORDERS: Mapping[str, tuple[Order, ...]] = {
    "ToInt": ({"round_method": str},),
    "SimpleMath+": ({"value": str},),
    "MathExpression|pysssss": ({"expression": str},),
    "SimpleCalculatorKJ": ({"expression": str},),
    "easy mathInt": ({"a": int, "b": int, "operation": str},),
    "easy mathFloat": ({"a": float, "b": float, "operation": str},),
    "CM_FloatToInt": ({"a": float},),
    "CM_IntToFloat": ({"a": int},),
}
_LENGTHS = {"SoundFlow_GetLength": "audio"}  # kind -> its input, whose length in seconds it gives
_ROUNDS: Mapping[str, Callable[[float], int]] = {"floor": math.floor, "ceil": math.ceil, "round": round}
_Cast = Callable[[Number], Number]
_CASTS: Mapping[str, _Cast] = {"CM_FloatToInt": int, "CM_IntToFloat": float}
_OF_TWO: Mapping[str, _Cast] = {"easy mathInt": int, "easy mathFloat": float}
# kind -> the widget with an expression, and what each output makes of its value
_EXPRESSIONS: Mapping[str, tuple[str, tuple[_Cast, ...]]] = {
    "SimpleMath+": ("value", (round, float)),
    "MathExpression|pysssss": ("expression", (int, float)),
    "SimpleCalculatorKJ": ("expression", (float, int)),
}
_OPERATIONS: Mapping[str, Callable[[Number, Number], Number]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "modulo": operator.mod,
}
_BINARY: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "min": min,
    "max": max,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "int": int,
    "abs": abs,
}
_LONGEST = 200  # characters of an expression
_DEEPEST = 20  # nodes that compute for each other


def computed_number(graph: Graph, origin: Origin, length: Length, depth: int = 0) -> Number | None:
    """What comes out of a node; None if that is not known here.

    Args:
        length: of a sound; None where nobody knows.

    Raises:
        InputError: a value of a node is missing or is no number.
    """
    node = graph.nodes.get(origin.node)
    if node is None or depth > _DEEPEST:
        return None
    held = constant_of(graph, node)
    if held is not None:
        return held if isinstance(held, int | float) and not isinstance(held, bool) else None
    if node.kind in _LENGTHS:
        return length(node, _LENGTHS[node.kind])

    def given(name: str) -> Number | None:
        linked = next((each for each in (name, f"variables.{name}") if each in node.links), None)
        if linked is not None:
            return computed_number(graph, node.links[linked], length, depth + 1)
        found = node.values.get(name)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    try:
        return _of_kind(graph, node, origin.output, given)
    except (ArithmeticError, LookupError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _of_kind(graph: Graph, node: Node, output: int, given: Callable[[str], Number | None]) -> Number | None:
    if node.kind == "ToInt":
        found = given("any")
        return None if found is None else _ROUNDS[text(graph, node, "round_method", "round")](found)
    if node.kind in _CASTS:
        found = given("a")
        return None if found is None else _CASTS[node.kind](found)
    if node.kind in _OF_TWO:
        a, b = given("a"), given("b")
        return None if a is None or b is None else _OF_TWO[node.kind](_OPERATIONS[text(graph, node, "operation")](a, b))
    if node.kind not in _EXPRESSIONS:
        return None
    name, outputs = _EXPRESSIONS[node.kind]
    return outputs[output](_evaluated(text(graph, node, name), given)) if output < len(outputs) else None


def _evaluated(expression: str, given: Callable[[str], Number | None]) -> Number:
    """An expression of numbers, the names a, b and c, + - * / // % and a few functions.

    Raises:
        ValueError: it is something else.
    """
    if len(expression) > _LONGEST:
        raise ValueError("too long")

    def of(part: ast.expr) -> Number:
        if isinstance(part, ast.Constant) and isinstance(part.value, int | float):
            return part.value
        if isinstance(part, ast.Name) and (found := given(part.id)) is not None:
            return found
        if isinstance(part, ast.BinOp) and type(part.op) in _BINARY:
            return _BINARY[type(part.op)](of(part.left), of(part.right))
        if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub):
            return -of(part.operand)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in _FUNCTIONS:
            return _FUNCTIONS[part.func.id](*(of(each) for each in part.args))
        raise ValueError("not arithmetic, or of something that is not known")

    found = of(ast.parse(expression.strip(), mode="eval").body)
    if not math.isfinite(found):
        raise ValueError("not finite")
    return found
