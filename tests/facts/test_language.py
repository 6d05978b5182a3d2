"""Chinese: every sentence of users has an entry, whose fields are those of the English; where and when it is spoken."""

import re

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.commands.table import COMMANDS
from infinitetalk.pipeline.facts.language import Template, chinese, language, setting_help, spoken, templates, texts
from infinitetalk.pipeline.run.progress import Narrator, Notice, RunStarted, WindowDone
from infinitetalk.pipeline.settings.definition import setting_infos
from infinitetalk.scripts import sentences


def test_every_sentence_has_an_entry():
    assert sentences.missing() == [], "python -m infinitetalk.scripts.sentences prints lines for chinese.toml"


def test_a_new_sentence_would_be_missed(monkeypatch, tmp_path):
    (tmp_path / "new.py").write_text('raise InputError(f"--new: {value} is not liked; give another.")\n')
    monkeypatch.setattr(sentences, "ENGINE", tmp_path)
    assert sentences.missing() == ["{} is not liked; give another."]


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.long)])
def test_an_entry_is_chinese_and_has_the_fields_of_the_english(every):
    """Some of them are looked up, which takes long for a thousand."""
    for number, template in enumerate(templates()):
        count = len(template.literals) - 1
        said = template.chinese.format(*(f"<{number}>" for number in range(count)))
        assert not said.isascii()
        assert set(re.findall(r"<(\d+)>", said)) <= set(map(str, range(count)))
        if number % every == 0:
            fields = tuple(f"Some{number}" for number in range(count))
            text = "".join(a + b for a, b in zip(template.literals, (*fields, ""), strict=True))
            assert not chinese(text).isascii(), text


@pytest.mark.parametrize(
    "english, said",
    [
        (
            "--frame_num: 80 found, 4n+1 expected, for example 77 or 81.",
            "--frame_num: 得到 80，应为 4n+1，例如 77 或 81。",
        ),
        ("inspect: a.gguf does not exist; check the path.", "inspect: a.gguf 不存在；请检查路径。"),
        (
            "--sample_step is not a flag; did you mean --sample_steps?",
            "--sample_step 不是参数；是不是 --sample_steps？",
        ),
        ("--frame_num: 'many' found, a whole number expected.", "--frame_num：得到 'many'，应为整数。"),
        ("--kernels triton: nobody knows", "--kernels triton: nobody knows"),
        (
            "me.png is only 64x64 and is enlarged to 640x640; a larger picture gives a sharper video.",
            "me.png 只有 64x64，要放大到 640x640；更大的图片会使视频更清晰。",
        ),
    ],
)
def test_sentences(english, said):
    assert chinese(english) == said


def test_braces_are_texts_and_fields_are_not_format():
    assert Template("give {{{}}} now", "给 {{{0}}}").fields_in("give {a,b} now") == ("a,b",)
    assert "{0}" in chinese("{0} does not exist; check the path.")


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_TW.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "INFINITETALK_LANG": "en"}, "en"),
    ],
)
def test_the_environment_chooses(environment, expected):
    assert language(environment) == expected


def test_lang_wins_and_holds_for_one_call(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["--lang", "zh", "inspect", "none.gguf"]) == 2
    assert capsys.readouterr().err == "错误: inspect: none.gguf 不存在；请检查路径。\n"
    assert main(["inspect", "none.gguf", "--lang=zh"]) == 2 and "不存在" in capsys.readouterr().err
    assert main(["inspect", "none.gguf"]) == 2 and "does not exist" in capsys.readouterr().err
    assert main(["--lang", "fr"]) == 2 and "one of en, zh expected" in capsys.readouterr().err
    assert main(["--lang"]) == 2 and "one of en, zh expected" in capsys.readouterr().err


def test_help_is_chinese(capsys):
    assert main(["generate", "--help", "--lang", "zh"]) == 0
    out = capsys.readouterr().out
    for name in setting_infos():
        assert f"--{name} " in out and texts()["settings"][name].replace(" ", "")[:6] in re.sub(r"\s+", "", out)
    assert "用法：" in out and "采样" in out and "Sampling" not in out and "default" not in out
    assert main(["--lang", "zh", "help"]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"  {name} +.*[\u4e00-\u9fff]", listed) for name in COMMANDS)


def test_what_a_run_tells_is_chinese(monkeypatch):
    monkeypatch.setenv("INFINITETALK_LANG", "zh")
    narrator = Narrator(clock=lambda: 1.0)
    silent = "a.wav is silent, so nothing will be said in the video; check that it is the right file."
    events = [RunStarted(2, 153, 6.12), Notice(silent, warning=True), WindowDone(0, 2, 3.24)]
    lines = [spoken(line.text) for event in events for line in narrator.tell(event)]
    assert lines[0] == "153 帧，6.12 秒视频，2 个窗口"
    assert lines[1].startswith("警告: a.wav 是静音") and lines[2].startswith("窗口 1/2 完成，视频 3.24 / 6.12 秒")
    assert setting_help("crf", "quality") == texts()["settings"]["crf"]
