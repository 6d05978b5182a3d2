"""The one reader of JSON, wherever it comes from: what would exhaust or surprise its users is no JSON here."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 100  # objects and lists within each other
MOST_DIGITS = 40  # of a whole number; a seed has 20


def read_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: not JSON, not UTF-8, nested too deeply, or with a whole number of too many digits.
    """
    try:
        found = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [found]
    for _ in range(DEEPEST):
        level = [each for held in level if isinstance(held, dict | list) for each in _held(held)]
        if not level:
            return found
    raise ValueError("it is nested too deeply")


def _held(value: dict | list) -> list:
    return value if isinstance(value, list) else list(value.values())


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)
