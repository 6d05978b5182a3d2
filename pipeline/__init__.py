"""The engine: from a portrait or a video, and speech, to a talking video of any length.

Plain PyTorch. It never imports ComfyUI and never reads ``sys.argv``; both doors (the nodes and the
command line) hand it a ``Settings`` object and a ``Job``. What callers use is here; it is imported
when it is first asked for, so that a command line that only prints its help stays fast.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "Generator": ".run.generator",
    "InputError": ".errors",
    "Job": ".job.job",
    "Settings": ".settings.definition",
    "Window": ".run.windows",
    "settings_with_preset": ".settings.presets",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)
