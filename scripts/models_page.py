"""Writes docs/models.md and models.zh-CN.md: every file that is downloaded, from ``facts/published.py``.

``python -m infinitetalk.scripts.models_page`` rewrites them; a test fails where one is out of date. Chinese comes from
pages_zh.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..pipeline.facts.published import PARTS, UNSAID, Part
from ..pipeline.facts.sizes import size_text
from ..pipeline.settings.presets import load_preset, preset_names

DOCS = Path(__file__).parent.parent / "docs"
FILE, CHINESE_FILE = DOCS / "models.md", DOCS / "models.zh-CN.md"
CHINESE = Path(__file__).parent / "pages_zh.toml"

HEAD = """\
# Models

[中文](models.zh-CN.md)

Where the weights come from, where they are put, and how they are checked. Made from the table in
`pipeline/facts/published.py` by `python -m infinitetalk.scripts.models_page`.

```bash
infinitetalk download --preset 02_comfyui_equivalent              # what this preset needs and is not here yet
infinitetalk download --preset 03_balanced --comfyui ~/ComfyUI    # the same into ComfyUI's folders
infinitetalk download --list                                      # parts and presets, sizes, what is here
infinitetalk download vae lightx2v --to /data/weights --dry_run   # single parts; shows it and asks nobody
```

- Files go into `weights/` of the current folder (or of the clone, if they are there already), where runs look for them,
  so that `infinitetalk --preset NAME --image me.png --audio speech.wav` is enough.
- An interrupted download goes on when the same command is repeated; unfinished files wait in `weights/.partial`. Size
  and SHA-256 are checked against the table, or against what the hub says where the table has none; wrong bytes are
  deleted. Room on the disk is checked first.
- If a publisher replaces a file, the download says so and stops; `--trust_hub` takes the hub's own word.
- A mirror is chosen by huggingface_hub's own variable: `HF_ENDPOINT=https://hf-mirror.com infinitetalk download ...`;
  `HF_TOKEN` and proxies work too. `--modelscope` takes the files from modelscope.cn (`pip install modelscope`), where
  the publishers have them.
- By hand: the links below, or `hf download REPOSITORY FILE --local-dir ...`; what counts is where the files lie.
- Presets in fp8 need neither the seven shards of the base nor InfiniteTalk's own file: MeiGen's fp8 file holds both.
- Where the LoRA of presets 01, 02, 05 and 06 is not there, but the one that the guide's troubleshooting fetches
  (`lightx2v_t2v`) is, that one is taken, and a warning says so.
- The bundled workflow for a picture uses Kijai's files; `infinitetalk download` takes these parts with `--comfyui DIR`:
  kijai_fp8 kijai_infinitetalk umt5_fp8 clip_vision_h wan_vae wav2vec_fp16 lightx2v.

"""


@dataclass(frozen=True)
class Language:
    """What a page is written with: what is by hand, an English word in it, and what a part is."""

    head: str
    words: Mapping[str, str]
    parts: Mapping[str, str]

    def word(self, english: str) -> str:
        return self.words[english] if self.words else english


def english() -> Language:
    return Language(HEAD, {}, {part.name: part.what for part in PARTS.values()})


def chinese() -> Language:
    texts = tomllib.loads(CHINESE.read_text(encoding="utf-8"))["models"]
    return Language(texts["head"].lstrip(), texts["words"], texts["parts"])


def models_page(language: Language) -> str:
    """The whole page, as Markdown.

    Raises:
        KeyError: a word or a part has no Chinese.
    """
    presets = [
        (f"`{name}`", _size(load_preset(name).parts()), _names(load_preset(name).parts())) for name in preset_names()
    ]
    comfy = [
        (f"`{name}`", _size(load_preset(name).parts(True)), _names(load_preset(name).parts(True)))
        for name in preset_names()
    ]
    parts = [
        (
            f"`{part.name}`",
            language.parts[part.name],
            size_text(part.size),
            _folder("weights", part.place),
            _folder("models", part.comfy),
            language.word(part.licence) if part.licence == UNSAID else part.licence,
        )
        for part in PARTS.values()
    ]
    files = [
        (
            f"`{part.name}`",
            f"[{file.path}]({part.url(file)})",
            "-" if file.size is None else f"{file.size:,}",
            "-" if file.sha256 is None else f"`{file.sha256}`",
        )
        for part in PARTS.values()
        for file in part.files
    ]
    word = language.word
    preset_head = (word("preset"), word("size"), word("parts"))
    return "".join(
        [
            language.head,
            f"## {word('What presets need')}\n\n",
            _table(preset_head, presets),
            f"\n{word('In ComfyUI:')}\n\n",
            _table(preset_head, comfy),
            f"\n## {word('Parts')}\n\n",
            _table(tuple(map(word, ("part", "what", "size", "folder", "folder of ComfyUI", "licence"))), parts),
            f"\n## {word('Files')}\n\n",
            _table((word("part"), word("file"), word("bytes"), "SHA-256"), files),
        ]
    )


def _size(parts: tuple[Part, ...]) -> str:
    return size_text(sum(part.size for part in parts))


def _names(parts: tuple[Part, ...]) -> str:
    return ", ".join(f"`{part.name}`" for part in parts)


def _folder(root: str, folder: str | None) -> str:
    return "-" if folder is None else f"`{root}/{folder}`".replace("/`", "`")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")


def main() -> None:
    """Write both pages."""
    for file, language in ((FILE, english()), (CHINESE_FILE, chinese())):
        file.write_text(models_page(language), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
