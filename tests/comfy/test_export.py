"""The export of a running ComfyUI: the node, the menu's address, and a video that it has made."""

import json
import shutil
import urllib.error
import urllib.request

import av
import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.tests.support.comfy_graphs import PACK, node
from infinitetalk.tests.support.places import QUEUED, WORKFLOWS
from infinitetalk.tests.support.shell import SCRIPT


def exporting(made, **widgets):
    values = {"shell": "sh", "full": False, "save_file": "", **widgets}
    return {**made, "export": node("InfiniteTalkExport", **values)}


def asked(host, prompt, **more):
    return json.loads(host.post("/infinitetalk/export", {"prompt": prompt, **more}))


def test_the_menus_address_tells_the_command_and_its_file(host, graph):
    answer = asked(host, graph(sample_steps=3), shell="PowerShell")
    assert answer["file"] == "infinitetalk_command.ps1" and answer["notes"] == []
    assert answer["command"].startswith("& '") and "--sample_steps '3'" in answer["command"]
    answer = asked(host, graph(use_teacache=True, sample_steps=4), shell="sh")
    assert answer["file"] == "infinitetalk_command.sh" and "teacache" in answer["notes"][0]


def test_the_menu_says_where_the_seed_is_that_of_the_next_run(host):
    """The page sends what it would save beside what it would queue."""
    workflow = json.loads((WORKFLOWS / "infinitetalk_demo.json").read_text(encoding="utf-8"))
    prompt = json.loads((QUEUED / "infinitetalk_demo.json").read_text(encoding="utf-8"))
    assert asked(host, prompt, workflow=workflow)["notes"] == []
    (sampler,) = (each for each in workflow["nodes"] if each["type"] == "InfiniteTalkSampler")
    sampler["widgets_values"][sampler["widgets_values"].index("fixed")] = "randomize"
    (note,) = asked(host, prompt, workflow=workflow)["notes"]
    assert "seed" in note and "randomize" in note
    assert asked(host, prompt, workflow={"version": 99})["notes"] == []


def test_bad_graphs_are_answered_with_a_sentence(host, graph):
    two = graph()
    two["other"] = two["sampler"]
    blurred = graph({"blur": node("ImageBlur", image=["image", 0], blur_radius=1, sigma=1.0)})
    blurred["sampler"]["inputs"]["image"] = ["blur", 0]
    lacking = graph()
    del lacking["sampler"]["inputs"]["model"]
    for prompt, words in (
        ({}, "has no sampler"),
        (two, "link the video of one to the export node"),
        (blurred, "ImageBlur"),
        (lacking, "nothing is linked to its input model"),
        (graph(vae="gone.safetensors"), "'gone.safetensors' is not in models/vae"),
    ):
        answer = asked(host, prompt)
        assert set(answer) == {"error"} and words in answer["error"], answer


