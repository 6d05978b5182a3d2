"""Graphs of ComfyUI's own InfiniteTalk nodes as settings, and what is refused."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.foreign import conditioning, media
from infinitetalk.pipeline.graphs.graph import graph_of
from infinitetalk.pipeline.graphs.native import reader as native
from infinitetalk.pipeline.graphs.native import sampling as native_sampling
from infinitetalk.pipeline.graphs.orders import CONTROL
from infinitetalk.pipeline.graphs.places import PortableFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.support.kijai_graphs import is_told
from infinitetalk.tests.support.places import GRAPHS

TWO_WINDOWS = GRAPHS / "native_two_windows_api.json"
ORDERS = {**media.ORDERS, **conditioning.ORDERS, **native_sampling.ORDERS, **native.ORDERS}
WEIGHTS = Path("weights")
EXPECTED = Settings(
    image="portrait.png",
    audio="speech.wav",
    prompt="A woman is talking.",
    negative_prompt="blurred",
    dit_path=WEIGHTS / "wan2.1_i2v_480p_14B_fp16.safetensors",
    infinitetalk_dir=WEIGHTS / "wan2.1_infiniteTalk_single_fp16.safetensors",
    text_encoder=WEIGHTS / "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    clip_vision=WEIGHTS / "clip_vision_h.safetensors",
    vae=WEIGHTS / "wan_2.1_vae.safetensors",
    wav2vec_dir=WEIGHTS / "wav2vec2-chinese-base_fp16.safetensors",
    lora_dir=[WEIGHTS / "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors"],
    lora_scale=[1.0],
    size="640x640",
    frame_num=81,
    motion_frame=9,
    max_frame_num=153,
    color_correction_strength=0.0,
    sample_steps=4,
    sample_shift=11.0,
    sample_solver="comfy:euler",
    noise="comfy",
    window_seeds=[5, 6],
    pack="comfy",
    clip_crop="squeeze",
    resize=["bilinear,middle"],
    whole_windows=True,
    sample_text_guide_scale=1.0,
    sample_audio_guide_scale=1.0,
    base_seed=5,
    save_file="ComfyUI",
)


@pytest.fixture
def api():
    return json.loads(TWO_WINDOWS.read_text(encoding="utf-8"))


def export(data, node=None):
    return settings_of(graph_of(data, "graph.json"), PortableFiles(), node)


def as_ui(api):
    """The graph as the UI saves it: links by number, widgets as bare lists in the order of the nodes."""
    links, nodes = [], []
    for identity, entry in api.items():
        linked = [name for name, value in entry["inputs"].items() if isinstance(value, list)]
        for slot, name in enumerate(linked):
            origin, number = entry["inputs"][name]
            links.append([len(links) + 1, int(origin), number, int(identity), slot, "*"])
        order = ORDERS.get(entry["class_type"], ({},))[0]
        values = ["fixed" if name == CONTROL else entry["inputs"].get(name, 0) for name in order]
        first = len(links) - len(linked) + 1
        inputs = [{"name": name, "type": "*", "link": first + slot} for slot, name in enumerate(linked)]
        values = [0 if isinstance(value, list) else value for value in values]
        nodes.append({"id": int(identity), "type": entry["class_type"], "inputs": inputs, "widgets_values": values})
    return {"nodes": nodes, "links": links, "version": 0.4}


def one_window(api):
    """The first of the two windows alone."""
    for name in ("30", "31", "32", "33", "34"):
        del api[name]
    api["40"]["inputs"]["images"] = ["22", 0]
    return api


def test_two_windows_are_one_video_of_their_length(api):
    exported = export(api)
    assert exported.settings == EXPECTED
    notes = "\n".join(exported.notes)
    for part in (
        "makes 2 windows: --max_frame_num 153",
        "correct no colours: --color_correction_strength 0",
        "no guidance by speech: --sample_audio_guide_scale 1",
    ):
        assert part in notes
    assert "comes after the sampler" not in notes and "nothing of the video" not in notes


def test_widgets_without_names_are_matched_by_position(api):
    assert export(as_ui(api)).settings == EXPECTED


def test_one_window_is_a_video_of_one_window(api):
    exported = export(one_window(api))
    assert exported.settings == EXPECTED.replace(max_frame_num=81, window_seeds=None)
    assert any("makes 1 window: --max_frame_num 81" in note for note in exported.notes)


def test_sound_that_is_cut_shortens_the_video(api):
    one_window(api)["50"] = {
        "class_type": "TrimAudioDuration",
        "inputs": {"audio": ["10", 0], "start_index": 0.0, "duration": 2.0},
    }
    api["11"]["inputs"]["audio"] = ["50", 0]
    assert export(api).settings.max_frame_num == 50


def advanced(steps=6):
    inputs = {"model": ["20", 0], "add_noise": "enable", "noise_seed": 5, "steps": steps, "cfg": 1.0}
    inputs |= {"sampler_name": "uni_pc", "scheduler": "simple", "positive": ["20", 1], "negative": ["20", 2]}
    inputs |= {"latent_image": ["20", 3], "start_at_step": 0, "end_at_step": 10000}
    return {"class_type": "KSamplerAdvanced", "inputs": {**inputs, "return_with_leftover_noise": "disable"}}


def in_parts(api, guider):
    """The same sampling by SamplerCustomAdvanced."""
    inputs = {
        "noise": ["60", 0],
        "guider": ["61", 0],
        "sampler": ["62", 0],
        "sigmas": ["63", 0],
        "latent_image": ["20", 3],
    }
    api["21"] = {"class_type": "SamplerCustomAdvanced", "inputs": inputs}
    api["60"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}
    api["61"] = guider
    api["62"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}}
    schedule = {"model": ["20", 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    api["63"] = {"class_type": "BasicScheduler", "inputs": schedule}
    return api


def test_other_samplers(api):
    one = EXPECTED.replace(max_frame_num=81, window_seeds=None)
    one_window(api)["21"] = advanced()
    assert export(api).settings == one.replace(sample_solver="comfy:uni_pc", sample_steps=6)
    guided = {"model": ["20", 0], "positive": ["20", 1], "negative": ["20", 2], "cfg": 1.0}
    for guider in (
        {"class_type": "CFGGuider", "inputs": guided},
        {"class_type": "BasicGuider", "inputs": {"model": ["20", 0], "conditioning": ["20", 1]}},
    ):
        assert export(in_parts(api, guider)).settings == one
        assert export(as_ui(api)).settings == one
    custom = {**guided, "add_noise": True, "noise_seed": 5, "sampler": ["62", 0], "sigmas": ["63", 0]}
    api["21"] = {"class_type": "SamplerCustom", "inputs": {**custom, "latent_image": ["20", 3]}}
    assert export(api).settings == one
    assert export(as_ui(api)).settings == one


@pytest.mark.parametrize(
    ("node", "inputs", "expected"),
    [
        ("21", {"scheduler": "normal"}, {"sample_solver": "comfy:euler", "sample_schedule": "normal"}),
        ("21", {"steps": 20}, {"sample_solver": "comfy:euler", "sample_steps": 20, "sample_schedule": None}),
        ("21", {"sampler_name": "lcm"}, {"sample_solver": "comfy:lcm"}),
        ("21", {"sampler_name": "ddim", "scheduler": "beta"}, {"sample_solver": "comfy:euler"}),
        ("14", {"crop": "center"}, {"clip_crop": None}),
        ("21", {"cfg": 5.0}, {"sample_text_guide_scale": 5.0}),
        ("1", {"weight_dtype": "fp8_e4m3fn_fast"}, {"quant": "fp8"}),
        ("1", {"unet_name": "wan2.1_i2v_fp8_scaled.safetensors"}, {"quant": "fp8"}),
        ("2", {"strength_model": 0.0}, {"lora_dir": None}),
        ("4", {"device": "cpu"}, {"t5_cpu": True}),
        ("20", {"width": 832, "height": 480}, {"size": "832x480"}),
        ("20", {"length": 49, "motion_frame_count": 5}, {"frame_num": 49, "motion_frame": 5, "max_frame_num": 49}),
    ],
)
def test_values_become_flags(api, node, inputs, expected):
    one_window(api)[node]["inputs"].update(inputs)
    found = export(api).settings
    assert {name: getattr(found, name) for name in expected} == expected


def test_what_a_graph_of_comfyuis_nodes_comes_to(api):
    assert export(api).take.verdict == "the same"
    api["22"]["class_type"] = "VAEDecodeTiled"
    api["21"]["inputs"]["sampler_name"] = api["31"]["inputs"]["sampler_name"] = "euler_ancestral"
    assert export(api).take.verdict == "the same up to noise; the tiles of the VAE"


def test_without_the_image_encoder_as_in_comfyuis_template(api):
    del one_window(api)["20"]["inputs"]["clip_vision_output"]
    exported = export(api)
    assert exported.settings.clip_crop == "off" and exported.settings.clip_vision is None
    assert exported.take.verdict == "the same"


def test_the_shift_of_comfyui_where_no_node_sets_one(api):
    one_window(api)["20"]["inputs"]["model"] = ["2", 0]
    exported = export(api)
    assert exported.settings.sample_shift == 8.0
    assert any("ComfyUI's own for Wan 2.1 is --sample_shift 8" in note for note in exported.notes)


def test_the_shift_may_come_after_the_window(api):
    one_window(api)["70"] = {"class_type": "ModelSamplingSD3", "inputs": {"model": ["20", 0], "shift": 5.0}}
    api["21"]["inputs"]["model"] = ["70", 0]
    assert export(api).settings.sample_shift == 5.0  # the later one is what counts


def test_gguf_and_zeroed_prompts(api):
    one_window(api)["1"] = {"class_type": "UnetLoaderGGUF", "inputs": {"unet_name": "wan-Q8_0.gguf"}}
    api["6"] = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["5", 0]}}
    exported = export(api)
    assert exported.settings.dit_path == WEIGHTS / "wan-Q8_0.gguf" and exported.settings.negative_prompt == ""
    assert any("node 6 (ConditioningZeroOut): zeros" in note for note in exported.notes)


@pytest.mark.parametrize(
    ("node", "inputs", "sentence"),
    [
        ("20", {"mode": "two_speakers"}, "its mode is two_speakers, but there is one speaker here"),
        ("20", {"audio_scale": "loud"}, "audio_scale is 'loud', where a number was expected"),
        (
            "20",
            {"model_patch": ["7", 0]},
            "its model_patch comes from node 7 .VAELoader., where ModelPatchLoader was expected",
        ),
        ("20", {"positive": ["7", 0]}, "its positive comes from node 7 .VAELoader., where CLIPTextEncode was expected"),
        ("20", {"start_image": ["7", 0]}, "its start_image is made by node 7"),
        ("20", {"width": ["7", 0]}, "width is computed by node 7"),
        (
            "21",
            {"sampler_name": "euler_cfg_pp"},
            "sampler euler_cfg_pp has no equivalent here; choose one of euler",
        ),
        ("21", {"scheduler": "bong"}, "scheduler bong has no equivalent here; choose one of simple"),
        ("21", {"denoise": 0.5}, "denoise is 0.5, which has no equivalent here; set it to 1"),
        ("21", {"model": ["7", 0]}, "node 7 .VAELoader.: changes the model in a way that has no equivalent"),
        ("21", {"positive": ["5", 0]}, "its prompt does not come through node 20"),
        ("21", {"latent_image": ["7", 0]}, "node 20 .*: its latent goes into nothing, where one of KSampler"),
    ],
)
def test_what_would_make_another_video_is_refused_by_name(api, node, inputs, sentence):
    one_window(api)[node]["inputs"].update(inputs)
    with pytest.raises(InputError, match=sentence) as refused:
        export(api)
    assert "\n" not in str(refused.value)


def test_a_part_of_the_steps_is_refused(api):
    one_window(api)["21"] = advanced()
    for name, value in (("add_noise", "disable"), ("start_at_step", 2), ("end_at_step", 3)):
        data = copy.deepcopy(api)
        data["21"]["inputs"][name] = value
        with pytest.raises(InputError, match=f"{name} is {value}, which has no equivalent here"):
            export(data)


@pytest.mark.parametrize(
    ("node", "inputs", "sentence"),
    [
        ("30", {"width": 832}, r"node 30 .*differs from node 20 .* in size \(832x640 and 640x640\)"),
        ("30", {"positive": ["6", 0]}, "differs from node 20 .* in prompt"),
        ("31", {"steps": 8}, r"node 31 .*differs from node 21 .* in sample_steps \(8 and 4\)"),
    ],
)
def test_windows_that_differ_are_refused(api, node, inputs, sentence):
    api[node]["inputs"].update(inputs)
    with pytest.raises(InputError, match=sentence):
        export(api)


def test_frames_that_no_window_made_are_refused(api):
    one_window(api)["20"]["inputs"]["previous_frames"] = ["12", 0]
    with pytest.raises(
        InputError, match=r"previous_frames comes from node 12 \(LoadImage\), which no window is behind"
    ):
        export(api)


def test_two_videos_in_a_graph_are_listed_by_their_last_windows(api):
    for name in ("20", "21", "22"):
        api[f"1{name}"] = copy.deepcopy(api[name])
        for slot, value in api[f"1{name}"]["inputs"].items():
            if isinstance(value, list) and value[0] in ("20", "21"):
                api[f"1{name}"]["inputs"][slot] = [f"1{value[0]}", value[1]]
    with pytest.raises(InputError, match=r"has 2 samplers; choose one with --node ID: node 30 .*, node 120"):
        export(api)
    assert export(api, "120").settings.max_frame_num == 81


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_an_input_is_no_other_error_comes(data):
    graph = json.loads(TWO_WINDOWS.read_text(encoding="utf-8"))
    inputs = graph[data.draw(st.sampled_from(sorted(graph)))]["inputs"]
    junk = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 300),
        st.floats(),
        st.text(max_size=4),
        st.lists(st.integers(), max_size=2),
        st.sampled_from([["20", 0], ["12", 0], ["10", 0], ["30", 3], ["999", 1], {}, "none"]),
    )
    inputs[data.draw(st.sampled_from(sorted(inputs)))] = data.draw(junk)
    try:
        export(graph)
    except InputError as error:
        assert is_told(error)
