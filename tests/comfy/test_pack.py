"""What the server makes of the pack: nodes, files that it serves, texts, bundled workflows, requirements."""

import json
import subprocess
import urllib.parse

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.graphs.widgets import BY_LINK
from infinitetalk.pipeline.settings.presets import load_preset
from infinitetalk.scripts import node_texts
from infinitetalk.scripts.core_workflow import NAME as CORE
from infinitetalk.scripts.save_workflows import URLS, WORKFLOWS
from infinitetalk.tests.support import comfy_models, local_hub
from infinitetalk.tests.support.comfy_graphs import PACK, QUANTISED, SIZES
from infinitetalk.tests.support.comfy_host import check_import
from infinitetalk.tests.support.places import DATA, QUEUED, ROOT

PINNED = DATA / "comfy_nodes.json"
NODES = ("Preset", "ModelLoader", "LoRA", "Voice", "AudioEncoder", "Sampler", "Demo", "Export")
ADDRESS = urllib.parse.quote(PACK)


@pytest.fixture(scope="module")
def info(host):
    everything = host.get_json("/object_info")
    return {name: node for name, node in everything.items() if name.startswith("InfiniteTalk")}


def test_the_pack_is_imported_and_lists_all_nodes(host, info):
    check_import(host.log.read_text(errors="replace"), PACK)
    newer = {"InfiniteTalkCoreSampler"} if "WanInfiniteTalkToVideo" in host.get_json("/object_info") else set()
    assert set(info) == {f"InfiniteTalk{name}" for name in NODES} | newer


HOST = """
import asyncio, gc, importlib.util, sys
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import utils.install_util, comfy.latent_formats, comfy_api.latest, server, torch
from aiohttp import web

class Running:
    routes = web.RouteTableDef()

server.PromptServer.instance = Running()
def models():
    return sum(isinstance(each, torch.nn.Module) for each in gc.get_objects())

before, modules = models(), set(sys.modules)
spec = importlib.util.spec_from_file_location("a pack", PACK + "/__init__.py")
pack = sys.modules["a pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
"""
IMPORT = """
extension = asyncio.run(pack.comfy_entrypoint())
names = [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]
assert len(names) == 8 and models() == before
new = {name.removeprefix("a pack.") for name in set(sys.modules) - modules}
heavy = {"transformers", "diffusers", "scipy", "triton", "torchaudio", "safetensors.torch", "soxr", "pyloudnorm"}
heavy |= {f"pipeline.{room}" for room in ("run.generator", "models", "sampling", "quantisation", "lora")}
assert not new & heavy, new & heavy
"""


BAR = """
import comfy.utils
host, events = (importlib.import_module(f"a pack.{name}") for name in ("nodes.comfy.host", "pipeline.run.progress"))
shown = []
comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: shown.append((value, total)))
progress = host.HostProgress(None, 2)
for event in (
    events.RunStarted(2, 29, 1.16), events.Step(0, 1, 2), events.Step(0, 2, 2),
    events.Step(1, 1, 2), events.WindowDone(0, 2, 0.68), events.Step(1, 2, 2), events.WindowDone(1, 2, 1.16),
):
    progress(event)
assert shown == [(value, 6) for value in (0, 1, 2, 4, 4, 5, 6)], shown
"""
CANCEL = """
import comfy.model_management
host, events = (importlib.import_module(f"a pack.{name}") for name in ("nodes.comfy.host", "pipeline.run.progress"))
progress = host.HostProgress(None, 2)
progress(events.Working())
comfy.model_management.interrupt_current_processing()
try:
    progress(events.Working())
except comfy.model_management.InterruptProcessingException:
    pass
else:
    raise AssertionError("a run would have gone on to the end of its step")
"""


HTML = """
sent = []
Running.client_id = "page"
Running.send_progress_text = lambda self, text, node, client: sent.append(text)
server.PromptServer.instance = host.PromptServer.instance = Running()
host.HostProgress("1", 2).say("<img src=x onerror=alert(1)>\\x1b & a 'b'")
assert sent == [r"&lt;img src=x onerror=alert(1)&gt;\\x1b &amp; a 'b'"], sent
"""


