"""What all nodes have in common: category, words to be found by, and errors in ComfyUI's words.

Knows no node.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from comfy_api.latest import io
from comfy_execution.validation import validate_node_input

from ...pipeline.errors import InputError
from .words import in_comfyui

CATEGORY = "InfiniteTalk"
FOUND_BY = ("infinite talk", "lip sync", "lipsync", "talking", "avatar", "portrait", "speech", "audio", "dubbing")
_SEARCHED = "search_aliases" in {field.name for field in dataclasses.fields(io.Schema)}  # by newer hosts

Given = ParamSpec("Given")
Made = TypeVar("Made")


class InfiniteTalkError(Exception):
    """A sentence for the user. ComfyUI shows the exception's name before it, with the module that it is from."""


InfiniteTalkError.__module__ = "builtins"  # so none is shown


def schema(**given: object) -> io.Schema:
    """The schema of one of our nodes."""
    more = {"search_aliases": list(FOUND_BY)} if _SEARCHED else {}
    return io.Schema(category=CATEGORY, **more, **given)


def speaking(execute: Callable[Given, Made]) -> Callable[Given, Made]:
    """The same function; what the user got wrong is said in ComfyUI's words."""

    @functools.wraps(execute)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        try:
            return execute(*args, **kwargs)
        except InputError as error:
            raise InfiniteTalkError(in_comfyui(str(error))) from error

    return call


def misfit(node: type[io.ComfyNode], links: Mapping[str, str], also: Mapping[str, str]) -> str | None:
    """What is linked to an input that takes something else, as ComfyUI looks for it, or None.

    Args:
        links: type of what is linked, by input.
        also: types that an input takes beside its own.
    """
    for input in node.define_schema().inputs:
        found = links.get(input.id)
        if found is None or found == also.get(input.id):
            continue
        if not validate_node_input(found, input.get_io_type()):
            return f"{input.id}: {found} is linked, {input.get_io_type()} expected."
    return None
