"""The version, once: of the package, of the nodes, and in what videos carry."""

from __future__ import annotations

__version__ = "0.1.0"
