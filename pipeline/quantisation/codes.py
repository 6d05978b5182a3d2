"""The code of every storage, by its facts."""

from __future__ import annotations

from . import gguf
from .rowwise import FP8, INT8
from .storage import PLAIN

CODES = {code.facts: code for code in (*PLAIN.values(), *FP8.values(), INT8, *gguf.STORAGES.values())}
