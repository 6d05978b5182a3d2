"""InfiniteTalk: talking videos of any length from a portrait or a video and speech.

The repository root is this package: ``infinitetalk`` after an install, the folder's own name when
ComfyUI loads it from ``custom_nodes/``. Importing it imports nothing else; the engine is
``infinitetalk.pipeline``. It offers no ComfyUI nodes yet.
"""

__version__ = "0.1.0"
