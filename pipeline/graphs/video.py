"""A finished video as settings again: what ``media.writer`` stored in it, the seed that was used included.

A video that was made in ComfyUI carries its graph as well, which knows the files of picture and sound.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..export.exported import Exported, Files
from ..facts.json_text import read_json
from ..facts.shares import is_share
from ..job.container import open_container, tag
from ..job.record import Record, read_record
from ..settings.definition import NEGATIVE_PROMPT, Settings, names_with, setting_types
from ..settings.presets import DEMO, preset_names, settings_with_preset
from ..settings.roles import Json, Role
from ..settings.validation import resolve, validate
from . import ours
from .graph import graph_of, only

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


def read_video(path: Path, files: Files, node: str | None = None) -> Exported:
    """The settings that a video was made with, and what it was made from.

    Args:
        node: id of the sampler, where it was made in ComfyUI by a graph of several.

    Raises:
        InputError: it is no video of ours, or its settings are damaged.
    """
    record = read_record(path)
    known = {name: value for name, value in record.settings.items() if name in setting_types()}
    notes = [f"It was made with --{name}, which is not there any more." for name in record.settings.keys() - known]
    from_job = names_with(Role.JOB | Role.CONTENT)
    values: dict[str, object] = {name: value for name, value in known.items() if name not in from_job}
    if values.get("preset") not in (None, DEMO, *preset_names()):
        notes.append(f"The preset {values.pop('preset')} is not there any more; its values are written out.")
    try:
        sources, more = _sources(path, record, files, node)
        values |= {**_texts(record.job), **sources}
        settings = validate(Settings.of(values))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the settings in {path} are damaged; another program may have changed them.") from error
    settings = settings.replace(save_file=path.with_name(f"{path.stem}_again"))
    return Exported(settings, (*notes, *more))


def _texts(job: dict[str, Json]) -> dict[str, str | None]:
    texts: dict[str, str | None] = {name: str(job[name]) for name in ("prompt", "negative_prompt")}
    return {**texts, "negative_prompt": None} if texts["negative_prompt"] == NEGATIVE_PROMPT else texts


def _sources(path: Path, record: Record, files: Files, node: str | None) -> tuple[dict[str, object], tuple[str, ...]]:
    """Reference and speech by flag, and what is to be said about them."""
    with open_container(path) as container:
        prompt = tag(container, "prompt")
    if prompt is not None:
        graph = graph_of(read_json(prompt), f"the graph in {path}")
        sampler = only(graph, ours.SAMPLERS, "sampler", node)
        return dict(ours.sources(graph, sampler.id, files)), files.notes()
    reference, speech = (Path(str(record.job[name])) for name in ("reference", "speech"))
    said = _said(record, speech)
    is_video = record.settings.get("video") is not None or reference.suffix.lower() in VIDEOS
    heard = [each for each in said.values() if isinstance(each, Path)]
    missing = [each for each in (reference, *heard) if is_share(each) or not each.exists()]
    notes = tuple(f"{source} is not there now; the video was made from it." for source in missing)
    return {"video" if is_video else "image": reference, **said}, notes


def _said(record: Record, speech: Path) -> dict[str, object]:
    """The speech by flag: of one voice, or of speakers as they were given, by flags or by a JSON."""
    settings, speakers = record.settings, record.job.get("speakers")
    given = {name: settings[name] for name in ("speaker", "timeline", "audio_type") if settings.get(name)}
    if "speaker" in given or "timeline" in given:
        audio = settings.get("audio")
        return {**given, **({"audio": Path(str(audio))} if audio else {})}
    if isinstance(speakers, list):
        return {"speaker": tuple(map(str, speakers)), "audio_type": record.job.get("audio_type")}
    return {"audio": speech}


def shortened(settings: Settings) -> Settings:
    """Resolved settings without values that follow from others anyway."""
    base = Settings() if settings.preset is None else settings_with_preset(settings.preset)
    for name in names_with(Role.FOLLOWS):
        without = settings.replace(**{name: None})
        if getattr(base, name) is None and getattr(resolve(without), name) == getattr(settings, name):
            settings = without
    return settings
