"""What one video is made from: reference, speech and prompts, from flags or from upstream's JSON.

Looks whether files exist, not into them. Knows nothing of how a video is made.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, in_short
from ..facts.json_text import read_json
from ..settings.definition import NEGATIVE_PROMPT, PROMPT, Settings
from .speakers import SILENT, MaskFile, Speaker, box_of, parse_speaker
from .timeline import with_timeline

if TYPE_CHECKING:
    from ..media.audio import Sound
    from ..media.reference import Footage
    from ..models.speech import EncodedSpeech

ARRANGEMENTS = ("para", "add")
ENTRIES = ("prompt", "negative_prompt", "cond_video", "cond_audio", "audio_type", "bbox")
PERSON = re.compile(r"person[1-9]")
BUNDLED = Path(__file__).parents[2] / "assets"
# The example that upstream's guide names. There is no folder of that name: ComfyUI lists it among its workflows.
GUIDES_EXAMPLE = Path("examples/single_example_image.json")


@dataclass(frozen=True)
class Job:
    """One video to make.

    Attributes:
        reference: an image or a video; a file, or in memory.
        speech: a sound file or a video with sound; or sound in memory, encoded or not. Where there are ``speakers``,
            what the finished video carries; None for the sum of what they say.
        speakers: who speaks where, if it is not one voice for the whole picture.
        arrangement: "para", all speakers begin together, or "add", one after the other.

    Raises:
        InputError: there is nothing to be said.
    """

    reference: Path | Footage
    speech: Path | Sound | EncodedSpeech | None = None
    prompt: str = PROMPT
    negative_prompt: str = NEGATIVE_PROMPT
    speakers: tuple[Speaker, ...] = ()
    arrangement: str = "para"

    def __post_init__(self) -> None:
        for name in ("reference", "speech"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        object.__setattr__(self, "speakers", tuple(self.speakers))
        if all(sound is None for sound in self.sounds()):
            raise InputError("Nobody says anything: give a sound file, with --audio or for one of the speakers.")
        if self.arrangement not in ARRANGEMENTS:
            raise InputError(
                f"audio_type is {self.arrangement!r}; para (together) or add (one after another) expected."
            )

    def sounds(self) -> tuple[Path | Sound | EncodedSpeech | None, ...]:
        """What is said, by whom; of one voice it is one."""
        return tuple(speaker.speech for speaker in self.speakers) or (self.speech,)

    def files(self) -> tuple[Path, ...]:
        """The files that it is made from; what is in memory is none."""
        masks = (speaker.region.path for speaker in self.speakers if isinstance(speaker.region, MaskFile))
        sources = (self.reference, self.speech, *(speaker.speech for speaker in self.speakers), *masks)
        return tuple(dict.fromkeys(source for source in sources if isinstance(source, Path)))


def load_job(settings: Settings) -> Job:
    """The job that the settings describe; --image, --video, the speech and the prompts win over the JSON.

    The JSON is read unless flags give everything and ``input_json`` is its default; a picture and a sound are enough
    where the default is not there. Relative paths in it are looked up in the current folder (as upstream does), then in
    the JSON's folder, then in the parent of that.

    Raises:
        InputError: no JSON, not JSON, an entry missing or misspelt, a file missing, speakers that do not fit together.
    """
    reference = settings.image or settings.video
    prompt, negative_prompt = settings.prompt, settings.negative_prompt
    speech, speakers = settings.audio, _speakers_of_flags(settings)
    arrangement = settings.audio_type or "para"
    if settings.input_json == GUIDES_EXAMPLE and not GUIDES_EXAMPLE.exists():
        settings = settings.replace(input_json=BUNDLED / "guide_example.json")
    if reference is not None:
        _check_file(reference, "--image" if settings.image else "--video")
    if speech is not None:
        _check_file(speech, "--audio")
    spoken = speech is not None or bool(speakers)
    usual = settings.input_json == Settings().input_json
    if prompt is None and reference is not None and spoken and usual and not settings.input_json.is_file():
        prompt = PROMPT
    if reference is None or not spoken or prompt is None or not usual:
        entries = _read_json(settings)
        path = settings.input_json
        reference = reference or _locate(_text(entries, "cond_video", path), "cond_video", path)
        if not spoken:
            speech, speakers = _speech_of_json(entries, path)
            arrangement = settings.audio_type or _arrangement(entries, path)
        prompt = _text(entries, "prompt", path) if prompt is None else prompt
        if negative_prompt is None and "negative_prompt" in entries:
            negative_prompt = _text(entries, "negative_prompt", path)
    negative_prompt = NEGATIVE_PROMPT if negative_prompt is None else negative_prompt
    speech = None if speakers else speech  # the video carries what they say
    return Job(reference, speech, prompt, negative_prompt, speakers, arrangement)


def _speakers_of_flags(settings: Settings) -> tuple[Speaker, ...]:
    """What --speaker and --timeline say; nothing where one voice speaks for the whole picture."""
    speakers = tuple(map(parse_speaker, settings.speaker or ()))
    if settings.timeline is not None:
        speakers = with_timeline(speakers, settings.timeline, settings.audio)
    elif settings.audio is not None and any(speaker.speech is None for speaker in speakers):
        silent = [number for number, speaker in enumerate(speakers) if speaker.speech is None]
        if len(silent) == 1 and len(speakers) == 1:  # one voice, one face in a group
            speakers = (replace(speakers[0], speech=settings.audio),)
    for speaker in speakers:
        if isinstance(speaker.speech, Path):
            _check_file(speaker.speech, "--speaker")
        if isinstance(speaker.region, MaskFile):
            _check_file(speaker.region.path, "--speaker region=mask")
    if speakers and all(speaker.speech is None for speaker in speakers):
        raise InputError("--speaker: nobody says anything; give audio=FILE for those who speak, or --audio FILE.")
    return speakers


def _check_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise InputError(f"{what}: {path} {'is a folder' if path.is_dir() else 'does not exist'}; give a file.")


def _read_json(settings: Settings) -> dict[str, object]:
    path = settings.input_json
    flags = {"--image or --video": settings.image or settings.video, "--audio": settings.audio or settings.speaker}
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


def _speech_of_json(entries: dict[str, object], path: Path) -> tuple[Path | None, tuple[Speaker, ...]]:
    """One voice for the whole picture, or speakers; upstream's "None" is one who says nothing."""
    if "cond_audio" not in entries:
        raise InputError(f"--input_json: {path} lacks the entry 'cond_audio'; add it or give --audio.")
    persons = entries["cond_audio"]
    if not isinstance(persons, dict):
        raise InputError(
            f'--input_json: \'cond_audio\' in {path} is {persons!r}, an object like {{"person1": "a.wav"}} expected.'
        )
    _check_names([name for name in persons if not PERSON.fullmatch(name)], ("person1", "person2"), path)
    boxes = entries.get("bbox", {})
    if len(persons) <= 1 and not boxes:
        return _locate(_text(persons, "person1", path), "cond_audio.person1", path), ()
    if not isinstance(boxes, dict) or (boxes and set(boxes) != set(persons)):
        raise InputError(
            f"--input_json: 'bbox' in {path} must have a box for each of {', '.join(persons)}, as in 'cond_audio'."
        )
    speakers = []
    for name in sorted(persons):
        text = _text(persons, name, path)
        speech = None if text.lower() == SILENT else _locate(text, f"cond_audio.{name}", path)
        numbers = boxes.get(name)
        listed = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
        what = f"--input_json: bbox.{name} in {path}"
        speakers.append(Speaker(speech, box_of(listed, what, rows_first=True) if boxes else None, name=name))
    return None, tuple(speakers)


def _arrangement(entries: dict[str, object], path: Path) -> str:
    found = entries.get("audio_type", "para")
    if found not in ARRANGEMENTS:
        raise InputError(f"--input_json: audio_type in {path} is {found!r}; para or add expected.")
    return str(found)


def _locate(text: str, entry: str, json_path: Path) -> Path:
    """The file that an entry of the JSON names."""
    folders = (Path(), *list(json_path.absolute().parents)[:2])
    for folder in folders:
        if (folder / text).is_file():
            return folder / text
    places = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
    raise InputError(f"--input_json: {entry} in {json_path} is {text!r}, which is not a file (looked in {places}).")
