"""Speech for training, made by espeak-ng beforehand: many voices and sentences, and others held out.

Written as one compressed file of 8-bit mu-law samples. The program espeak-ng must be installed; nothing
of it or its data goes into the file but the sound. Knows nothing of models.
"""

from __future__ import annotations

import io
import random
import subprocess
import tomllib
import wave
from pathlib import Path

import numpy as np

RATE = 16_000
CLIP = 12 * RATE
_VARIANTS = ("m1", "m2", "m3", "m5", "m7", "f1", "f2", "f3", "f5", "croak", "klatt2", "Alex", "Annie")
_HELD_OUT_VARIANTS = ("m4", "f4", "m6")
_LANGUAGES = ("cmn", "en-us", "cmn", "en-gb", "cmn", "en-us", "de", "fr-fr", "es", "it", "ja", "ru", "pt")
_EN = """
The morning train was late again, so we walked along the river instead.
Nobody knew who had left the lamp burning in the old library.
Please bring me a cup of tea, two slices of bread and the blue notebook.
She laughed, closed the window and began to sing very quietly.
How many stars can you count before the clouds come back?
Twenty seven small boats were waiting in the harbour.
If you mix yellow and blue, you get green; everybody knows that.
He opened his mouth to answer, but the telephone rang first.
We should measure twice and cut once, my father used to say.
Good evening, and welcome to the weather report for the weekend.
The quick brown fox jumps over the lazy dog.
Why is the sky dark at night, and what makes the sea taste of salt?
Yes. No. Maybe. Oh, I see! Wait a moment, please.
An apple a day keeps the doctor away, or so they say.
""".strip().splitlines()
_TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_ZH, _OTHERS, _HELD_OUT = _TEXTS["cmn"], _TEXTS["others"], _TEXTS["held_out"]


def render(path: Path, clips: int) -> None:
    """Write ``clips`` clips of 12 s to train on, and six that are held out, to an .npz file."""
    choose = random.Random(5)
    train = np.stack([_clip(choose, number) for number in range(clips)])
    held_out = np.stack([_held_out(number) for number in range(6)])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, train=train, held_out=held_out)


def load(path: Path, part: str) -> np.ndarray:
    """Clips ``train`` or ``held_out`` of the file, float32 [clips, 192000] in [-1, 1]."""
    with np.load(path) as file:
        return from_mu_law(file[part])


def _clip(choose: random.Random, number: int) -> np.ndarray:
    language = _LANGUAGES[number % len(_LANGUAGES)]
    voice = f"{language}+{choose.choice(_VARIANTS)}"
    pieces = [np.zeros(int(choose.uniform(0, 0.8) * RATE), np.float32)]
    speed, pitch = choose.randint(120, 190), choose.randint(15, 85)
    while sum(map(len, pieces)) < CLIP:
        if language in _OTHERS:
            text = choose.choice(_OTHERS[language].replace("\u3002", ". ").split(". "))
        else:
            text = choose.choice(_ZH if language == "cmn" else _EN)
        spoken = speak(text, voice, speed, pitch)
        pause = choose.uniform(0.1, 0.6) if choose.random() < 0.75 else choose.uniform(0.6, 2.2)
        pieces += [spoken, np.zeros(int(pause * RATE), np.float32)]
    return to_mu_law(_level(np.concatenate(pieces)[:CLIP]))


def _held_out(number: int) -> np.ndarray:
    language = ("en-us", "cmn", "en-gb")[number % 3]
    voice = f"{language}+{_HELD_OUT_VARIANTS[(number + number // 3) % 3]}"
    spoken = speak(_HELD_OUT[language], voice, 140 + 8 * number, 35 + 8 * number)
    return to_mu_law(_level(np.resize(np.concatenate([spoken, np.zeros(RATE // 2, np.float32)]), CLIP)))


def speak(text: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """What espeak-ng says, float32 at 16 kHz."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", "--", text]
    sound = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(sound)) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    samples = np.frombuffer(data, np.int16).astype(np.float32) / 32768
    import soxr

    return soxr.resample(samples, rate, RATE)


def _level(samples: np.ndarray) -> np.ndarray:
    return samples * (0.6 / max(float(np.abs(samples).max()), 1e-3))


def to_mu_law(samples: np.ndarray) -> np.ndarray:
    """float [-1, 1] -> uint8."""
    squeezed = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
    return np.round((squeezed + 1) * 127.5).astype(np.uint8)


def from_mu_law(codes: np.ndarray) -> np.ndarray:
    """uint8 -> float32 [-1, 1]; the code nearest to silence is silence."""
    squeezed = codes.astype(np.float32) / 127.5 - 1
    samples = np.sign(squeezed) * (np.power(np.float32(256), np.abs(squeezed)) - 1) / 255
    return np.where(np.abs(samples) < 1e-4, 0, samples).astype(np.float32)