PARTS = {
    "import": IMPORT,
    "bar": BAR,
    "cancel": CANCEL,
    "html": HTML,
}  # the import is looked at before anything else is imported
ALL_PARTS = """
import json, traceback
ends = {}
for name, code in PARTS.items():
    try:
        exec(code, globals())
        ends[name] = "passed"
    except Exception:
        ends[name] = traceback.format_exc()
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def in_the_host(installed):
    """How each part ends where the pack is imported, with no server running: one process, since it imports ComfyUI."""
    code = f"PACK, PARTS = {str(ROOT)!r}, {PARTS!r}\n{HOST}\n{ALL_PARTS}"
    done = subprocess.run(
        [installed.python, "-c", code], cwd=installed.source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_import_makes_no_model_and_imports_no_engine(in_the_host):
    assert in_the_host["import"] == "passed"


def test_the_bar_does_not_go_back_when_a_window_is_written_during_the_next(in_the_host):
    assert in_the_host["bar"] == "passed"


def test_cancelling_is_noticed_before_the_next_block(in_the_host):
    assert in_the_host["cancel"] == "passed"


def test_names_of_files_are_no_html_under_a_node(in_the_host):
    assert in_the_host["html"] == "passed"


def test_ids_and_orders_of_saved_workflows_are_for_ever(info):
    """Widgets are stored by position: what is here may only be added to, at the end of a node's widgets."""

    def kinds(node):
        groups = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        return [[name, kind if isinstance(kind, str) else "COMBO"] for name, (kind, _) in groups.items()]

    found = {name: {"inputs": kinds(node), "outputs": node["output"]} for name, node in sorted(info.items())}
    pinned = json.loads(PINNED.read_text())
    assert found == {name: kinds for name, kinds in pinned.items() if name in info or name not in node_texts.NEWER}


def test_everything_has_a_tooltip(info):
    for name, node in info.items():
        groups = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        assert all(options.get("tooltip") for _, options in groups.values()), name
        assert all(node["output_tooltips"]) and node["description"], name


def test_texts_are_up_to_date_in_both_languages(host, info):
    made = node_texts.files(info)
    stale = [path for path, content in made.items() if not same_text(path, content)]
    assert stale == [], "run python -m infinitetalk.scripts.node_texts"
    served = host.get_json("/i18n")
    for language in ("en", "zh"):
        assert set(served[language]["nodeDefs"]) >= set(info)
        assert "InfiniteTalk_ExportCommand" in served[language]["commands"]


def same_text(path, content):
    """Lists of files and the default shell are this machine's; the texts are not."""
    return (ROOT / path).read_text(encoding="utf-8") == content


def test_help_pages_and_scripts_are_served(host, info):
    for name in info:
        for page in (f"docs/{name}.md", f"docs/{name}/zh.md"):
            assert host.get(f"/extensions/{ADDRESS}/{page}") == (ROOT / "web" / page).read_bytes()
    scripts = [path for path in host.get_json("/extensions") if PACK in urllib.parse.unquote(path)]
    assert len(scripts) == 4
    for path in (*scripts, f"/extensions/{ADDRESS}/help.html"):
        assert host.get(path)


def test_templates_and_thumbnails_are_served(host):
    assert set(host.get_json("/workflow_templates")[PACK]) == {*WORKFLOWS, CORE}
    for name in (*WORKFLOWS, CORE):
        for ending in (".json", ".jpg"):
            served = host.get(f"/api/workflow_templates/{ADDRESS}/{name}{ending}")
            assert served == (ROOT / "workflows" / f"{name}{ending}").read_bytes()


