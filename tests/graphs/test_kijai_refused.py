"""What in a graph of ComfyUI-WanVideoWrapper would make another video is refused by name."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infinitetalk.pipeline.errors import InputError
from infinitetalk.tests.support.kijai_graphs import API, UI, changed, export, is_told


@pytest.fixture
def api():
    return json.loads(API.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "inputs", "sentence"),
    [
        (
            "WanVideoSampler",
            {"scheduler": "er_sde"},
            r"128 .*: scheduler er_sde has no equivalent here; choose one",
        ),
        ("WanVideoSampler", {"start_step": 4}, "--sample_start_step: 4 found, fewer than --sample_steps"),
        ("WanVideoSampler", {"start_step": 1, "denoise_strength": 0.5}, "both say where it begins"),
        ("WanVideoSampler", {"riflex_freq_index": 6}, "riflex_freq_index is 6"),
        ("WanVideoSampler", {"samples": ["129", 0]}, "samples .starting from the latents of another video. has no"),
        ("WanVideoSampler", {"cfg": [5.0, 1.0]}, r"cfg is \[5.0, 1.0\], where a number was expected"),
        (
            "WanVideoSampler",
            {"steps": ["199", 0]},
            r"128 .*: steps is computed by node 199 .SimpleMath\+., which is not run",
        ),
        (
            "WanVideoSampler",
            {"steps": 8},
            "--sample_steps: 8 found, but --sample_solver flowmatch_distill has exactly 4",
        ),
        ("WanVideoSampler", {"text_embeds": ["999", 0]}, "its input text_embeds comes from node 999, which is not in"),
        (
            "WanVideoSampler",
            {"text_embeds": ["129", 0]},
            "node 129 .*: this way of making the prompt has no equivalent",
        ),
        ("WanVideoSampler", {"image_embeds": ["129", 0]}, "node 129 .*: makes no InfiniteTalk video"),
        (
            "WanVideoSampler",
            {"multitalk_embeds": ["129", 0]},
            "node 129 .*: this kind of speech has no equivalent here",
        ),
        ("WanVideoSampler", {"model": ["129", 0]}, "node 129 .*: changes the model in a way that has no equivalent"),
        ("WanVideoModelLoader", {"extra_model": ["129", 0]}, "extra_model has no equivalent here; unlink it"),
        (
            "WanVideoModelLoader",
            {"multitalk_model": "none"},
            "has no InfiniteTalk weights; link a MultiTalkModelLoader",
        ),
        ("WanVideoModelLoader", {"block_swap_args": ["129", 0]}, "this way of swapping blocks has no equivalent"),
        ("WanVideoModelLoader", {"model": None}, "model is None, where a text was expected"),
        ("MultiTalkModelLoader", {"model": "multitalk.safetensors"}, "are MultiTalk's weights by their name"),
        ("WanVideoLoraSelect", {"blocks": ["129", 0]}, "a LoRA for some of the blocks only has no equivalent"),
        (
            "WanVideoSampler",
            {"text_embeds": ["nag", 0]},
            "node nag .WanVideoApplyNAG.: this way of making the prompt has no",
        ),
        ("WanVideoTextEncode", {"positive_prompt": "a|b"}, "has several prompts, for parts of the video"),
        ("WanVideoTextEncode", {"positive_prompt": "a (b:1.2)"}, "its prompt has weights"),
        ("WanVideoTextEncode", {"positive_prompt": ["129", 0]}, "positive_prompt is computed by node 129"),
        ("WanVideoImageToVideoMultiTalk", {"mode": "multitalk"}, "its mode is multitalk, an older model"),
        (
            "WanVideoImageToVideoMultiTalk",
            {"start_image": ["129", 0]},
            "its start_image is made by node 129 .WanVideoVAELoad",
        ),
        ("WanVideoClipVisionEncode", {"tiles": 2}, "tiles has no equivalent here; set it to 0"),
        ("WanVideoClipVisionEncode", {"negative_image": ["133", 0]}, "negative_image has no equivalent here"),
        ("ImageResizeKJv2", {"keep_proportion": "pillarbox_blur"}, "pillarbox_blur puts bars around the"),
        ("MultiTalkWav2VecEmbeds", {"audio_2": ["125", 0]}, "audio_2 is linked, but there is one speaker here"),
        ("MultiTalkWav2VecEmbeds", {"audio_scale": None}, "audio_scale is None, where a number was expected"),
        ("MultiTalkWav2VecEmbeds", {"fps": 30}, "fps is 30, which has no equivalent here; set it to 25"),
        ("MultiTalkWav2VecEmbeds", {"add_noise_floor": True}, "add_noise_floor has no equivalent here; switch it off"),
        ("MultiTalkWav2VecEmbeds", {"audio_1": ["170", 0]}, "an output that is not the voice drives the lips"),
        (
            "MultiTalkWav2VecEmbeds",
            {"audio_1": ["129", 0]},
            "its audio_1 is made by node 129 .* which has no equivalent",
        ),
        ("DownloadAndLoadWav2VecModel", {"model": "facebook/wav2vec2-base-960h"}, "does not go with InfiniteTalk"),
        ("LoadImage", {"image": ""}, "image is empty; choose a name"),
        ("LoadImage", {"image": "../../etc/passwd"}, "leads out|is not a name in one of ComfyUI's folders"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_what_would_make_another_video_is_refused_by_name(api, kind, inputs, sentence):
    api["nag"] = {"class_type": "WanVideoApplyNAG", "inputs": {"original_text_embeds": ["135", 0], "nag_scale": 11.0}}
    with pytest.raises(InputError, match=sentence) as refused:
        export(changed(api, kind, **inputs))
    assert "\n" not in str(refused.value)


def test_a_sampler_that_lacks_an_input_is_refused(api):
    for slot in ("model", "image_embeds", "text_embeds", "multitalk_embeds"):
        data = copy.deepcopy(api)
        del data["128"]["inputs"][slot]
        with pytest.raises(InputError, match=rf"node 128 \(WanVideoSampler\): nothing is linked to its input {slot}"):
            export(data)


def test_two_samplers_are_listed_and_one_can_be_chosen(api):
    api["129b"] = copy.deepcopy(api["128"])
    api["129b"]["inputs"]["seed"] = 7
    with pytest.raises(InputError, match=r"has 2 samplers; choose one with --node ID: node 128 .*, node 129b"):
        export(api)
    assert export(api, "129b").settings.base_seed == 7


def test_a_graph_without_a_sampler(api):
    del api["128"]
    with pytest.raises(InputError, match="graph.json has no sampler"):
        export(api)


# ---- whatever is in a graph


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=2),
    st.sampled_from([["128", 0], ["133", 0], ["125", 0], ["999", 1], {}, {"a": 1}, "disabled", "none"]),
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_a_widget_or_a_link_is_no_other_error_comes(data):
    """Any input of any node replaced by any value: settings that hold, or one sentence."""
    graph = json.loads(API.read_text(encoding="utf-8"))
    inputs = graph[data.draw(st.sampled_from(sorted(graph)))]["inputs"]
    if inputs:
        inputs[data.draw(st.sampled_from(sorted(inputs)))] = data.draw(JUNK)
    try:
        export(graph)
    except InputError as error:
        assert is_told(error)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_a_list_of_widgets_is_no_other_error_comes(data):
    """The widgets of any node replaced or shifted, in the format of the UI."""
    graph = json.loads(UI.read_text(encoding="utf-8"))
    node = data.draw(st.sampled_from(graph["nodes"]))
    values = node["widgets_values"]
    if isinstance(values, list) and data.draw(st.booleans()):
        values.insert(data.draw(st.integers(0, len(values))), data.draw(JUNK))
    else:
        node["widgets_values"] = data.draw(st.lists(JUNK, max_size=5))
    try:
        export(graph)
    except InputError as error:
        assert is_told(error)
