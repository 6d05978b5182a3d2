"""What users of an earlier version have still works: graphs, commands, scripts, finished and unfinished videos.

``tests/data/earlier`` was made by that version (``python -m scripts.save_earlier``); what is new since then may be
added to a command, and nothing of the old may be lost or changed.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import av
import infinitetalk
import pytest
import torch
from infinitetalk.pipeline.commands.main import main

ROOT = Path(infinitetalk.__file__).resolve().parent
EARLIER = Path(__file__).resolve().parent.parent / "data" / "earlier"
SAID = json.loads((EARLIER / "commands.json").read_text(encoding="utf-8"))
PRINTED = json.loads((EARLIER / "printed.json").read_text(encoding="utf-8"))
UNFINISHED = json.loads((EARLIER / "unfinished.json").read_text(encoding="utf-8"))
SOURCES = {file.stem: file for file in sorted((*EARLIER.glob("graphs/*.json"), *EARLIER.glob("*.mp4")))}
SOURCES.pop("unfinished.partial")
FORMS = {
    ".sh": ("--shell", "sh"),
    ".ps1": ("--shell", "powershell"),
    ".full.sh": ("--shell", "sh", "--full"),
    ".upstream.sh": ("--shell", "sh", "--target", "upstream"),
    ".upstream.ps1": ("--shell", "powershell", "--target", "upstream"),
}
FILES = ("image", "video", "audio", "ckpt_dir", "infinitetalk_dir", "wav2vec_dir", "dit_path", "text_encoder")
FILES += ("clip_vision", "vae", "tokenizer", "lora_dir", "quant_dir")
PROGRAM = "python generate_infinitetalk.py"
QUOTES = "'\u2018\u2019\u201a\u201b"  # PowerShell's


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFINITETALK_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture
def call(capsys):
    """Runs the command line: its exit code, stdout and stderr."""

    def run(*words):
        code = main([*words])
        return code, *capsys.readouterr()

    return run


def here(text):
    """A saved text with this machine's folders."""
    return text.replace("<CLONE>", ROOT.as_posix()).replace("<EARLIER>", EARLIER.as_posix())


def saved(name):
    return here((EARLIER / "commands" / name).read_text(encoding="utf-8"))


def words_of(text, ending):
    """The words of a command for sh or PowerShell, and the JSON that it writes before, by the file's name."""
    text = text.replace(str(Path(infinitetalk.__file__).parent), str(ROOT))  # behind a link
    command = text[text.index(PROGRAM) :]
    if ending.endswith(".sh"):
        written = re.findall(r"^cat > (\S.*) <<'EOF'\n(.*?)\nEOF$", text, re.DOTALL | re.MULTILINE)
        files = {shlex.split(name)[0]: content for name, content in written}
        words = shlex.split(command.replace(" \\\n    ", " "))
    else:
        literal = f"'((?:[^{QUOTES}]|[{QUOTES}]{{2}})*)'"
        written = re.findall(rf"^Set-Content .*-LiteralPath {literal} -Value {literal}$", text, re.MULTILINE)
        files = {_undoubled(name): _undoubled(content) for name, content in written}
        words = [_undoubled(quoted) or bare for quoted, bare in re.findall(rf"{literal}|([^\s`]+)", command)]
    return words[len(PROGRAM.split()) :], {name: json.loads(content) for name, content in files.items()}


def _undoubled(text):
    return re.sub(f"([{QUOTES}])\\1", r"\1", text)


def values(words):
    """Flag -> its values."""
    found = {}
    for word in words:
        if word.startswith("--"):
            flag, *given = word.split("=", 1)
            current = found.setdefault(flag, [])
            current += given
        else:
            current.append(word)
    return {flag: [value.replace(os.sep, "/") for value in given] for flag, given in found.items()}


def assert_sentence(error):
    """One sentence, or a line for each file that is missing, which is not about the words of the command."""
    sentence = error[error.index("error: ") :]
    assert "\nerror: " not in error and "Traceback" not in error
    assert sentence.count("\n") == 1 or "things are missing:" in sentence.splitlines()[0]
    for complaint in ("is not a flag", "stands where", "invalid choice", " expected", "not available", "unknown"):
        assert complaint not in sentence


# Graphs and finished videos


def test_the_corpus_is_whole():
    assert len(SOURCES) >= 20 and {f"{name}{ending}" for name in SOURCES for ending in FORMS} == SAID.keys()
    assert sum(said["code"] == 0 for said in SAID.values()) == len(list(EARLIER.glob("commands/*")))


# What was exported otherwise: these graphs resize their picture to this size, and a bucket was named instead; a preset
# ruled the seed, which is the widget's now; and the sampler of ComfyUI's own graph is that of ComfyUI.
CORRECTED = dict.fromkeys(
    ("kijai_image", "kijai_image_api", "kijai_nested", "kijai_nested_api"), {"--size": ["480x832"]}
)
CORRECTED |= {"preset_for_both_queued": {"--base_seed": ["1"]}}
CORRECTED |= {"native_two_windows_api": {"--sample_solver": ["comfy:euler"]}}


