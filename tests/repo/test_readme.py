"""The READMEs and the pages behind them: short, alike in both languages, and nothing in them is missing here."""

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest
from infinitetalk.pipeline.commands.table import COMMANDS
from infinitetalk.pipeline.settings.flags import build_parser
from infinitetalk.tests.support.places import ROOT

PAIRS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.zh-CN.md"), *ROOT.glob("docs/*.zh-CN.md")])
SHORTER = {"docs/import.zh-CN.md"}  # whose tables are in English alone
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "assets", "benchmarks", "training", "tests", ".github")
    for path in (ROOT / folder).rglob("*.md" if folder != "." else "*.md")
    if folder != "." or path.parent == ROOT
)
WORDS, CHARACTERS = 1800, 3600
OTHER_PROGRAMS = {"apt-get", "cd", "git", "hf"}


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(page):
    return re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)


def blocks(page):
    """The fenced blocks of commands, without what is free text in them."""
    found = re.findall(r"^ *```(?:bash|python)\n(.*?)^ *```", text(page), flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r'(?<=prompt)[ =]"[^"]*"|#.*', "", block) for block in found]


def command_lines(page):
    """The words of every command in a block or within a line."""
    shell = re.findall(r"^ *```bash\n(.*?)^ *```", text(page), flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"(?<!`)`((?:make|infinitetalk|bash|python) [^`]+)`", without_code(page))
    return [shlex.split(line, comments=True) for line in lines]


def headings(page):
    return re.findall(r"^(#+) (.*)", without_code(page), flags=re.MULTILINE)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for _, heading in headings(page)}


def test_the_readme_is_short():
    assert len(text("README.md").split()) <= WORDS


def test_the_chinese_readme_is_short_and_chinese():
    assert 1000 < len(re.findall(r"[\u4e00-\u9fff]", text("README.zh-CN.md"))) <= CHARACTERS


@pytest.mark.parametrize("chinese", PAIRS)
def test_both_languages_have_the_same_parts_and_commands(chinese):
    if chinese in SHORTER:
        return
    english = chinese.replace(".zh-CN", "")
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    assert blocks(english) == blocks(chinese)
    for mark in (r"^\|", r"^- ", r"^\d\. ", r"!\["):
        counts = [len(re.findall(mark, text(page), re.MULTILINE)) for page in (english, chinese)]
        assert counts[0] == counts[1], f"{mark} in {english} and {chinese}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT)), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), flags=re.MULTILINE))
    flags = set(build_parser()._option_string_actions)  # private, but argparse lists its flags nowhere else
    for words in command_lines(page):
        if not words or words[0] in OTHER_PROGRAMS or "=" in words[0]:
            continue
        program, *rest = words
        if program == "make":
            goals = [word for word in rest if "=" not in word]
            assert set(goals) <= targets, f"{page}: {shlex.join(words)}"
        elif program == "bash":
            assert (ROOT / rest[0]).is_file(), f"{page}: {shlex.join(words)}"
        elif program == "infinitetalk" and not rest[0].startswith("-"):
            assert rest[0] in COMMANDS, f"{page}: {shlex.join(words)}"
            known = set(COMMANDS[rest[0]].load().parser()._option_string_actions)
            assert flags_in(rest) <= known, f"{page}: {shlex.join(words)}"
        elif Path(program).name == "python" and rest[0] == "-m":
            check_module(rest[1])
            if rest[1] == "pytest":
                after = zip(rest[1:], rest[2:], strict=False)  # what is behind -m are marks
                paths = [word for before, word in after if word[0] != "-" and before != "-m"]
                assert paths and all((ROOT / path).exists() for path in paths), shlex.join(words)
        else:
            assert program == "infinitetalk" or rest[0] == "generate_infinitetalk.py", shlex.join(words)
            assert flags_in(rest) <= flags, f"{page}: {flags_in(rest) - flags}"


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_is_named_exists(page):
    for name in re.findall(r"python -m ([\w.]+)", text(page)):
        check_module(name)


def check_module(name):
    if name.partition(".")[0] in ("pip", "pytest", "venv"):
        return
    assert name.partition(".")[0] == "infinitetalk", name
    path = ROOT.joinpath(*name.split(".")[1:])
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"there is no {name}"


def flags_in(words):
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def test_every_file_that_the_ways_and_changes_name_exists():
    ways = text("docs/architecture.md").partition("<!-- modules: begin -->")[0]
    named = set(re.findall(r"`((?:[\w*-]+/)+[\w*-]+\.\w+)`", ways)) - {"scripts/node_texts_LANGUAGE.toml"}
    assert len(named) > 60
    assert [name for name in named if not any(any(folder.glob(name)) for folder in (ROOT, ROOT / "pipeline"))] == []
