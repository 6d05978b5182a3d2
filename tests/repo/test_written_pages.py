"""Pages that scripts write are in step with the code, and their Chinese is whole."""

import re

import pytest
from infinitetalk.pipeline.facts.published import PARTS
from infinitetalk.pipeline.settings.definition import setting_infos
from infinitetalk.pipeline.settings.presets import load_preset, preset_names
from infinitetalk.scripts import architecture, formats_page, import_page, models_page, settings_table


@pytest.mark.parametrize(
    "file, language",
    [(settings_table.FILE, settings_table.english), (settings_table.CHINESE_FILE, settings_table.chinese)],
)
def test_the_tables_of_settings_are_up_to_date(file, language):
    """A KeyError: a setting, a group or a word has no Chinese in pages_zh.toml."""
    page = settings_table.settings_page(language())
    assert file.read_text(encoding="utf-8") == page, "run: python -m infinitetalk.scripts.settings_table"


@pytest.mark.parametrize(
    "file, language", [(models_page.FILE, models_page.english), (models_page.CHINESE_FILE, models_page.chinese)]
)
def test_the_pages_of_models_are_up_to_date(file, language):
    """A KeyError: a part or a word has no Chinese in pages_zh.toml."""
    page = models_page.models_page(language())
    assert file.read_text(encoding="utf-8") == page, "run: python -m infinitetalk.scripts.models_page"
    assert set(language().parts) == set(PARTS)


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_sizes_in_the_readme_are_those_of_the_table(page):
    text = (architecture.ROOT / page).read_text(encoding="utf-8")
    sizes = {name: sum(part.size for part in load_preset(name).parts()) / 1e9 for name in preset_names()}
    fp8 = {round(size) for name, size in sizes.items() if load_preset(name).as_settings().quant}
    assert {f"{max(fp8)} GB", f"{sizes['04_high_quality']:.0f} GB"} <= set(re.findall(r"\d+ GB", text))
    assert "infinitetalk download --preset" in text


def test_help_in_chinese_is_up_to_date():
    written = settings_table.HELPS.read_text(encoding="utf-8")
    assert written == settings_table.with_chinese_helps(), "run: python -m infinitetalk.scripts.settings_table"


def test_every_setting_is_told_in_chinese():
    language = settings_table.chinese()
    for name, info in setting_infos().items():
        assert re.search(r"[\u4e00-\u9fff]", language.line(name, info, None)) or name == "device", name


def test_no_chinese_text_is_left_over():
    texts = settings_table.chinese_texts()
    assert set(texts["settings"]) <= set(setting_infos())
    assert set(texts["groups"]) == {info.group for info in setting_infos().values()}


def test_the_chinese_formats_are_those_of_the_english_page():
    chinese = formats_page.on_page(formats_page.CHINESE_FILE)
    advice = "run: python -m infinitetalk.scripts.formats_page"
    assert chinese == formats_page.in_chinese(formats_page.on_page()) != "", advice
    assert not re.search(r"\b(the|and|with|of|error|kept)\b", chinese)


def test_the_tables_of_storages_are_up_to_date():
    marks, table = (formats_page.STORAGES_BEGIN, formats_page.STORAGES_END), formats_page.storages_part()
    assert formats_page.on_page(formats_page.FILE, *marks) == table, "run: python -m infinitetalk.scripts.formats_page"
    chinese = formats_page.on_page(formats_page.CHINESE_FILE, *marks)
    assert chinese == formats_page.in_chinese(table, "storages")
    assert not re.search(r"\b(the|and|with|of|half|card)\b", chinese)


def test_the_list_of_modules_is_up_to_date():
    assert architecture.on_page() == architecture.modules_part(), "run: python -m infinitetalk.scripts.architecture"


def test_a_module_without_a_docstring_is_named(tmp_path, monkeypatch):
    (tmp_path / "silent.py").write_text("x = 1\n")
    monkeypatch.setattr(architecture, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="silent.py has no docstring"):
        architecture.first_line(tmp_path / "silent.py")


@pytest.mark.parametrize(
    "page", ["docs/architecture.md", "CONTRIBUTING.md", "CONTRIBUTING.zh-CN.md", "benchmarks/README.md"]
)
def test_every_module_that_is_named_is_there(page):
    """By its path from the root, or within the engine."""
    text = (architecture.ROOT / page).read_text(encoding="utf-8").partition(architecture.BEGIN)[0]
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|toml))`", text))
    assert named, page
    for path in named:
        found = [(root / path).exists() for root in (architecture.ROOT, architecture.ROOT / "pipeline")]
        assert any(found), f"{page} names {path}"


@pytest.mark.parametrize("language", import_page.PAGES)
def test_the_tables_of_nodes_are_up_to_date(language):
    said = import_page.PAGES[language].read_text(encoding="utf-8")
    assert said == import_page.page(language), "run: python -m infinitetalk.scripts.import_page"


def test_every_node_that_the_exporter_reads_has_a_verdict_and_no_other():
    assert import_page.nodes_read() - import_page.nodes_told() == set()
    assert import_page.nodes_told() - import_page.nodes_read() - {"Reroute"} == set()
    for row in (row for part in import_page.PARTS for row in import_page.rows(part)):
        assert set(row["verdict"]) <= set(import_page.WORDS["en"]), row["nodes"]
        assert ("why" in row) == ("why_zh" in row) == bool({"near", "other"} & set(row["verdict"])), row["nodes"]
