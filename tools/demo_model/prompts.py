"""What the demo's model was told about its pictures: moods, and many ways to ask for each.

A prompt without a mood means a calm face. Knows words only.
"""

from __future__ import annotations

import random

CALM, SMILING, SAD, SURPRISED, ASIDE = range(5)
MOODS = ("calm", "smiling", "sad", "surprised", "looking aside")

_SUBJECTS = ("A woman", "A man", "A person", "A girl", "A boy", "Someone", "The portrait", "A cartoon character")
_SUBJECTS_ZH = ("一个人", "一位女士", "一位男士", "一个女孩", "一个男孩", "画中人", "一个卡通人物", "他", "她")
_ACTIONS = ("is talking to the camera", "is talking", "speaks", "is speaking", "talks to the viewer", "tells a story")
_ACTIONS_ZH = ("在说话", "对着镜头说话", "正在讲话", "在讲故事", "在和观众说话")
_PLACES = ("", "", " in a warm room", " on a stage", ", soft light", " at a desk", " in the evening", ", close shot")
_PLACES_ZH = ("", "", "，在房间里", "，在舞台上", "，光线柔和", "，晚上", "，近景", "，背景干净")
_WORDS = {
    CALM: (", calm", " calmly", ", with a calm face", ", quiet and serious", ", neutral expression", "", ""),
    SMILING: (", smiling", " with a smile", " happily", ", a happy face", ", cheerful and smiling", ", full of joy"),
    SAD: (", sad", " sadly", ", with a sad face", ", unhappy", ", sorrowful expression", ", in sadness"),
    SURPRISED: (", surprised", " in surprise", ", with a surprised face", ", astonished", ", amazed", ", wide eyes"),
    ASIDE: (", looking aside", ", looking away", ", eyes to the side", ", glancing sideways", " and looks aside"),
}
_WORDS_ZH = {
    CALM: ("，平静", "，表情平静", "，神情自然", "，冷静", "，表情严肃", "", ""),
    SMILING: ("，微笑", "，面带微笑", "，很开心", "，笑着", "，高兴的表情", "，快乐"),
    SAD: ("，悲伤", "，表情悲伤", "，很难过", "，伤心", "，忧愁的表情", "，不高兴，难过"),
    SURPRISED: ("，惊讶", "，表情惊讶", "，很吃惊", "，睁大眼睛", "，惊奇的表情"),
    ASIDE: ("，看向旁边", "，目光看向一侧", "，眼睛看旁边", "，侧目", "，视线移开"),
}
HELD_OUT = {  # never trained on: another frame around known words
    CALM: ("A teacher is explaining something, calm.", "老师在讲课，平静。"),
    SMILING: ("A teacher is explaining something, smiling.", "老师在讲课，微笑。"),
    SAD: ("A teacher is explaining something, sad.", "老师在讲课，悲伤。"),
    SURPRISED: ("A teacher is explaining something, surprised.", "老师在讲课，惊讶。"),
    ASIDE: ("A teacher is explaining something, looking aside.", "老师在讲课，看向旁边。"),
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
    subject, action, place = choose.choice(_SUBJECTS_ZH), choose.choice(_ACTIONS_ZH), choose.choice(_PLACES_ZH)
    word = choose.choice(_WORDS_ZH[mood])
    if word and choose.random() < 0.3:
        return f"{word[1:]}，{subject}{action}{place}。"
    return f"{subject}{action}{word}{place}。" if choose.random() < 0.5 else f"{subject}{action}{place}{word}。"


def tokenizer_sentences() -> list[str]:
    """Text that has every word above, for the tokenizer."""
    words = [
        f"{subject} {action}{word}."
        for moods in _WORDS.values()
        for word in moods
        for subject, action in zip(_SUBJECTS, (*_ACTIONS, *_ACTIONS[:2]), strict=True)
    ]
    chinese = [
        f"{subject}{action}{word}。"
        for moods in _WORDS_ZH.values()
        for word in moods
        for subject, action in zip(_SUBJECTS_ZH, (*_ACTIONS_ZH, *_ACTIONS_ZH[:4]), strict=True)
    ]
    return words + chinese
