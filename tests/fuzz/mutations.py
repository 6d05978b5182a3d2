"""Spoils files: bytes and numbers, pieces lost or twice; and values of JSON. The same number spoils in the same way."""

from __future__ import annotations

import json
from random import Random

MOST_CHANGES = 4
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
# texts of JSON values, so that there may be some that Python's own writer would refuse
VALUES = (
    *("null", "true", "false", "0", "-1", "1", "0.5", "1e308", "-1e308", "1e999", "NaN", "Infinity", "1" * 5000),
    *('""', '" "', '"a"', r'"\u0000"', r'"\ud800"', '"../../x"', '"' + "x" * 5000 + '"', '"https://example.com/x"'),
    *("[]", "{}", "[[]]", '[null, "a"]', '{"a": {}}', "[" * 300 + "]" * 300, "[" * 30_000),
)


def spoilt_bytes(random: Random, seeds: list[bytes]) -> bytes:
    """One of the files with a few changes."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(1, MOST_CHANGES)):
        change = random.choice(_CHANGES)
        change(random, data, seeds)
    return bytes(data)


def _place(random: Random, data: bytearray) -> int:
    """Anywhere; half of the time near the beginning, where headers are."""
    size = len(data)
    return random.randrange(max(1, min(size, 200) if random.random() < 0.5 else size))


def _piece(random: Random, data: bytearray) -> slice:
    start = _place(random, data)
    return slice(start, start + random.choice((1, 4, 16, 100, 1000)))


def _flip(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    if data:
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _number(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    size = random.choice((1, 2, 4, 8))
    number = (random.choice(EXTREMES) + random.randint(-1, 1)) % 256**size
    place = _place(random, data) // size * size
    data[place : place + size] = number.to_bytes(size, random.choice(("little", "big")))


def _lose(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    del data[_piece(random, data)]


def _cut(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    del data[_place(random, data) :]


def _zeros(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    piece = _piece(random, data)
    data[piece] = bytes(len(data[piece]))


def _repeat(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    piece = data[_piece(random, data)]
    place = _place(random, data)
    data[place:place] = piece


def _noise(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    piece = _piece(random, data)
    data[piece] = random.randbytes(len(data[piece]))


def _splice(random: Random, data: bytearray, seeds: list[bytes]) -> None:
    other = bytearray(random.choice(seeds))
    place = _place(random, data)
    data[place:] = other[_place(random, other) :]


_CHANGES = (_flip, _flip, _number, _number, _lose, _cut, _zeros, _repeat, _noise, _splice)


def spoilt_json(random: Random, seeds: list[bytes]) -> bytes:
    """One of the JSON texts with other values, keys that are gone or other ones, or spoilt as bytes."""
    text = random.choice(seeds)
    if random.random() < 0.2:
        return spoilt_bytes(random, seeds)
    data = json.loads(text)
    marks: dict[str, str] = {}
    for _ in range(random.randint(1, MOST_CHANGES)):
        holder = _holder(random, data)
        if holder is None:
            break
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key, kind = random.choice(keys), random.random()
        if kind < 0.2:
            del holder[key]
        elif kind < 0.3:
            held = holder[random.choice(keys)]  # in another's place
            holder[key] = json.loads(json.dumps(held))
        else:
            mark = f"<{len(marks)}>"
            marks[json.dumps(mark)] = random.choice(VALUES)
            holder[key] = mark
    spoilt = json.dumps(data)
    for mark, value in marks.items():
        spoilt = spoilt.replace(mark, value)
    return spoilt.encode()


def _holder(random: Random, data: object) -> dict | list | None:
    """An object or a list somewhere in there that holds something."""
    found: list[dict | list] = []
    level = [data]
    while level:
        value = level.pop()
        if isinstance(value, dict | list) and value:
            found.append(value)
            level += value.values() if isinstance(value, dict) else value
    return random.choice(found) if found else None
