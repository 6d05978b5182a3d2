"""What the page may ask: a request that is another is refused before anything is looked up. Knows no ComfyUI."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ...pipeline.errors import InputError, in_short
from ...pipeline.facts.json_text import read_json


@dataclass(frozen=True)
class ExportRequest:
    """A graph in API format, for a shell or this machine's usual one, and what the page would save."""

    prompt: dict[str, dict]
    shell: str | None
    workflow: dict | None


def of_export(kind: str, headers: Mapping[str, str], body: bytes, shells: Collection[str]) -> ExportRequest:
    """What a request for a command asks for.

    Args:
        kind: its content type, which pages of other origins cannot give without asking the browser.

    Raises:
        InputError: it is from another origin, no JSON, no object, or has values of another kind.
    """
    content = _object(kind, headers, body, "prompt and shell")
    prompt, shell, workflow = content.get("prompt") or {}, content.get("shell") or None, content.get("workflow")
    if not isinstance(prompt, dict) or not all(map(_is_node, prompt.values())):
        raise InputError("prompt is not a graph in API format.")
    if shell is not None and (not isinstance(shell, str) or shell not in shells):
        raise InputError(f"shell is {ascii(shell)[:40]}; one of {', '.join(shells)} expected.")
    return ExportRequest(prompt, shell, workflow if isinstance(workflow, dict) else None)


def of_clearing(kind: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    """Which unfinished videos a request wants to be removed, by name.

    Raises:
        InputError: see ``of_export``.
    """
    names = _object(kind, headers, body, "names").get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError("names is no list of names.")
    return names


def _object(kind: str, headers: Mapping[str, str], body: bytes, expected: str) -> dict:
    check_origin(headers)
    if kind != "application/json":
        raise InputError("The content type is not application/json; send the graph as JSON.")
    try:
        content = read_json(body)
    except ValueError as error:
        raise InputError(f"The request is not JSON ({in_short(error)}).") from error
    if not isinstance(content, dict):
        raise InputError(f"The request is a {type(content).__name__}, an object with {expected} expected.")
    return content


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuse what a page of another origin asks.

    Raises:
        InputError: it is one.
    """
    origin = headers.get("Origin")
    here = headers.get("Host"), headers.get("X-Forwarded-Host")  # which no page of another origin can choose
    if origin is not None and origin.partition("://")[2] not in here:
        raise InputError("Only pages of this ComfyUI may ask.")


def _is_node(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("class_type"), str)
        and isinstance(entry.get("inputs", {}), dict)
    )
