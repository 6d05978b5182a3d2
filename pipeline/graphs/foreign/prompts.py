"""What a prompt means in ComfyUI: weights in parentheses, choices and comments of the page, embeddings.

Here a prompt is a text, every word of which counts alike. A prompt that comes to that is given as that text; what is
more has no equivalent. Knows the two grammars for weights, ComfyUI's own and ComfyUI-WanVideoWrapper's; knows no node.
"""

from __future__ import annotations

import math
import re

from ...errors import InputError

_DEEPEST = 100  # parentheses in each other
_STEP = 1.1  # what a pair of parentheses multiplies a weight by
_ESCAPED = {r"\(": "\0\2", r"\)": "\0\1"}
_EMBEDDING = re.compile(r"(^|\s)embedding:\S")
_LONGEST = 100_000  # characters; the text encoder reads 512 tokens
_COMMENT = re.compile(r"/\*|//[^\n\r\u2028\u2029]*")
_TOKEN = re.compile(r"\\.?|[{}|]|[^\\{}|]+", re.DOTALL)
_WRAPPED = re.compile(r"\((.*?):([\d.]+)\)")
_WRAPPED_END = re.compile(r":[\d.]+\)")

PLAIN = r"write \( and \) for parentheses that are to be read as they are, or take them out"


def core_prompt(prompt: str) -> str:
    r"""The text of a prompt for ComfyUI's own text encoders.

    There ``(x)`` counts 1.1 times, ``((x))`` 1.21 times and ``(x:1.5)`` one and a half times; ``\(`` is a parenthesis.

    Raises:
        InputError: a word counts otherwise than once, or is an embedding.
    """
    short_enough(prompt)
    for escape, mark in _ESCAPED.items():
        prompt = prompt.replace(escape, mark)
    if _EMBEDDING.search(prompt):
        raise InputError("its prompt names an embedding, which has no equivalent here; take it out")
    parts = _weighed(prompt)
    weighed = next(((part, weight) for part, weight in parts if weight != 1.0 and part), None)
    if weighed is not None:
        part, weight = weighed
        raise InputError(
            f"its prompt has weights, which have no equivalent here: {_unescaped(part)[:40]!r} counts {weight:g} "
            f"times; {PLAIN}"
        )
    return _unescaped("".join(part for part, _ in parts)).strip()


def _unescaped(prompt: str) -> str:
    for escape, mark in _ESCAPED.items():
        prompt = prompt.replace(mark, escape[1:])
    return prompt


def _weighed(prompt: str) -> list[tuple[str, float]]:
    """The parts of a prompt, each with its weight, as ComfyUI takes them apart."""
    done: list[tuple[str, float]] = []
    ahead = [(part, 1.0, 0) for part in reversed(_parts(prompt))]
    while ahead:
        part, weight, depth = ahead.pop()
        if not (len(part) > 1 and part[0] == "(" and part[-1] == ")"):
            done.append((part, weight))
            continue
        if depth >= _DEEPEST:
            raise InputError(f"its prompt has more than {_DEEPEST} parentheses in each other; {PLAIN}")
        inside, weight = _weight(part[1:-1], weight * _STEP)
        ahead += [(each, weight, depth + 1) for each in reversed(_parts(inside))]
    return done


def _weight(inside: str, usual: float) -> tuple[str, float]:
    """What is in a pair of parentheses, and its weight: the number after its last colon, if there is one."""
    head, colon, tail = inside.rpartition(":")
    try:
        return (head, float(tail)) if colon and head else (inside, usual)
    except ValueError:
        return inside, usual


def _parts(prompt: str) -> list[str]:
    """A prompt cut before and after its outermost parentheses."""
    parts, start, level = [], 0, 0
    for number, char in enumerate(prompt):
        if char == "(":
            if level == 0 and number > start:
                parts.append(prompt[start:number])
                start = number
            level += 1
        elif char == ")":
            level -= 1
            if level == 0:
                parts.append(prompt[start : number + 1])
                start = number + 1
    return [*parts, prompt[start:]] if start < len(prompt) else parts


def wrapper_prompt(prompt: str) -> str:
    """The text of a positive prompt of ComfyUI-WanVideoWrapper, where ``(x:1.5)`` is all that has a meaning.

    Raises:
        InputError: it has such a weight other than 1.
    """
    return "\n".join(_wrapper_line(line) for line in short_enough(prompt).split("\n")).strip()


def _wrapper_line(line: str) -> str:
    end = max((found.end() for found in _WRAPPED_END.finditer(line)), default=0)
    head, tail = line[:end], line[end:]  # after it every parenthesis would be followed to the end in vain
    for found in _WRAPPED.finditer(head):
        try:
            weight = float(found[2])
        except ValueError:
            weight = math.nan
        if weight != 1:
            raise InputError(
                f"its prompt has weights, which have no equivalent here: {found[0][:40]!r}; take the parentheses and "
                "the number out"
            )
    return _WRAPPED.sub(lambda found: found[1], head) + tail


def short_enough(prompt: str) -> str:
    """The prompt.

    Raises:
        InputError: it is too long to be one.
    """
    if len(prompt) > _LONGEST:
        raise InputError(f"its prompt has {len(prompt)} characters; the text encoder reads some 2,500: shorten it")
    return prompt


def _without_comments(prompt: str) -> str:
    """Without ``// ...`` to the end of a line and ``/* ... */``; one that is not closed is none."""
    kept, at, closed = [], 0, True
    while (found := _COMMENT.search(prompt, at)) is not None:
        kept.append(prompt[at : found.start()])
        at = found.end()
        if found[0] == "/*":
            end = prompt.find("*/", at) if closed else -1
            closed = end >= 0
            if closed:
                at = end + 2
            else:
                kept.append("/*")
    return "".join([*kept, prompt[at:]])


def queued_prompt(prompt: str) -> str:
    r"""What the page makes of a prompt when it queues it: without ``// comments``, and one of ``{this|that}``.

    Raises:
        InputError: there is something to choose from, which the page does anew for every run.
    """
    prompt = _without_comments(short_enough(prompt))
    out, level = [], 0
    for token in _TOKEN.findall(prompt):
        if token == "{":
            level += 1
        elif token == "}" and level:
            level -= 1
        elif token == "|" and level:
            raise InputError(
                "its prompt leaves a choice, {this|that}, which the page makes anew for every run; write one of them"
            )
        else:
            out.append(token)
    return re.sub(r"\\([{}|])", r"\1", "".join(out))
