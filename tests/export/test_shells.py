"""Commands as text: what a real sh makes of them is what went in; PowerShell by golden files and by its rules."""

import dataclasses
import json
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.command import command, is_carried, line, own_shell
from infinitetalk.pipeline.export.exported import Exported
from infinitetalk.pipeline.job.job import load_job
from infinitetalk.pipeline.job.output import output_path
from infinitetalk.pipeline.settings.definition import Settings, names_with, setting_infos, setting_types
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.presets import preset_names, settings_with_preset
from infinitetalk.pipeline.settings.roles import Role
from infinitetalk.tests.support.places import DATA

GOLDEN = DATA / "export"
PRINTF = ("printf", r"%s\0", "begin")
needs_sh = pytest.mark.skipif(shutil.which("sh") is None, reason="no sh to run the commands with")

AWKWARD = [
    "two words",
    "it's",
    'she says "yes"',
    "\N{LEFT SINGLE QUOTATION MARK}curly\N{RIGHT SINGLE QUOTATION MARK} \N{DOUBLE HIGH-REVERSED-9 QUOTATION MARK}",
    "一个人对着镜头激情唱歌",
    "$HOME ${PATH} $(id) `id`",
    "100 % %PATH% %%",
    "back\\slash \\n \\",
    "two\nlines\r\nand\ta tab",
    "EOF\nEOF",
    "",
    " ",
    "-x --y",
    "--",
    "--prompt",
    "none",
    "# a; b & c | d > e < f ! ~ * ? [g] {h,i} (j) ^ @k",
]
texts = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(Path)
paths = (st.sampled_from([text for text in AWKWARD if text]).map(Path) | paths).filter(lambda path: str(path) != ".")


def _values(name):
    info, expected = setting_infos()[name], setting_types()[name]
    if info.choices:
        single = st.sampled_from(info.choices)
    else:
        single = {
            bool: st.booleans(),
            int: st.integers(None if info.min is None else int(info.min), None if info.max is None else int(info.max)),
            float: st.floats(info.min, info.max, allow_nan=False, allow_infinity=False),
            str: texts if info.free_text else st.sampled_from(["64x64", "auto", "cuda:1"]),
            Path: paths,
        }[expected.kind]
    values = st.lists(single, min_size=1, max_size=2).map(tuple) if expected.several else single
    return st.none() | values if expected.optional else values


# what a graph or a video decides; how to run is the user's
ASKED = (*(n for n in names_with(Role.RUN) if not setting_infos()[n].widgets), "preset", "input_json", "audio_save_dir")
WANTED = {n: _values(n) for n in setting_types() if n not in ASKED and setting_infos()[n].landed}


def settings_of(values, preset):
    base = Settings() if preset is None else settings_with_preset(preset)
    return dataclasses.replace(base, **values)


