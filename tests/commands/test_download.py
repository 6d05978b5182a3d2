"""``infinitetalk download`` against a hub on this machine: what it fetches, where to, and each way that it can fail."""

import hashlib
import shutil
import types
from dataclasses import replace

import pytest
from infinitetalk.pipeline.checkpoints import lookup
from infinitetalk.pipeline.commands import download, fetching
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.facts import downloads
from infinitetalk.pipeline.facts.published import PARTS, File
from infinitetalk.pipeline.settings.presets import load_preset, preset_names
from infinitetalk.tests.support import local_hub
from infinitetalk.tests.support.places import WORKFLOWS

BIG = bytes(range(256)) * 4096  # a megabyte: more than one read of the network's library


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Every file of the table, small."""
    folder = tmp_path_factory.mktemp("hub")
    for part in PARTS.values():
        for file in part.files:
            path = folder / part.repo / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(BIG if part.name == "vae" else f"{part.repo} {file.path} ".encode() * 3)
    return folder


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """A hub, an empty working folder, and a table that knows the hub's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lookup, "_CLONE", tmp_path / "clone")
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for part in PARTS.values():
        files = tuple(_as_published(published / part.repo, file) for file in part.files)
        monkeypatch.setitem(PARTS, part.name, replace(part, files=files))
    with local_hub.serving(published) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def _as_published(folder, file):
    data = (folder / file.path).read_bytes()
    return File(file.path, len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
def refused(hub, tmp_path, capsys):
    """The one sentence of a refused call, which leaves no file under its own name."""

    def call(*words):
        assert main(["download", *words]) == 2
        out, err = capsys.readouterr()
        (sentence,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert out == "" and "Traceback" not in err and err.endswith(f"{sentence}\n")
        assert [path for path in tmp_path.rglob("*.pth") if fetching.PARTIAL not in path.parts] == []
        return sentence

    return call


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_gets_its_files_in_the_guides_layout(hub, tmp_path, capsys, name):
    assert main(["download", "--preset", name]) == 0
    preset = load_preset(name)
    for part in preset.parts():
        for file in part.files:
            path = tmp_path / "weights" / part.path_in(part.place, file)
            assert path.read_bytes() == (hub.folder / part.repo / file.path).read_bytes()
    s = preset.as_settings()
    assert all((tmp_path / "weights" / file).is_file() for file in (*(s.lora_dir or ()), *filter(None, [s.quant_dir])))
    assert f"--preset {name} --image" in capsys.readouterr().out
    assert not (tmp_path / "weights" / fetching.PARTIAL).exists()
    asked = len(hub.asked)
    assert main(["download", "--preset", name]) == 0 and len(hub.asked) == asked  # all is here
    assert "files are here" in capsys.readouterr().out


def test_only_what_is_missing_is_fetched_and_the_rest_is_told(hub, tmp_path, capsys):
    assert main(["download", "vae", "--to", "elsewhere"]) == 0
    assert main(["download", "base", "--to", "elsewhere", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "here   elsewhere/Wan2.1-I2V-14B-480P/Wan2.1_VAE.pth" in out and "about" in out
    hub.asked.clear()
    assert main(["download", "vae", "tokenizer", "--to", "elsewhere"]) == 0
    assert not any("VAE" in path for _, path, _ in hub.asked)
    capsys.readouterr()
    assert main(["download", "--list", "--to", "elsewhere"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert " yes " in rows["vae"] and " no " in rows["fp8"] and all(f"{name}," in out for name in preset_names())
    assert "kijai_fp8" not in rows


def test_the_text_encoder_that_is_here_serves_in_fp8_too(hub, tmp_path):
    assert main(["download", "text_encoder"]) == 0
    assert main(["download", "--preset", "01_ultra_fast"]) == 0
    assert not any("t5_fp8" in path for _, path, _ in hub.asked)
    assert main(["download", "t5_fp8"]) == 0 and any("t5_fp8" in path for _, path, _ in hub.asked)


def test_two_at_once(hub, refused, tmp_path):
    with fetching.alone(tmp_path / "weights"):
        assert "another download into weights is running" in refused("vae")
    assert main(["download", "vae"]) == 0 and not (tmp_path / "weights" / fetching.PARTIAL).exists()


def test_weights_of_the_clone_are_gone_on_with(hub, tmp_path):
    (tmp_path / "clone" / "weights").mkdir(parents=True)
    assert main(["download", "vae"]) == 0
    assert (tmp_path / "clone" / "weights" / "Wan2.1-I2V-14B-480P" / "Wan2.1_VAE.pth").is_file()


def test_comfyuis_folders_get_what_the_bundled_workflow_lists(hub, tmp_path, capsys):
    comfy = tmp_path / "ComfyUI"
    (comfy / "models" / "loras" / "wan").mkdir(parents=True)
    (comfy / "input").mkdir()
    (comfy / "input" / "speech.wav").touch()
    (comfy / "input" / "person.mp4").touch()
    assert main(["download", "fusionx", "--comfyui", str(comfy)]) == 0
    lora = PARTS["fusionx"].files[0].name
    shutil.move(comfy / "models" / "loras" / lora, comfy / "models" / "loras" / "wan" / lora)
    assert main(["download", "--preset", "03_balanced", "--comfyui", str(comfy)]) == 0
    assert not (comfy / "models" / "loras" / lora).exists()  # it is in a folder of its own there
    capsys.readouterr()
    graph = str(WORKFLOWS / "infinitetalk_single_video.json")
    assert main(["export", graph, "--comfyui", str(comfy)]) == 0
    command = capsys.readouterr().out
    assert all(part.files[0].name in command for part in load_preset("03_balanced").parts(comfy=True))


def test_an_interrupted_download_goes_on(hub, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # what is written at once
    hub.breaks["Wan2.1_VAE.pth"] = 300_000
    assert "run it again, it goes on" in refused("vae")
    hub.breaks.clear()
    hub.asked.clear()
    assert main(["download", "vae"]) == 0
    assert any(method == "GET" and first > 200_000 for method, _, first in hub.asked)
    assert (tmp_path / "weights" / "Wan2.1-I2V-14B-480P" / "Wan2.1_VAE.pth").read_bytes() == BIG


def test_wrong_bytes_are_deleted(hub, refused, tmp_path):
    hub.lies.add("Wan2.1_VAE.pth")
    sentence = refused("vae")
    assert "has the hash" in sentence and hashlib.sha256(BIG).hexdigest() in sentence
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= len(BIG)]
    hub.lies.clear()
    assert main(["download", "vae"]) == 0
    hub.lies.add("config.json")  # a small one, whose hash is git's
    monkey = replace(PARTS["wav2vec"], files=tuple(File(file.path) for file in PARTS["wav2vec"].files))
    PARTS["wav2vec"] = monkey
    assert main(["download", "wav2vec"]) == 2


def test_another_file_than_the_table_knows(hub, refused, monkeypatch):
    vae = PARTS["vae"]
    for file, word in ((File(vae.files[0].path, 5), "size"), (File(vae.files[0].path, None, "0" * 64), "SHA-256")):
        monkeypatch.setitem(PARTS, "vae", replace(vae, files=(file,)))
        sentence = refused("vae")
        assert f"its {word} is" in sentence and "--trust_hub" in sentence
    assert main(["download", "vae", "--trust_hub"]) == 0
    assert main(["download", "vae", "--trust_hub"]) == 0


@pytest.mark.parametrize(
    ("status", "word", "said"),
    [
        (403, "GatedRepo", "asks for its terms to be accepted"),
        (401, "GatedRepo", "asks for its terms to be accepted"),
        (401, "RepoNotFound", "log in with hf auth login"),
        (404, "EntryNotFound", "has no Wan2.1_VAE.pth any more"),
        (503, "", "answers 503"),
        (429, "", "answers 429"),
    ],
)
def test_what_the_hub_does_not_give(hub, refused, status, word, said):
    hub.status["Wan2.1_VAE.pth"] = (status, word)
    assert said in refused("vae")
    assert not any(method == "GET" for method, _, _ in hub.asked)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "nonsense", "ftp://hub"])
def test_no_hub(hub, refused, monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert address in refused("vae")


def test_no_room_and_no_right(hub, refused, tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=len(BIG) - 1)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
    assert "1.0 MB are to be fetched, but the disk has 1.0 MB free" in refused("vae")
    assert not any(method == "GET" for method, _, _ in hub.asked)
    usage.free = 10 * len(BIG)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert "cannot be written (No space left on device); make room" in refused("vae")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --preset NAME, or parts by name"),
        (["vea"], "'vea' is no part; did you mean vae?"),
        (["01_ultra"], "did you mean --preset 01_ultra_fast?"),
        (["zzz"], "--list has all"),
        (["--preset", "fast"], "--preset: 'fast' found"),
        (["--preset", "demo"], "its models come with the program"),
        (["vae", "--to", "file"], "--to: file is a file"),
        (["vae", "--to", "file/weights"], "--to: "),
        (["vae", "--to", "in_the_way"], "in_the_way/Wan2.1-I2V-14B-480P/Wan2.1_VAE.pth cannot be written"),
        (["vae", "--comfyui", "."], "has no folder models"),
        (["vae", "--comfyui", ".", "--to", "."], "both say where files go"),
        (["kijai_fp8"], "goes only into ComfyUI"),
        (["vae", "--everything"], "--everything is not a flag"),
        (["vae", "--modelscope"], "the Python package modelscope"),
    ],
)
def test_wrong_words(hub, refused, tmp_path, monkeypatch, words, said):
    (tmp_path / "file").touch()
    (tmp_path / "in_the_way").mkdir()
    (tmp_path / "in_the_way" / "Wan2.1-I2V-14B-480P").touch()
    monkeypatch.setattr(fetching, "_MODELSCOPE", fetching.Package("no_such_module", "modelscope", "1.20"))
    assert said in refused(*words)


def test_what_lies_in_the_way(hub, refused, tmp_path):
    place = tmp_path / "weights" / "Wan2.1-I2V-14B-480P" / "google" / "umt5-xxl" / "tokenizer.json"
    place.parent.mkdir(parents=True)
    place.write_text("half")
    assert "has 4 bytes, the published file" in refused("tokenizer")
    assert place.read_text() == "half"
    place.unlink()
    place.mkdir()
    assert "is a folder, where a file is to go" in refused("tokenizer")


def test_modelscope_fetches_by_its_own_package(hub, tmp_path, monkeypatch):
    def model_file_download(model_id, file_path, *, local_dir):
        source, target = hub.folder / model_id / file_path, tmp_path / local_dir / file_path
        target.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(source, target)

    monkeypatch.setattr(fetching, "require_modelscope", lambda: None)
    monkeypatch.setattr(download, "require_modelscope", lambda: None)
    package = types.ModuleType("modelscope.hub.file_download")
    package.model_file_download = model_file_download
    for name in ("modelscope", "modelscope.hub"):
        monkeypatch.setitem(__import__("sys").modules, name, types.ModuleType(name))
    monkeypatch.setitem(__import__("sys").modules, "modelscope.hub.file_download", package)
    assert main(["download", "vae", "--modelscope"]) == 0
    assert (tmp_path / "weights" / "Wan2.1-I2V-14B-480P" / "Wan2.1_VAE.pth").read_bytes() == BIG and hub.asked == []


def test_the_table_is_whole():
    assert all(len(file.sha256) == 64 for part in PARTS.values() for file in part.files if file.sha256 is not None)
    assert all(part.place is not None or part.comfy is not None for part in PARTS.values())
    for part in PARTS.values():
        known = [file.size for file in part.files if file.size is not None]
        assert sum(known) <= part.about * 1.01 and part.size == sum(known) or len(known) < len(part.files)
    with pytest.raises(KeyError):
        downloads.part_of("mine.safetensors")