@pytest.mark.parametrize("name", SOURCES)
def test_a_saved_graph_or_video_gives_the_flags_of_its_saved_command(call, name, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the files are that the finished video names
    for ending, form in FORMS.items():
        code, out, error = call("export", str(SOURCES[name]), *form)
        if SAID[name + ending]["code"] != 0:  # was refused; may be understood now
            assert code in (0, 2) and (code == 0 or error.startswith("error: "))
            continue
        assert code == 0, error
        (old, old_files), (new, new_files) = words_of(saved(name + ending), ending), words_of(out, ending)
        old, new = values(old), values(new)
        for flag, value in CORRECTED.get(name, {}).items():
            if flag in old:  # upstream's command has no such size
                assert new[flag] == value
                old[flag] = value
        assert {flag: new.get(flag) for flag in old} == old
        assert old_files == {file: {entry: new_files[file][entry] for entry in old_files[file]} for file in old_files}


def test_what_a_video_tells_is_what_it_told(call):
    for name, words in (("info", ()), ("info_full", ("--full",)), ("info_comfyui", ())):
        video = "finished_in_comfyui.mp4" if name == "info_comfyui" else "finished.mp4"
        code, out, error = call("info", str(EARLIER / video), *words)
        assert code == 0, error
        assert set(PRINTED[name]["out"]) <= set(out.splitlines())


# Commands


def dry_run(call, words, texts=()):
    """A dry run of a saved command: it is planned where all files are there, else refused for one that is not."""
    for name, content in dict(texts).items():
        Path(name).write_text(json.dumps(content), encoding="utf-8")
    given = values(words)
    entries = [text for content in dict(texts).values() for text in (content.get("cond_video"),) if text]
    entries += [text for content in dict(texts).values() for text in content.get("cond_audio", {}).values()]
    named = [Path(value) for name in FILES for value in given.get(f"--{name}", ()) if value != "none"]
    missing = [path for path in (*named, *map(Path, entries)) if not path.exists()]
    code, out, error = call(*words, "--device", "cpu", "--dry_run")
    if not missing:
        assert code == 0, error
        assert "windows" in out
    else:
        assert code == 2
        assert_sentence(error)
        assert any(path.name in error for path in missing)
    return code


COMMANDS = sorted(path.name for path in EARLIER.glob("commands/*.sh"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_saved_command_is_understood(call, name):
    dry_run(call, *words_of(saved(name), name))


def test_a_saved_command_whose_files_are_there_is_planned(call):
    assert dry_run(call, *words_of(saved("infinitetalk_demo.sh"), ".sh")) == 0


@pytest.mark.parametrize("path", sorted(EARLIER.glob("run_configs/0*.sh")), ids=lambda path: path.stem)
def test_a_saved_script_is_understood(call, path):
    command = path.read_text(encoding="utf-8").split('exec "$PYTHON" generate_infinitetalk.py')[1]
    words = [word for word in shlex.split(command.replace("\\\n", " ")) if word != "$@"]
    dry_run(call, [word.replace("assets/", f"{ROOT.as_posix()}/assets/") for word in words])
    assert (ROOT / "run_configs" / path.name).is_file()


def facts(lines):
    """Flags, numbers and names of files in a text, however it is worded; sizes that were rounded away are none."""
    lines = [re.sub(r"\b0\.0\d GB", "", line) for line in lines]
    return set(re.findall(r"--\w+|\d+(?:\.\d+)?|[\w-]+\.(?:safetensors|pth|mp4|png|wav)", "\n".join(lines)))


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_command_printed_is_still_true(call, name):
    told = PRINTED[name]
    code, out, error = call(*map(here, told["argv"]))
    assert code == told["code"], error
    if name != "version":
        assert facts(map(here, told["out"])) - facts(out.splitlines()) == set()
    if code:
        assert facts(told["err"]) <= facts(error.splitlines())


# An unfinished video


def test_an_unfinished_video_is_gone_on_with_or_refused_with_advice(call, tmp_path):
    for file in EARLIER.glob("unfinished.partial.*"):
        shutil.copy(file, tmp_path)
    begun = decoded(EARLIER / "unfinished.partial.mp4")
    assert digest(begun) == tuple(UNFINISHED["first_window"])
    video = tmp_path / "unfinished.mp4"
    code, out, error = call(*map(here, UNFINISHED["flags"]), "--save_file", str(video), "--resume")
    if code == 0:
        assert out.strip() == str(video)
        frames = decoded(video)
        assert len(frames) == UNFINISHED["frames"] and digest(frames[: len(begun)]) == digest(begun)
        if torch.backends.cpu.get_cpu_capability() == UNFINISHED["cpu"]:
            assert digest(frames) == (UNFINISHED["frames"], UNFINISHED["sha256"])
    else:
        assert code == 2 and not video.exists()
        sentence = error.splitlines()[-1]
        assert sentence.startswith("error: --resume: ") and "--overwrite" in sentence
        assert decoded(tmp_path / "unfinished.partial.mp4") == begun


def decoded(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


def digest(frames):
    return len(frames), hashlib.sha256(b"".join(frames)).hexdigest()
