"""Writes the table of storages and the measured part of docs/formats.md, each between marks; the rest is by hand.

``python -m infinitetalk.scripts.formats_page`` measures again (a minute) and rewrites both, ``... storages`` the table
alone, which is made from ``facts/storages.py``; tests make and measure them too, and fail where the page says something
else. docs/formats.zh-CN.md gets the same parts with the Chinese of pages_zh.toml.
"""

from __future__ import annotations

import re
import sys
import tempfile
import tomllib
from pathlib import Path

import torch

from ..pipeline.facts.storages import STORAGES, StorageFacts
from ..tests.support.format_matrix import (
    AT_LOAD,
    COARSE,
    FORMATS,
    SIZES,
    WAYS,
    WITH,
    WITHOUT,
    Cell,
    Matrix,
    Workplace,
    every_pair,
    measure,
)

DOCS = Path(__file__).parent.parent / "docs"
FILE, CHINESE_FILE = DOCS / "formats.md", DOCS / "formats.zh-CN.md"
CHINESE = Path(__file__).parent / "pages_zh.toml"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
STORAGES_BEGIN, STORAGES_END = "<!-- storages: begin -->\n", "<!-- storages: end -->\n"
NUMBER = re.compile(r"\d+\.\d+")


def storages_part() -> str:
    """The table of storages, as Markdown."""
    head = ("kept as", "bits a weight", "rounding", "made by", "products in 8 bits need")
    return "\n" + _table(head, [_storage(storage) for storage in STORAGES]) + "\n"


def _storage(storage: StorageFacts) -> tuple[str, ...]:
    made = f"`--quant {storage.choice}`: {storage.help}" if storage.help else ""
    return storage.name, f"{storage.bits:g}", storage.exactness, made, storage.requirement


def measured_part(matrix: Matrix) -> str:
    """What stands between the marks, as Markdown."""
    parts = [_NOTES.format(layers=SIZES.layers, width=SIZES.dim, coarse=", ".join(_coarse()))]
    parts.append(_table(("base and audio as", *_headings()), [(name, *_row(matrix, name)) for name in _names()]))
    parts.append("\nConverted while loading, with `--quant`:\n\n")
    converted = [(f"{name}, `--quant {quant}`", *_cells(_at_load(matrix, name, quant))) for name, quant in AT_LOAD]
    parts.append(_table(("base and audio as", *_headings()), converted))
    for way in WAYS:
        what = "error in %" if way == WITHOUT else "error in %, and the part of the LoRA's effect that is kept"
        rows = [(base, *(_pair(matrix.pairs[way, base, audio]) for audio in _names())) for base in _names()]
        table = _table(("base \\ audio", *(name.removeprefix("GGUF ") for name in _names())), rows)
        parts.append(f"\n<details><summary>Every base with every audio format, {way}: {what}</summary>\n\n")
        parts.append(f"{table}\n</details>\n")
    return "".join(parts)


_NOTES = """
One forward of a small random transformer ({layers} blocks of width {width}), base and audio layers each in every
format, against the same weights and LoRAs in float32. Products are computed in float32, so what is seen is the
format alone; random weights pass errors on about three times as strongly as they come in. One LoRA: rank 16 at
strength 0.8 on every layer, with alpha, biases, norms and modulations; the second, of rank 8, is at -0.5; the side
branch is the one LoRA with `--lora_mode side`. *Kept* is the slope of the regression of (with LoRA minus without) on
the same in float32: 0 for a LoRA that is lost, 2 for one that is applied twice. For {coarse}
float32 means the weights that the file stands for, since the model itself is another one there. "int8 by rows",
"quanto" and "mixed" have more in 8 bits than the matrices of the blocks, as their publishers do it; the others keep
embeddings, time and head in floats.

"""


def _names() -> list[str]:
    return [form.name for form in FORMATS]


def _coarse() -> list[str]:
    return [form.name for form in FORMATS if form.error > COARSE]


def _headings() -> list[str]:
    return [f"error, {way}" for way in WAYS] + [f"kept, {way}" for way in WITH]


def _row(matrix: Matrix, name: str) -> list[str]:
    return _cells({way: matrix.pairs[way, name, name] for way in WAYS})


def _at_load(matrix: Matrix, name: str, quant: str) -> dict[str, Cell]:
    return {way: matrix.at_load[way, name, quant] for way in WAYS}


def _cells(cells: dict[str, Cell]) -> list[str]:
    return [f"{_percent(cell.error)} %" for cell in cells.values()] + [f"{cells[way].slope:.3f}" for way in WITH]


def _pair(cell: Cell) -> str:
    return _percent(cell.error) if cell.slope is None else f"{_percent(cell.error)} ({cell.slope:.2f})"


def _percent(error: float) -> str:
    """Two digits that count; 0.00 for what float32 rounds."""
    percent = 100 * error
    return f"{percent:.2f}" if percent < 1 else f"{percent:.1f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_chinese(part: str, table: str = "formats") -> str:
    """What ``measured_part`` gave, or ``storages_part`` for the table "storages", in Chinese.

    Raises:
        ValueError: a text that is to be replaced is not there.
    """
    for text in tomllib.loads(CHINESE.read_text(encoding="utf-8"))[table]:
        if text["en"] not in part:
            raise ValueError(f"{CHINESE.name} translates what {FILE.name} does not say: {text['en']!r}")
        part = part.replace(text["en"], text["zh"])
    return part


def on_page(file: Path = FILE, begin: str = BEGIN, end: str = END) -> str:
    """What stands between the marks now."""
    return file.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]


def write(file: Path, part: str, begin: str = BEGIN, end: str = END) -> None:
    """Put this between the marks."""
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    file.write_text(before + begin + part + end + after, encoding="utf-8", newline="\n")


def main() -> None:
    table = storages_part()
    write(FILE, table, STORAGES_BEGIN, STORAGES_END)
    write(CHINESE_FILE, in_chinese(table, "storages"), STORAGES_BEGIN, STORAGES_END)
    if sys.argv[1:] == ["storages"]:
        return
    torch.set_num_threads(1)  # as the tests do: the products are too small to share
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        measured = measured_part(measure(place, {form.name: place.write(form) for form in FORMATS}, every_pair()))
    write(FILE, measured)
    write(CHINESE_FILE, in_chinese(measured))


if __name__ == "__main__":
    main()
