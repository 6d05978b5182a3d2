"""What one video is made from: reference, speech and prompts, from flags or from upstream's JSON.

Looks whether files exist, not into them. Knows nothing of how a video is made.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, in_short
from ..facts.json_text import read_json
from ..settings.definition import NEGATIVE_PROMPT, PROMPT, Settings

if TYPE_CHECKING:
    from ..media.audio import Sound
    from ..media.reference import Footage
    from ..models.speech import EncodedSpeech

ENTRIES = ("prompt", "negative_prompt", "cond_video", "cond_audio", "audio_type", "bbox")
SPEAKERS = ("person1", "person2")
BUNDLED = Path(__file__).parents[2] / "assets"
# The example that upstream's guide names. There is no folder of that name: ComfyUI lists it among its workflows.
GUIDES_EXAMPLE = Path("examples/single_example_image.json")


@dataclass(frozen=True)
class Job:
    """One video to make.

    Attributes:
        reference: an image or a video; a file, or in memory.
        speech: a sound file or a video with sound; or sound in memory, encoded or not.
    """

    reference: Path | Footage
    speech: Path | Sound | EncodedSpeech
    prompt: str = PROMPT
    negative_prompt: str = NEGATIVE_PROMPT

    def __post_init__(self) -> None:
        for name in ("reference", "speech"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))

    def files(self) -> tuple[Path, ...]:
        """The files that it is made from; what is in memory is none."""
        return tuple(source for source in (self.reference, self.speech) if isinstance(source, Path))


def load_job(settings: Settings) -> Job:
    """The job that the settings describe; --image, --video, --audio and the prompts win over the JSON.

    The JSON is read unless flags give everything and ``input_json`` is its default; a picture and a sound are enough
    where the default is not there. Relative paths in it are looked up in the current folder (as upstream does), then in
    the JSON's folder, then in the parent of that.

    Raises:
        InputError: no JSON, not JSON, an entry missing or misspelt, two speakers, a file missing.
    """
    reference = settings.image or settings.video
    prompt, negative_prompt = settings.prompt, settings.negative_prompt
    speech = settings.audio
    if settings.input_json == GUIDES_EXAMPLE and not GUIDES_EXAMPLE.exists():
        settings = settings.replace(input_json=BUNDLED / "guide_example.json")
    if reference is not None:
        _check_file(reference, "--image" if settings.image else "--video")
    if speech is not None:
        _check_file(speech, "--audio")
    usual = settings.input_json == Settings().input_json
    if prompt is None and None not in (reference, speech) and usual and not settings.input_json.is_file():
        prompt = PROMPT
    if reference is None or speech is None or prompt is None or not usual:
        entries = _read_json(settings)
        path = settings.input_json
        reference = reference or _locate(_text(entries, "cond_video", path), "cond_video", path)
        speech = speech or _locate(_speech_entry(entries, path), "cond_audio.person1", path)
        prompt = _text(entries, "prompt", path) if prompt is None else prompt
        if negative_prompt is None and "negative_prompt" in entries:
            negative_prompt = _text(entries, "negative_prompt", path)
    return Job(reference, speech, prompt, NEGATIVE_PROMPT if negative_prompt is None else negative_prompt)


def _check_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise InputError(f"{what}: {path} {'is a folder' if path.is_dir() else 'does not exist'}; give a file.")


def _read_json(settings: Settings) -> dict[str, object]:
    path = settings.input_json
    flags = {"--image or --video": settings.image or settings.video, "--audio": settings.audio}
    missing = [flag for flag, value in flags.items() if value is None]
    if not path.is_file():
        if path == Settings().input_json:
            raise InputError(f"Give {', '.join(missing)}, or --input_json FILE; there is no {path} here either.")
        if path.is_dir():
            raise InputError(f"--input_json: {path} is a folder; give the JSON file in it.")
        bundled = BUNDLED / path.name
        hint = f"the bundled one is {bundled}" if bundled.is_file() else "check the path"
        raise InputError(f"--input_json: {path} does not exist; {hint}.")
    try:
        entries = read_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"--input_json: {path} cannot be read ({error.strerror}); check the file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--input_json: {path} is not JSON in UTF-8; save it as UTF-8 text.") from error
    except ValueError as error:
        raise InputError(
            f"--input_json: {path} is not JSON in UTF-8 ({in_short(error)}); texts stand in double quotes, a backslash "
            "is written twice, and no comma follows the last entry."
        ) from error
    if not isinstance(entries, dict):
        raise InputError(
            f"--input_json: {path} holds a {type(entries).__name__}, an object with prompt, cond_video and cond_audio "
            "expected."
        )
    _check_names(entries, ENTRIES, path)
    return entries


def _check_names(found: Iterable[str], known: tuple[str, ...], path: Path) -> None:
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            raise InputError(f"--input_json: {path} has an unknown entry {name!r}; {hint}")


def _text(entries: dict[str, object], name: str, path: Path) -> str:
    if name not in entries:
        raise InputError(f"--input_json: {path} lacks the entry {name!r}; add it or give its flag.")
    value = entries[name]
    if not isinstance(value, str):
        raise InputError(f"--input_json: {name!r} in {path} is {value!r}, a text expected.")
    return value


def _speech_entry(entries: dict[str, object], path: Path) -> str:
    if "cond_audio" not in entries:
        raise InputError(f"--input_json: {path} lacks the entry 'cond_audio'; add it or give --audio.")
    speakers = entries["cond_audio"]
    if not isinstance(speakers, dict):
        raise InputError(
            f'--input_json: \'cond_audio\' in {path} is {speakers!r}, an object like {{"person1": "a.wav"}} expected.'
        )
    _check_names(speakers, SPEAKERS, path)
    if len(speakers) > 1:
        raise InputError(f"--input_json: {path} has two speakers; this version animates one, leave person2 out.")
    return _text(speakers, "person1", path)


def _locate(text: str, entry: str, json_path: Path) -> Path:
    """The file that an entry of the JSON names."""
    folders = (Path(), *list(json_path.absolute().parents)[:2])
    for folder in folders:
        if (folder / text).is_file():
            return folder / text
    places = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
    raise InputError(f"--input_json: {entry} in {json_path} is {text!r}, which is not a file (looked in {places}).")
