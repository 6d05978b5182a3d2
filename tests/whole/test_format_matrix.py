"""Every base format with every audio format and every way of applying LoRAs: near float32, and the LoRA in full effect.

The sabotage at the end shows that the matrix would fail for a LoRA that is lost, doubled, or without its biases.
"""

import itertools
import random

import pytest
import torch
from infinitetalk.pipeline.lora import Loras
from infinitetalk.scripts.formats_page import FILE, NUMBER, measured_part, on_page
from infinitetalk.tests.support.format_matrix import (
    AT_LOAD,
    FORMATS,
    WAYS,
    WITH,
    WITHOUT,
    Cell,
    Matrix,
    Workplace,
    error,
    every_pair,
    measure,
    slope,
    some_pairs,
)

ERRORS = {form.name: form.error for form in FORMATS}
AT_LOAD_ERRORS = {"fp8": 0.026, "int8": 0.007}
# Small random networks pass on errors of their weights two to four times as strongly as they come in.
PASSED_ON = 5.0
BF16 = 1e-2
KEPT = pytest.approx(1, abs=0.05)


def most(*errors):
    """The largest error of a velocity whose weights have these."""
    return max(1e-5, PASSED_ON * max(errors))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("formats"))


@pytest.fixture(scope="module")
def files(place):
    return {form.name: place.write(form) for form in FORMATS}


@pytest.mark.parametrize("pairs", [some_pairs, pytest.param(every_pair, marks=pytest.mark.long)])
def test_pairs_of_formats_with_every_way_of_applying_loras(place, files, pairs):
    matrix = measure(place, files, pairs())
    assert {(base, base) for base in ERRORS} <= set(pairs()["one LoRA"])
    assert set(matrix.at_load) == {(way, *pair) for way in WAYS for pair in AT_LOAD}
    wrong = []
    for (way, base, audio), cell in matrix.pairs.items():
        if cell.error > most(ERRORS[base], ERRORS[audio]) or (way != WITHOUT and cell.slope != KEPT):
            wrong.append((way, base, audio, cell))
        if base == audio and cell.error < 0.9 * ERRORS[base]:  # then it was not in effect
            wrong.append((way, base, "finer than it can be", cell))
    for (way, name, quant), cell in matrix.at_load.items():
        if cell.error > most(ERRORS[name], AT_LOAD_ERRORS[quant]) or (way != WITHOUT and cell.slope != KEPT):
            wrong.append((way, name, f"--quant {quant}", cell))
    assert not wrong
    floats = [cell for (_, *pair), cell in matrix.pairs.items() if set(pair) <= {"fp32", "bf16"}]
    assert floats and max(cell.error for cell in floats) < BF16
    check_page(matrix)


def check_page(matrix):
    """Pairs that are not measured are taken from the page itself."""
    page = on_page()
    measured = measured_part(Matrix(pairs_on(page) | matrix.pairs, matrix.at_load))
    advice = f"{FILE.name} is out of date; run: python -m infinitetalk.scripts.formats_page"
    assert NUMBER.split(page) == NUMBER.split(measured), advice
    # other processors sum in another order, and 8-bit roundings may then fall to the other side
    for told, found in zip(NUMBER.findall(page), NUMBER.findall(measured), strict=True):
        assert float(told) == pytest.approx(float(found), rel=0.1, abs=0.03), advice


def pairs_on(page):
    """The pairs in the tables of the page, by way, base and audio format."""
    cells = {}
    for way, table in zip(WAYS, page.split("<details>")[1:], strict=True):
        rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
        for base, row in zip(ERRORS, rows, strict=True):
            for audio, (percent, *kept) in zip(ERRORS, (NUMBER.findall(cell) for cell in row[1:]), strict=True):
                cells[way, base, audio] = Cell(float(percent) / 100, *map(float, kept))
    return cells


@pytest.mark.parametrize("way", WAYS)
def test_pairs_put_together_are_those_loaded_from_their_files(place, files, way):
    pairs = random.Random(way).sample(list(itertools.permutations(files, 2)), 2)
    for base, audio in pairs:
        alone = {name: place.load(files[name], way).read_back() for name in (base, audio)}
        loaded = place.load((files[base][0], files[audio][1]), way)
        assert torch.equal(loaded.run(), alone[base].run(alone[audio])), (base, audio)


def test_bfloat16_activations_cost_no_more_than_bfloat16_weights(place, files):
    """What runs on a card, computed on the CPU: LoRA factors and activations in bf16."""
    for name in ("bf16", "scaled fp8", "GGUF Q8_0"):
        for way in WAYS:
            expected = place.expected(way).run()
            found = place.load(files[name], way, dtype=torch.bfloat16).run().float()
            assert error(found, expected) < most(ERRORS[name], 0.006), (name, way)


def lost(monkeypatch):
    monkeypatch.setattr(Loras, "touches", lambda self, name: False)


def doubled(monkeypatch):
    delta, branch = Loras.delta, Loras.branch
    monkeypatch.setattr(Loras, "delta", lambda self, *args: 2 * delta(self, *args))
    monkeypatch.setattr(Loras, "branch", lambda self, *args: tuple(2**0.5 * part for part in branch(self, *args)))


def without(*parts):
    def spoil(monkeypatch):
        touches = Loras.touches
        monkeypatch.setattr(
            Loras, "touches", lambda self, name: touches(self, name) and not any(part in name for part in parts)
        )

    return spoil


def without_alpha(monkeypatch):
    monkeypatch.setattr("infinitetalk.pipeline.lora.changes.Product.factor", 1.0)


def matrices_alone(monkeypatch):
    """As Kijai's wrapper does it beside quantised weights."""
    touches = Loras.touches
    monkeypatch.setattr(Loras, "touches", lambda self, n: touches(self, n) and n.endswith("weight") and "norm" not in n)


SABOTAGE = {
    "lost": lost,
    "doubled": doubled,
    "without biases": without(".bias"),
    "without modulations": without("modulation"),
    "without audio layers": without("audio"),
    "without the blocks' matrices": without("attn.", "ffn."),
    "without alpha": without_alpha,
    "matrices alone": matrices_alone,
}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *(("bf16", "one LoRA"), ("GGUF Q4_K", "one LoRA"), ("scaled fp8", "side branch")),
        *(pytest.param(name, "one LoRA", marks=pytest.mark.long) for name in ("scaled fp8", "quanto int8")),
        *(pytest.param(name, "side branch", marks=pytest.mark.long) for name in ("bf16", "quanto int8", "GGUF Q4_K")),
    ],
)
def test_a_lora_that_is_not_what_it_should_be_is_noticed(place, files, name, way):
    effect = place.expected(way).run() - place.expected(WITHOUT).run()
    plain = place.load(files[name], WITHOUT).run()

    def kept():
        return slope(place.load(files[name], way).run() - plain, effect)

    assert kept() == KEPT
    for kind, spoil in SABOTAGE.items():
        with pytest.MonkeyPatch.context() as monkeypatch:
            spoil(monkeypatch)
            assert kept() != KEPT, kind


def test_a_second_lora_that_is_lost_is_noticed(place, files):
    effect = place.expected("two LoRAs").run() - place.expected(WITHOUT).run()
    for name in ("bf16", "GGUF Q4_K"):
        plain = place.load(files[name], WITHOUT).run()
        one, two = (slope(place.load(files[name], way).run() - plain, effect) for way in WITH[:2])
        assert two == KEPT and one != KEPT
