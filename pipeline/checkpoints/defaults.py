"""Where the models are that nobody names: the guide's places under the weights folders.

Fills in only what a run would otherwise refuse for, so settings that say where everything is stay as they are, whatever
lies in those folders. Looks whether files are there, and into the header of a transformer whether it has audio layers.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..facts.downloads import DEFAULTS
from ..settings.definition import Settings
from .files import has_header, open_tensors
from .kinds import AUDIO_MARK
from .lookup import find_file, weights_folders


def with_default_paths(settings: Settings) -> Settings:
    """The same settings, with ``ckpt_dir``, ``infinitetalk_dir`` and ``wav2vec_dir`` where they are missing and there.

    Doing it twice changes nothing.
    """
    s = settings
    found: dict[str, Path | None] = {}
    whole = s.quant_dir or s.dit_path
    if s.ckpt_dir is None and None in (whole, s.text_encoder, s.clip_vision, s.vae):
        found["ckpt_dir"] = default_path("ckpt_dir")
    if s.infinitetalk_dir is None and (whole is None or _lacks_audio(find_file(whole, s.ckpt_dir))):
        found["infinitetalk_dir"] = default_path("infinitetalk_dir")
    if s.wav2vec_dir is None:
        found["wav2vec_dir"] = default_path("wav2vec_dir")
    return s.replace(**found) if any(found.values()) else s


def default_path(setting: str) -> Path | None:
    """The guide's place of what this setting names, if something is there."""
    places = (folder / DEFAULTS[setting] for folder in weights_folders())
    return next((place for place in places if place.exists()), None)


def _lacks_audio(transformer: Path | None) -> bool:
    """Whether a file is there whose header shows no audio layers; what has no header is taken to be whole."""
    if transformer is None or not transformer.is_file():
        return False
    try:
        if not has_header(transformer, ""):
            return False
        return not any(name.endswith(AUDIO_MARK) for name in open_tensors(transformer, ""))
    except InputError:  # judged where it is opened, by its flag's name
        return False
