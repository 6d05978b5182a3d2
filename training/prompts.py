"""What the demo's model was told about its pictures: moods, and many ways to ask for each.

A prompt without a mood means a calm face. Chinese words are in prompts.toml. Knows words only.
"""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

CALM, SMILING, SAD, SURPRISED, ASIDE = range(5)
_CHINESE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_COMMA, _STOP = "\uff0c", "\u3002"  # full width
MOODS = ("calm", "smiling", "sad", "surprised", "looking aside")

_SUBJECTS = ("A woman", "A man", "A person", "A girl", "A boy", "Someone", "The portrait", "A cartoon character")
_ACTIONS = ("is talking to the camera", "is talking", "speaks", "is speaking", "talks to the viewer", "tells a story")
_PLACES = ("", "", " in a warm room", " on a stage", ", soft light", " at a desk", " in the evening", ", close shot")
_WORDS = {
    CALM: (", calm", " calmly", ", with a calm face", ", quiet and serious", ", neutral expression", "", ""),
    SMILING: (", smiling", " with a smile", " happily", ", a happy face", ", cheerful and smiling", ", full of joy"),
    SAD: (", sad", " sadly", ", with a sad face", ", unhappy", ", sorrowful expression", ", in sadness"),
    SURPRISED: (", surprised", " in surprise", ", with a surprised face", ", astonished", ", amazed", ", wide eyes"),
    ASIDE: (", looking aside", ", looking away", ", eyes to the side", ", glancing sideways", " and looks aside"),
}
HELD_OUT = {  # never trained on: another frame around known words
    mood: (f"A teacher is explaining something, {name}.", _CHINESE["held_out"][mood]) for mood, name in enumerate(MOODS)
}


def training_prompts(mood: int, count: int) -> list[str]:
    """Different prompts for a mood, half of them Chinese, always the same ones."""
    choose = random.Random(f"{mood} {count}")
    prompts: list[str] = []
    while len(prompts) < count:
        text = _chinese(choose, mood) if len(prompts) % 2 else _english(choose, mood)
        if text not in prompts:
            prompts.append(text)
    return prompts


def _english(choose: random.Random, mood: int) -> str:
    subject, action, place = choose.choice(_SUBJECTS), choose.choice(_ACTIONS), choose.choice(_PLACES)
    word = choose.choice(_WORDS[mood])
    if word.startswith(",") and choose.random() < 0.3:
        return f"{word[2:].capitalize()}, {subject.lower()} {action}{place}."
    return f"{subject} {action}{word}{place}." if choose.random() < 0.5 else f"{subject} {action}{place}{word}."


def _chinese(choose: random.Random, mood: int) -> str:
    subject, action, place = (
        choose.choice(_CHINESE["subjects"]),
        choose.choice(_CHINESE["actions"]),
        choose.choice(_CHINESE["places"]),
    )
    word = choose.choice(_CHINESE["words"][mood])
    if word and choose.random() < 0.3:
        return f"{word[1:]}{_COMMA}{subject}{action}{place}{_STOP}"
    return (
        f"{subject}{action}{word}{place}{_STOP}" if choose.random() < 0.5 else f"{subject}{action}{place}{word}{_STOP}"
    )


def tokenizer_sentences() -> list[str]:
    """Text that has every word above, for the tokenizer."""
    words = [
        f"{subject} {action}{word}."
        for moods in _WORDS.values()
        for word in moods
        for subject, action in zip(_SUBJECTS, (*_ACTIONS, *_ACTIONS[:2]), strict=True)
    ]
    chinese = [
        f"{subject}{action}{word}{_STOP}"
        for moods in _CHINESE["words"]
        for word in moods
        for subject, action in zip(_CHINESE["subjects"], (*_CHINESE["actions"], *_CHINESE["actions"][:4]), strict=True)
    ]
    return words + chinese