@pytest.mark.parametrize(
    ("address", "body", "headers"),
    [
        ("export", b"[]", {"Content-Type": "application/json"}),
        ("export", b"{", {"Content-Type": "application/json"}),
        ("export", b'{"prompt": {}, "shell": "fish"}', {"Content-Type": "application/json"}),
        ("export", b'{"prompt": {}}', {"Content-Type": "text/plain"}),
        ("export", b'{"prompt": {}}', {"Content-Type": "application/json", "Origin": "http://elsewhere.example"}),
        ("presets", None, {"Origin": "http://elsewhere.example"}),
    ],
)
def test_wrong_requests_are_answered_with_a_sentence_and_no_path(host, address, body, headers):
    request = urllib.request.Request(f"{host.url}/infinitetalk/{address}", body, headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    answer = refused.value.read().decode()
    # ComfyUI itself refuses other origins before it asks us, where it knows that it serves this machine alone
    assert refused.value.code == 400 or "Origin" in headers and refused.value.code == 403
    assert str(host.base) not in answer
    if refused.value.code == 400:
        assert set(json.loads(answer)) == {"error"}


def test_the_node_saves_and_chooses_by_its_link(host, graph):
    made = graph(size="64x64")
    made["other"] = json.loads(json.dumps(made["sampler"]))
    made["other"]["inputs"] |= {"crf": 30, "filename_prefix": "other"}
    made = exporting(made, save_file="my command.ps1", shell="PowerShell", full=True, video=["other", 0])
    entry = host.run(made)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (text,) = entry["outputs"]["export"]["text"]
    assert "--crf '30'" in text and "--save_file other" in text and "--motion_frame '5'" in text
    (saved,) = (host.base / "output").glob("my command*.ps1")
    assert saved.read_text(encoding="utf-8-sig").strip() == text and saved.read_bytes()[:3] == b"\xef\xbb\xbf"


def test_what_cannot_be_exported_is_the_nodes_text_and_ends_no_run(host, run, graph):
    made = exporting(graph(size="64x64", base_seed=21))
    made["demo"] = node("InfiniteTalkDemo")
    made["cut"] = node("TrimAudioDuration", audio=["demo", 1], start_index=0.0, duration=0.5)
    made["speech"]["inputs"]["audio"] = ["cut", 0]
    made["seen"] = node("PreviewAny", source=["export", 0])
    entry, _ = run(made)
    assert entry["status"]["status_str"] == "success" and entry["outputs"]["sampler"]["images"]
    (text,) = entry["outputs"]["export"]["text"]
    assert text.startswith("# No command: ") and "TrimAudioDuration" in text and "\n" not in text
    assert entry["outputs"]["seen"]["text"] == [text]


def test_the_samplers_mistakes_are_the_samplers(host, run, graph):
    made = exporting(graph(size="50x50", base_seed=22), save_file="\\..\\..\\outside")
    entry, seen = run(made)
    (error,) = (message.data for message in seen if message.type == "execution_error")
    assert error["node_id"] == "sampler"
    ours = [message.data["output"]["text"] for message in seen if message.type == "executed"]
    assert not ours or ours[0][0].startswith("# No command: ")
    assert entry["status"]["status_str"] == "error"


def frames(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0)]


@pytest.mark.skipif(shutil.which("sh") is None, reason="no sh to run the command with")
def test_a_video_that_comfyui_made_is_made_again(host, graph, video_of, commands, capsys, tmp_path):
    """``infinitetalk export video.mp4 --comfyui DIR``: settings out of the file, picture and sound out of its graph."""
    made = video_of(host.run(graph(base_seed=99, prompt='It\'s "so"\n你好')))
    capsys.readouterr()
    assert main(["export", str(made), "--comfyui", str(host.base)]) == 0
    out, err = capsys.readouterr()
    assert "--base_seed 99" in out and err == ""
    commands.run(host.base / "custom_nodes" / PACK / SCRIPT, f"{out.rstrip()} --save_file again", tmp_path)
    assert frames(tmp_path / "again.mp4") == frames(made) != []


@pytest.mark.skipif(shutil.which("sh") is None, reason="no sh")
def test_the_shell_exports_what_comfyui_exports(host, graph, base, capsys, tmp_path):
    """One implementation: ``infinitetalk export graph.json --comfyui DIR`` differs in the program alone.

    And in the threads of a CPU, which only the running one knows.
    """
    prompt = graph(sample_steps=3, prompt="你好 'it'")
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    capsys.readouterr()
    assert main(["export", str(path), "--comfyui", str(base), "--shell", "sh"]) == 0
    ours, theirs = capsys.readouterr().out.strip(), asked(host, prompt, shell="sh")["command"]
    theirs = theirs.split("generate_infinitetalk.py", 1)[1].removeprefix("'")
    assert "--threads 1 \\\n    " in theirs
    assert ours.split("generate_infinitetalk.py", 1)[1] == theirs.replace("--threads 1 \\\n    ", "")
