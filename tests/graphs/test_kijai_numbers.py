"""Numbers in graphs of ComfyUI-WanVideoWrapper that are listed, computed, or belong to a file of the pack."""

import json
import math
import shutil
from pathlib import Path

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.foreign.arithmetic import computed_number
from infinitetalk.pipeline.graphs.graph import Origin, graph_of
from infinitetalk.pipeline.graphs.places import FolderFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.tests.support.kijai_graphs import API, changed, export, is_told
from infinitetalk.tests.support.places import SPEECH

SCHEDULE = {"steps": 6, "cfg_scale_start": 5.0, "cfg_scale_end": 2.0, "start_percent": 0.0, "end_percent": 0.5}


@pytest.fixture
def api():
    return json.loads(API.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("StringToFloatList", {"string": "3, 1.5,1"}, (3.0, 1.5, 1.0)),
        ("CreateCFGScheduleFloatList", SCHEDULE | {"interpolation": "linear"}, (5.0, 4.0, 3.0, 2.0, 1.0, 1.0)),
        ("CreateCFGScheduleFloatList", SCHEDULE | {"interpolation": "ease_in"}, (5.0, 4.67, 3.67, 2.0, 1.0, 1.0)),
        (
            "CreateCFGScheduleFloatList",
            SCHEDULE | {"interpolation": "ease_out", "start_percent": 0.2, "end_percent": 1.0, "steps": 4},
            (1.0, 3.33, 2.33, 2.0),
        ),
    ],
)
def test_a_scale_for_each_step(api, kind, inputs, expected):
    api["list"] = {"class_type": kind, "inputs": inputs}
    changed(api, "WanVideoSampler", cfg=["list", 0])
    found = export(api)
    assert found.settings.text_guide_schedule == pytest.approx(expected)
    assert not found.take.other


@pytest.mark.parametrize("inputs", [{"string": "3; 4"}, {"string": ""}, {"string": 7}, {}])
def test_a_list_of_something_else(api, inputs):
    api["list"] = {"class_type": "StringToFloatList", "inputs": inputs}
    changed(api, "WanVideoSampler", cfg=["list", 0])
    with pytest.raises(InputError, match=r"node list \(StringToFloatList\)") as error:
        export(api)
    assert is_told(error.value)


def test_strengths(api):
    changed(api, "WanVideoClipVisionEncode", strength_1=1.2)
    changed(api, "MultiTalkWav2VecEmbeds", audio_scale=1.5)
    found = export(api)
    assert (found.settings.image_strength, found.settings.speech_strength) == (1.2, 1.5)
    assert not found.take.other


@pytest.fixture
def comfyui(tmp_path):
    """A ComfyUI with the guide's sound alone, and whatever models are asked for."""

    class Anything(FolderFiles):
        def model(self, setting, name):
            return Path("weights", name)

    (tmp_path / "models").mkdir()
    (tmp_path / "input").mkdir()
    for name in ("\u5973\u5b69.png", "\u5e7f\u544a\u89e3\u8bf4\u65c1\u767d\u5973\u58f0.mp3"):
        shutil.copy(SPEECH, tmp_path / "input" / name)
    return Anything(tmp_path)


def test_the_packs_silence_is_found(api, comfyui):
    silence = comfyui.base / "custom_nodes" / "wrapper" / "multitalk" / "encoded_silence.safetensors"
    near = "the sound of silence behind the end of the speech"
    before = settings_of(graph_of(api), comfyui)
    assert before.settings.silence is None and near in before.take.near
    silence.parent.mkdir(parents=True)
    silence.touch()
    after = settings_of(graph_of(api), comfyui)
    assert after.settings.silence == silence and after.take.verdict == "the same"


@pytest.mark.parametrize(
    ("expression", "frames"),
    [("a*b+25", None), ("floor(a) * b + b", None), ("max(a*b, 30) + 25", None), ("min(a * b, 12)", 12), ("10", 10)],
)
def test_frames_that_small_nodes_compute_from_the_sounds_length(api, comfyui, expression, frames):
    changed(api, "SimpleMath+", value=expression)
    assert settings_of(graph_of(api), comfyui).settings.max_frame_num == frames


def test_without_the_sound_a_cut_is_said(api):
    assert export(api).settings.max_frame_num is None
    assert not any("length" in reason for reason in export(api).take.near)
    changed(api, "SimpleMath+", value="min(a*b, 100)")
    found = export(api)
    assert found.settings.max_frame_num is None and "its length, which the graph computes" in found.take.near


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "expected"),
    [
        ("SimpleMath+", {"value": "a / b", "a": 7, "b": 2}, 0, 4),
        ("SimpleMath+", {"value": "a / b", "a": 7, "b": 2}, 1, 3.5),
        ("MathExpression|pysssss", {"expression": "a / b", "a": 7, "b": 2}, 0, 3),
        ("SimpleCalculatorKJ", {"expression": "ceil(a / b)", "a": 7, "b": 2}, 1, 4),
        ("easy mathInt", {"a": 7, "b": 2, "operation": "divide"}, 0, 3),
        ("ToInt", {"any": 2.5, "round_method": "ceil"}, 0, 3),
        ("SimpleMath+", {"value": "a / 0", "a": 7}, 0, None),
        ("SimpleMath+", {"value": "a ** 9 ** 9", "a": 7}, 0, None),
        ("SimpleMath+", {"value": "__import__('os').system('x')"}, 0, None),
        ("SimpleMath+", {"value": "(" * 150 + "1" + ")" * 150}, 0, None),
        ("SimpleMath+", {"value": "1e308 * 10"}, 0, None),
        ("SimpleMath+", {"value": "min()"}, 0, None),
        ("SimpleMath+", {"value": "a"}, 0, None),
        ("SimpleMath+", {"value": "1"}, 7, None),
        ("ToInt", {"any": "7"}, 0, None),
        ("ToInt", {"any": 7, "round_method": "away"}, 0, None),
        ("easy mathInt", {"a": 7, "b": 2, "operation": ""}, 0, None),
        ("KSampler", {}, 0, None),
    ],
)
def test_arithmetic(kind, inputs, output, expected):
    graph = graph_of({"1": {"class_type": kind, "inputs": inputs}})
    found = computed_number(graph, Origin("1", output), lambda node, slot: math.nan)
    assert found == expected and type(found) is type(expected)
