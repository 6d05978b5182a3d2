"""Everything that a graph's command would lack is told at once, each with its node; the rest is read to its end."""

import json

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.graph import read_graph
from infinitetalk.pipeline.graphs.notes import MOST_REFUSALS, Notes
from infinitetalk.pipeline.graphs.places import FolderFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.support.kijai_graphs import API, UI, changed, export, is_told, of
from infinitetalk.tests.support.places import GRAPHS, QUEUED

NATIVE = GRAPHS / "native_two_windows_api.json"


@pytest.fixture
def api():
    return json.loads(API.read_text(encoding="utf-8"))


def refused(data):
    with pytest.raises(InputError) as error:
        export(data)
    assert is_told(error.value)
    return str(error.value).split("\n")


def test_a_graph_that_is_refused_for_its_sampler_is_read_to_the_end(api):
    changed(api, "WanVideoSampler", scheduler="er_sde", riflex_freq_index=2)
    changed(api, "WanVideoTextEncode", positive_prompt="a | b")
    changed(api, "MultiTalkModelLoader", model="multitalk.safetensors")
    changed(api, "WanVideoClipVisionEncode", tiles=2)
    changed(api, "MultiTalkWav2VecEmbeds", audio_scale="loud", fps=["199", 0])
    changed(api, "LoadImage", image="")
    first, *others = refused(api)
    assert first == "graph.json: 8 things in it cannot be part of a command:"
    for line, part in zip(
        others,
        (
            "- node 128 (WanVideoSampler): riflex_freq_index is 2, which has no equivalent here; set it to 0.",
            "- node 128 (WanVideoSampler): scheduler er_sde has no equivalent here; choose one of",
            "- node 135 (WanVideoTextEncode): has several prompts",
            "- node 120 (MultiTalkModelLoader): multitalk.safetensors are MultiTalk's weights by their name",
            "- node 133 (LoadImage): image is empty; choose a name in the graph.",
            "- node 193 (WanVideoClipVisionEncode): tiles has no equivalent here; set it to 0.",
            "- node 205 (MultiTalkWav2VecEmbeds): fps is computed by node 199",
            "- node 205 (MultiTalkWav2VecEmbeds): audio_scale is 'loud', where a number was expected.",
        ),
        strict=True,
    ):
        assert line.startswith(part)


def test_one_refusal_is_one_sentence(api):
    (sentence,) = refused(changed(api, "WanVideoSampler", scheduler="er_sde"))
    assert sentence.startswith("graph.json: node 128 (WanVideoSampler): scheduler er_sde has no equivalent here")


def test_windows_of_comfyuis_own_nodes():
    data = json.loads(NATIVE.read_text(encoding="utf-8"))
    data["21"]["inputs"] |= {"sampler_name": "dpm_fast", "scheduler": "bong_tangent"}
    data["30"]["inputs"] |= {"audio_scale": "loud", "width": 832}
    data["5"]["inputs"]["text"] = "a (b:1.2)"
    lines = refused(data)
    for part in (
        "- node 30 (WanInfiniteTalkToVideo): audio_scale is 'loud', where a number",
        "- node 30 (WanInfiniteTalkToVideo): differs from node 20 (WanInfiniteTalkToVideo) in size (832x640 and ",
        "- node 21 (KSampler): sampler dpm_fast has no equivalent",
        "- node 21 (KSampler): scheduler bong_tangent has no equivalent",
        "- node 5 (CLIPTextEncode): its prompt has weights",
    ):
        assert any(line.startswith(part) for line in lines), part


def test_the_shell_shows_all_of_them(api, tmp_path, capsys):
    changed(api, "WanVideoSampler", scheduler="er_sde", riflex_freq_index=3)
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(api), encoding="utf-8")
    assert main(["export", str(path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: export: {path}: 2 things in it cannot be part of a command:\n- node 128")
    assert "riflex_freq_index is 3" in shown and "scheduler er_sde" in shown


def test_what_a_program_fills_in_is_left_open(api):
    changed(api, "LoadAudio", audio="{{AUDIO}}")
    changed(api, "WanVideoTextEncode", positive_prompt="{{ PROMPT }}")
    changed(api, "ImageResizeKJv2", width="{{WIDTH}}", height="{{HEIGHT}}")
    changed(api, "MultiTalkWav2VecEmbeds", audio_scale="{{STRENGTH}}")
    changed(api, "VHS_VideoCombine", trim_to_audio="{{TRIM}}")
    found = export(api)
    settings = found.settings
    assert (str(settings.audio), settings.prompt, settings.resize) == ("{{AUDIO}}", "{{ PROMPT }}", ("lanczos,crop",))
    assert (settings.size, settings.speech_strength) == (Settings.size, 1)
    assert found.take.near[0] == "what a program fills in before it queues the graph"
    said = "\n".join(found.notes)
    for word in ("--audio is {{AUDIO}}", "width is {{WIDTH}}", "scale is {{STRENGTH}}", "trim_to_audio is {{TRIM}}"):
        assert said.count(word) == 1


def test_a_picture_inside_the_graph_is_no_file(api):
    of(api, "LoadImage").update(class_type="ETN_LoadImageBase64", inputs={"image": "iVBORw0KGgo="})
    (sentence,) = refused(api)
    assert "(ETN_LoadImageBase64): holds its picture in itself; save it as a file" in sentence
    of(api, "ETN_LoadImageBase64")["inputs"]["image"] = "{{PICTURE}}"
    assert str(export(api).settings.image) == "{{PICTURE}}"


def test_missing_files_come_with_their_nodes(api, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "input").mkdir()
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(api), encoding="utf-8")

    with pytest.raises(InputError) as error:
        settings_of(read_graph(path), FolderFiles(tmp_path))
    lines = str(error.value).split("\n")
    assert len(lines) == 10 and all(line.startswith("- node ") for line in lines[1:])


def test_a_widget_that_a_later_version_added_may_be_saved_as_empty():
    data = json.loads(UI.read_text(encoding="utf-8"))
    values = of(data, "WanVideoSampler")["widgets_values"]
    values[11:] = [""]  # start_step, of a page that knew it and a node that did not
    found = export(data).settings
    assert found.sample_steps == 4 and found.base_seed == 1


def test_no_more_are_listed_than_anybody_reads():
    notes = Notes(refused=[f"graph: node {number}." for number in range(MOST_REFUSALS + 3)])
    with pytest.raises(InputError) as error:
        notes.check("graph")
    lines = str(error.value).split("\n")
    assert len(lines) == MOST_REFUSALS + 2 and lines[-1] == "- and 3 more."


def test_our_own_nodes():
    data = json.loads((QUEUED / "infinitetalk_single_image.json").read_text(encoding="utf-8"))
    of(data, "InfiniteTalkSampler")["inputs"] |= {"sample_steps": "x", "motion_frame": "y"}
    of(data, "LoadAudio")["inputs"]["audio"] = ""
    first, *others = refused(data)
    assert len(others) == 3 and all(line.startswith("- node ") for line in others)
