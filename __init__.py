"""InfiniteTalk: talking videos of any length from a portrait or a video and speech.

The repository root is this package: ``infinitetalk`` after an install, the folder's own name when
ComfyUI loads it from ``custom_nodes/``. Importing it imports nothing else; the engine is
``infinitetalk.pipeline``, and ComfyUI calls ``comfy_entrypoint`` for its nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pipeline.version import __version__  # noqa: F401  (what tools look for)

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI looks for in a custom node."""
    from .nodes.extension import InfiniteTalkExtension

    return InfiniteTalkExtension()
