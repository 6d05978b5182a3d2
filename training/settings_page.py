"""Measures what each setting does to the demo's video, for docs/what_settings_do.md, and makes its pictures.

``python -m infinitetalk.training.settings_page [GROUP ...]`` runs the engine for every row (half
an hour with two cores at it) and rewrites the rows of the tables in both languages; headings and everything around
the tables is written by hand. A group's rows lie behind a mark with its name.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..pipeline.evaluation.measures import Evaluation, evaluate_frames
from ..pipeline.evaluation.reader import load_reader
from ..pipeline.job.job import Job
from ..pipeline.media.audio import Sound, open_audio
from ..pipeline.media.speech import speech_for_model
from ..pipeline.run.generator import Generator
from ..pipeline.settings.demo import ASSETS, FACE_READER, FOLDER, demo_settings
from .assemble import LORA_FILE

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "what_settings_do.md", DOCS / "what_settings_do.zh-CN.md")
PICTURES = "pictures/settings"
PORTRAIT = ASSETS / "drawn_portrait.png"
_STRIP, _SIDE = 6, 80  # pictures in a strip, and their side
_PLAIN = "A woman is talking to the camera."
_SAD = "A woman is talking, sad."
BASE = demo_settings(device="cpu")


@dataclass(frozen=True)
class Row:
    """One video.

    Attributes:
        label: the flags that differ, as in the table.
        changes: of ``BASE``.
        prompt: what is asked for.
        windows: how many.
    """

    label: str
    changes: dict[str, object] = field(default_factory=dict)
    prompt: str = _PLAIN
    windows: int = 1


def _numbers(flag: str, values: tuple[float, ...], **others: object) -> list[Row]:
    more = "".join(f" --{name} {value:g}" for name, value in others.items() if name == "sample_steps")
    return [Row(f"--{flag} {value:g}{more}", {flag: value, **others}) for value in values]


_GUIDED = {"sample_text_guide_scale": 5.0}
GROUPS: dict[str, list[Row]] = {
    "steps": [
        *_numbers("sample_steps", (40, 20, 8, 4, 2)),
        Row("--sample_steps 4 --sample_solver flowmatch_distill", {"sample_solver": "flowmatch_distill"}),
    ],
    "lora": [
        Row("--sample_steps 20", {"sample_steps": 20}),
        Row("--sample_steps 4"),
        Row("--sample_steps 4 --lora_dir …", {"lora_dir": (FOLDER / LORA_FILE,), "lora_scale": (1.0,)}),
    ],
    "shift": _numbers("sample_shift", (5.0, 2.0, 11.0), sample_steps=8),
    "audio": _numbers("sample_audio_guide_scale", (1.0, 0.0, 2.0, 4.0)),
    "audio_steps": [
        Row(
            f"--sample_audio_guide_scale {scale:g}{f' --sample_audio_guide_steps {steps}' if steps else ''}",
            {"sample_audio_guide_scale": scale, "sample_audio_guide_steps": steps},
        )
        for scale in (2.0, 3.0)
        for steps in (None, 2)
    ],
    "text": [
        Row("--sample_text_guide_scale 1", prompt=_SAD),
        Row("--sample_text_guide_scale 2", {"sample_text_guide_scale": 2.0}, _SAD),
        Row("--sample_text_guide_scale 5", _GUIDED, _SAD),
        Row("--sample_text_guide_scale 5 --use_apg", {**_GUIDED, "use_apg": True}, _SAD),
    ],
    "teacache": [
        Row(
            f"--sample_steps {steps}{f' --use_teacache --teacache_thresh {thresh:g}' if thresh else ''}",
            {"sample_steps": steps, **({"use_teacache": True, "teacache_thresh": thresh} if thresh else {})},
        )
        for steps in (20, 40)
        for thresh in (0, 0.2, 0.5)
    ],
    "quant": [Row("(float32)"), Row("--quant fp8", {"quant": "fp8"}), Row("--quant int8", {"quant": "int8"})],
    "colour": [
        Row(f"--color_correction_strength {value:g}", {"color_correction_strength": value}, windows=4)
        for value in (0.0, 1.0)
    ],
    "seam": [Row(f"--seam_frames {count}", {"seam_frames": count}, windows=10) for count in (0, 4)],
    "motion": [Row(f"--motion_frame {count}", {"motion_frame": count}, windows=3) for count in (9, 1, 5, 25)],
}


@dataclass(frozen=True)
class Found:
    """A row's video and what was measured. ``likeness``: peak SNR against the group's first row, in dB."""

    frames: np.ndarray
    result: Evaluation
    seconds: float
    likeness: float | None


def run(group: str) -> list[Found]:
    """Make and measure the videos of a group."""
    reader = load_reader(FACE_READER)[0]
    speech = np.array(speech_for_model(open_audio(ASSETS / "speech.wav")))
    found: list[Found] = []
    for row in GROUPS[group]:
        settings = BASE.replace(**row.changes)
        length = 81 + (81 - settings.motion_frame) * (row.windows - 1)
        heard = np.resize(speech, length * 640)
        generator = Generator(settings)
        job = Job(PORTRAIT, Sound(heard[None], 16_000), row.prompt)
        windows = generator.windows(job)
        frames, seconds = [], []
        started = time.monotonic()
        for window in windows:
            frames.append(window.frames.numpy())
            seconds.append(time.monotonic() - started)
        video = np.concatenate(frames)
        seams = range(81, length, 81 - settings.motion_frame)
        likeness = _likeness(found[0].frames, video) if found else None
        found.append(Found(video, evaluate_frames(video, heard, reader, seams), seconds[-1], likeness))
        print(group, row.label, line(row, found[-1], "-"), flush=True)
    return found


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    count = min(len(one), len(other))
    error = np.square(one[:count].astype(np.float32) - other[:count]).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def line(row: Row, found: Found, picture: str) -> str:
    """A row of a table."""
    result = found.result
    cells = [
        f"`{row.label}`",
        f"{result.correlation:.3f}",
        f"{result.error:.3f}",
        f"{result.motion:.2f}",
        f"{result.colour_drift:.1f}",
        "" if result.seam_ratio is None else f"{result.seam_ratio:.2f}",
        f"{round(result.sorrow, 2) + 0.0:+.2f}",  # no minus before zero
        "" if found.likeness is None else f"{min(found.likeness, 99):.1f}",
        f"{found.seconds:.0f}",
        f"![]({picture})",
    ]
    return f"| {' | '.join(cells)} |"


def save_strip(frames: np.ndarray, path: Path) -> None:
    """Six frames in a row, the last one included, as a small WebP."""
    picture = Image.new("RGB", (_STRIP * _SIDE, _SIDE))
    for k in range(_STRIP):
        at = round((k + 1) * (len(frames) - 1) / _STRIP)
        one = Image.fromarray(frames[at]).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        picture.paste(one, (k * _SIDE, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=82, method=6)


def picture_name(group: str, number: int) -> str:
    return f"{PICTURES}/{group}_{number + 1}.webp"


def table(page: str, group: str) -> re.Match[str]:
    """The rows of a group's table in a page: what follows mark, heading and line.

    Raises:
        ValueError: the page has no such table.
    """
    found = re.search(rf"<!-- {group} -->\n\|[^\n]*\n\|[-| ]*\n((?:\|[^\n]*\n)*)", page)
    if found is None:
        raise ValueError(f"there is no table after <!-- {group} -->")
    return found


def main() -> None:
    for group in sys.argv[1:] or GROUPS:
        found = run(group)
        rows = []
        for number, (row, one) in enumerate(zip(GROUPS[group], found, strict=True)):
            save_strip(one.frames, DOCS / picture_name(group, number))
            rows.append(line(row, one, picture_name(group, number)))
        for path in PAGES:
            page = path.read_text(encoding="utf-8")
            place = table(page, group)
            path.write_text(page[: place.start(1)] + "\n".join(rows) + "\n" + page[place.end(1) :], encoding="utf-8")


if __name__ == "__main__":
    main()