def test_nothing_outside_the_pack_is_served(host):
    with pytest.raises(OSError, match="40"):
        host.get(f"/extensions/{ADDRESS}/..%2F..%2Fpyproject.toml")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_bundled_workflows_run(host, base, tmp_path_factory, name):
    """Small checkpoints under the names that users download; the preset's values, at a size for a CPU."""
    comfy_models.write(base / "models", tmp_path_factory.mktemp("made"), SIZES)
    person = base / "input" / "person.mp4"
    if not person.exists():
        write_clip(person)
    graph = json.loads((QUEUED / f"{name}.json").read_text(encoding="utf-8"))
    (sampler,) = (node for node in graph.values() if node["class_type"] == "InfiniteTalkSampler")
    small = {"size": "64x64", "frame_num": 17, "max_frame_num": 29}
    sampler["inputs"] |= {**small, BY_LINK: " ".join(small)}  # a preset rules the rest
    entry = host.run(graph)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[-3000:]
    videos = [saved["filename"] for output in entry["outputs"].values() for saved in output.get("images", [])]
    assert len(videos) == 1


def write_clip(path):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(20):
            frame = av.VideoFrame(96, 64, "rgb24")
            frame.planes[0].update(bytes((index * 12 + x // 3) % 256 for x in range(frame.planes[0].buffer_size)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_downloads_are_named_for_every_file_of_the_workflows():
    for name in WORKFLOWS:
        text = (ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8")
        workflow = json.loads(text)
        models = [model for node in workflow["nodes"] for model in node["properties"].get("models", [])]
        assert all(
            set(model) == {"name", "url", "directory"} and model["url"].endswith(model["name"]) for model in models
        )
        chosen = {
            value.rpartition("/")[2]
            for node in workflow["nodes"]
            if node["type"].startswith("InfiniteTalk")
            for value in node.get("widgets_values", [])
            if isinstance(value, str) and value.endswith(".safetensors")
        }
        assert chosen <= {model["name"] for model in models}
        assert all(URLS[model["name"]][0] == model["directory"] for model in models)
        assert "/home/" not in text and "/tmp/" not in text and "C:\\" not in text
    used = {
        node["type"]
        for name in WORKFLOWS
        for node in json.loads((ROOT / "workflows" / f"{name}.json").read_text())["nodes"]
    }
    assert {f"InfiniteTalk{name}" for name in NODES if name != "Voice"} <= used  # which speech without music needs not
    assert QUANTISED in URLS


def test_requirements_change_nothing_that_the_host_has(installed, tmp_path):
    """All lines at once, which is harder than one after another, as ComfyUI's manager installs them."""
    pip = [installed.python, "-m", "pip", "--disable-pip-version-check"]
    frozen = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    installed_lines = [line for line in frozen.splitlines() if "==" in line]
    held = tmp_path / "held.txt"
    held.write_text("\n".join(installed_lines) + "\n")
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    leaves = [line for line in requirements if line and not line.startswith("#")]
    names = [line.split(">")[0] for line in leaves]
    without = "\n".join(line for line in installed_lines if line.split("==")[0].lower() not in names)
    held.write_text(without + "\n")
    report = tmp_path / "report.json"
    command = [*pip, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
    done = subprocess.run([*command, "-c", str(held), *leaves], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    would = {each["metadata"]["name"].lower() for each in json.loads(report.read_text())["install"]}
    assert set(names) <= would


def test_downloads_go_where_the_nodes_list_them(host, base, tmp_path, monkeypatch):
    parts = load_preset("03_balanced").parts(comfy=True)
    for part in parts:
        for file in part.files:
            path = tmp_path / part.repo / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.path.encode() * 9)
    before = set((base / "models").rglob("*"))
    with local_hub.serving(tmp_path) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert main(["download", "--preset", "03_balanced", "--comfyui", str(base), "--trust_hub"]) == 0
    try:
        everything = host.get_json("/object_info")
        listed = {
            name: json.dumps(everything[f"InfiniteTalk{name}"]) for name in ("ModelLoader", "AudioEncoder", "LoRA")
        }
        for part in parts:
            owner = {"wav2vec_dir": "AudioEncoder", "lora_dir": "LoRA"}.get(part.flag, "ModelLoader")
            assert part.files[0].name in listed[owner], part.name
    finally:
        for path in set((base / "models").rglob("*")) - before:
            if path.is_file():
                path.unlink()  # folders stay: ComfyUI remembers them