def words(text, cwd=None):
    """The words that sh makes of a command, which has printf for its program."""
    shell = "bash" if "$'" in text else "sh"  # not every sh knows $'…'
    done = subprocess.run([shell, "-c", text], cwd=cwd, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    begin, *found, end = done.stdout.decode().split("\0")
    assert (begin, end) == ("begin", "")
    return found


def unjudged(make):
    """Without ``resolve``, since random settings need not go together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infinitetalk.pipeline.export.command.resolve", lambda settings: settings)
        patch.setattr("infinitetalk.pipeline.export.command.warnings_for", lambda settings: ())
        return make()


@needs_sh
@hypothesis.settings(deadline=None, max_examples=150, suppress_health_check=list(hypothesis.HealthCheck))
@given(st.fixed_dictionaries({}, optional=WANTED), st.sampled_from([None, *preset_names()]), st.booleans())
def test_settings_survive_the_way_through_a_shell(tmp_path_factory, values, preset, full):
    settings = settings_of(values, preset)
    made = unjudged(lambda: command(Exported(settings), "sh", full, PRINTF))
    folder = tmp_path_factory.mktemp("run") if "cat >" in made.text else None
    assert texts_back(parse(words(made.text, folder)), folder) == settings


def texts_back(settings, folder):
    """Settings with the texts of ``input_json`` where the command has put them there."""
    if settings.input_json == Settings().input_json:
        return settings
    entries = json.loads((folder / settings.input_json).read_text(encoding="utf-8"))
    assert entries.keys() <= {"prompt", "negative_prompt"}
    return settings.replace(**entries, input_json=Settings().input_json)


@needs_sh
@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_every_awkward_text_arrives_in_the_job(tmp_path, name, text):
    for source in ("p.png", "a.wav"):
        (tmp_path / source).touch()
    settings = Settings(image=tmp_path / "p.png", audio=tmp_path / "a.wav", prompt="p").replace(**{name: text})
    made = command(Exported(settings), "sh", program=PRINTF)
    read = parse(words(made.text, tmp_path))
    job = load_job(read.replace(input_json=tmp_path / read.input_json) if "cat >" in made.text else read)
    assert getattr(job, name) == text and job == load_job(settings)


HIDDEN = "\x1b]0;it's\x07 \\ \r\n\x9b2J\x7f\u202e\ta"


@needs_sh
@pytest.mark.parametrize("name", ["prompt", "image"])
def test_control_characters_are_written_as_such_and_arrive(name):
    made = command(Exported(Settings(**{name: HIDDEN})), "sh", program=PRINTF)
    assert "$'" in made.text and made.text.isprintable(), made.text
    assert str(getattr(parse(words(made.text)), name)) == HIDDEN
    assert "bash" in made.notes[0]


def test_powershell_gets_control_characters_by_a_file():
    made = command(Exported(Settings(prompt=HIDDEN)), "powershell").text
    assert not set(made) & set(HIDDEN) - set(" a02;it'sJ\\\n]") and "\\u001b" in made
    with pytest.raises(InputError, match="other control characters"):
        command(Exported(Settings(image=HIDDEN)), "powershell")


def test_a_long_command_has_a_line_for_each_flag():
    settings = Settings(ckpt_dir="w", image="a b.png", sample_steps=4, apg_momentum=-0.5, lora_dir=["x", "-y"])
    settings = settings.replace(lora_scale=(1.0, -1.0), prompt="p" * 80)
    assert command(Exported(settings), "sh").text.splitlines() == [
        "python generate_infinitetalk.py \\",
        "    --image 'a b.png' \\",
        f"    --prompt {'p' * 80} \\",
        "    --ckpt_dir w \\",
        "    --lora_dir=x \\",
        "    --lora_dir=-y \\",
        "    --lora_scale=1.0 \\",
        "    --lora_scale=-1.0 \\",
        "    --sample_steps 4 \\",
        "    --apg_momentum=-0.5",
    ]
    assert command(Exported(Settings(size="64x64")), "sh").text == "python generate_infinitetalk.py --size 64x64"


def test_how_a_run_was_started_is_not_exported():
    settings = Settings(resume=True, overwrite=True, quiet=True, dry_run=True, size="64x64")
    for full in (False, True):
        text = command(Exported(settings), "sh", full).text
        assert not re.search("--(resume|overwrite|quiet|dry_run|input_json|audio_save_dir|scene_seg)", text)


def test_warnings_about_the_settings_are_notes():
    made = command(Exported(Settings(use_teacache=True, sample_steps=4), ("First.",)), "sh")
    assert made.notes[0] == "First." and "TeaCache" in made.notes[1].replace("--use_teacache", "TeaCache")
    assert made.with_notes.startswith("# First.\n# ") and made.with_notes.endswith(made.text)


def test_a_note_with_a_line_break_stays_in_its_comment():
    made = command(Exported(Settings(size="64x64"), ("a\nrm x\r\ny",)), "sh")
    assert made.with_notes.splitlines() == ["# a rm x y", made.text]


# PowerShell

POWERSHELL_QUOTES = "'\u2018\u2019\u201a\u201b"
_WORD = re.compile(
    rf"[{POWERSHELL_QUOTES}]((?:[^{POWERSHELL_QUOTES}]|([{POWERSHELL_QUOTES}])\2)*)[{POWERSHELL_QUOTES}]"
)


def powershell_words(text):
    """A command's words by PowerShell's rules for texts in single quotes; bare words must be plain."""
    found, at = [], 0
    text = text.replace(" `\n", " ")
    while at < len(text):
        if text[at] == " ":
            at += 1
        elif match := _WORD.match(text, at):
            found.append(re.sub(rf"([{POWERSHELL_QUOTES}])\1", r"\1", match[1]))
            at = match.end()
        else:
            match = re.compile(r"(&|(--)?[A-Za-z_][A-Za-z0-9_.]*)(?= |$)").match(text, at)
            assert match, text[at:]
            found.append(match[0])
            at = match.end()
    return found


def windows_5_1(arguments):
    """What a program gets: 5.1 puts quotes around words with spaces, and escapes nothing."""
    joined = " ".join(f'"{word}"' if re.search(r"\s", word) else word for word in arguments if word)
    return command_line_to_argv(joined)


def command_line_to_argv(text):
    """Microsoft's rules: a double quote begins and ends a part with spaces; backslashes count only before one."""
    found, word, quoted, begun, at = [], "", False, False, 0
    while at < len(text):
        slashes = len(text) - at - len(text[at:].lstrip("\\"))
        after = text[at + slashes : at + slashes + 1]
        if slashes:
            begun = True
            word += "\\" * (slashes // 2 if after == '"' else slashes)
            at += slashes
            if after == '"' and slashes % 2:
                word, at = word + '"', at + 1
        elif text[at] == '"':
            quoted, begun, at = not quoted, True, at + 1
        elif text[at] in " \t" and not quoted:
            if begun:
                found.append(word)
            word, begun, at = "", False, at + 1
        else:
            word, begun, at = word + text[at], True, at + 1
    return [*found, word] if begun else found


@hypothesis.settings(deadline=None, max_examples=200)
@given(st.lists(texts.filter(lambda text: is_carried(text, "powershell")), max_size=4))
def test_powershell_hands_over_what_it_can_carry(given_words):
    made = line(("python",), ["--prompt", *(word for word in given_words if not word.startswith("--"))], "powershell")
    arguments = powershell_words(made)[1:]
    plain = [word for word in given_words if not word.startswith("--")]
    assert arguments == ["--prompt", *plain]
    if not any(re.search(r"[^\S \t]", word) for word in plain):  # other white space is a letter to Windows
        assert windows_5_1(arguments) == arguments


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_texts_that_powershell_cannot_carry_go_through_a_file(tmp_path, name, text):
    settings = Settings(image="p.png", audio="a.wav", prompt="p", save_file="it's").replace(**{name: text})
    made = command(Exported(settings), "powershell").text
    *prelude, last = made.split("\npython ") if "\npython " in made else [made.removeprefix("python ")]
    read = parse(powershell_words(last)[1:])
    if prelude:
        (written,) = prelude
        target, content = re.fullmatch("Set-Content -Encoding ascii -LiteralPath (.*) -Value (.*)", written).groups()
        (target,), (content,) = powershell_words(target), powershell_words(content)
        assert target == "it's_input.json" == str(read.input_json) and content.isascii()
        read = read.replace(**json.loads(content), input_json=Settings().input_json)
    assert read == settings
    assert bool(prelude) == (not is_carried(text, "powershell"))


def test_powershell_commands_are_as_the_golden_file_has_them():
    """Reviewed by hand: quoting, doubled quotes, line breaks, what goes through a file, a program with a space."""
    paths = {
        "ckpt_dir": "D:\\my weights\\Wan2.1-I2V-14B-480P",
        "image": "C:\\Bob's pictures\\女孩.png",
        "audio": "a.wav",
    }
    plain = Settings(**paths, prompt="She sings, 100 % sure; it's $5 `now`", save_file="out")
    cases = {
        "plain": (plain, {}),
        "preset": (settings_with_preset("02_comfyui_equivalent", **paths, prompt="一个人对着镜头激情唱歌"), {}),
        "quotes": (plain.replace(prompt='She says "it\u2019s"\nand sings\\', negative_prompt=""), {}),
        "program": (plain, {"program": ("C:\\Program Files\\Python\\python.exe", "C:\\Comfy UI\\run.py")}),
    }
    made = {name: command(Exported(settings), "powershell", **more) for name, (settings, more) in cases.items()}
    for name, one in made.items():
        assert one.content.startswith(b"\xef\xbb\xbf")  # or Windows PowerShell takes it for ANSI
        assert one.content.decode("utf-8-sig") == (GOLDEN / f"{name}.ps1").read_text(encoding="utf-8"), name
        assert one.file.endswith(".ps1")


@pytest.mark.parametrize("path", ['a"b.png', "a\nb.png", "folder\\"])
def test_paths_that_powershell_cannot_carry_are_refused(path):
    with pytest.raises(InputError, match="PowerShell cannot hand over"):
        command(Exported(Settings(image=path)), "powershell")
    assert command(Exported(Settings(image=path)), "sh").text


@pytest.mark.parametrize("shell", ["sh", "powershell"])
@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_what_is_no_text_is_refused(shell, text):
    with pytest.raises(InputError):
        command(Exported(Settings(prompt=text)), shell)


def test_the_name_of_the_video_needs_no_second_thought(tmp_path, monkeypatch):
    """A command is run in some folder; nothing but its video and the file of its texts appears there."""
    monkeypatch.chdir(tmp_path)
    for source in ("p.png", "a.wav"):
        (tmp_path / source).touch()
    settings = Settings(image="p.png", audio="a.wav", prompt="p", save_file="video/x")
    assert output_path(settings, load_job(settings), datetime(2026, 1, 1)) == Path("video/x.mp4")
    assert own_shell() in ("sh", "powershell")
