"""Graphs of ComfyUI-WanVideoWrapper as settings: a real one, the same in other formats."""

import copy
import json
import shutil
from pathlib import Path

import av
import pytest
import torch
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.graph import read_graph
from infinitetalk.pipeline.graphs.kijai.widgets import KIJAI_ORDERS
from infinitetalk.pipeline.graphs.places import PORTABLE_NOTE, FolderFiles, PortableFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.flags import to_argv
from infinitetalk.tests.support import lora_files, other_layouts, random_checkpoint
from infinitetalk.tests.support.kijai_graphs import API, GRAPHS, UI, changed, export, of
from infinitetalk.tests.support.places import PORTRAIT, ROOT
from infinitetalk.tests.support.voice_files import mel_band_state
from safetensors.torch import save_file

REAL = ROOT.parent / "shared" / "workflows" / "InfiniteTalk\N{CJK UNIFIED IDEOGRAPH-5355}人图生视频.json"
WEIGHTS = Path("weights")

# the guide's table of what the workflow means, flag by flag
EXPECTED = {
    "sample_steps": 4,
    "sample_text_guide_scale": 1.0,
    "sample_shift": 11.0,
    "base_seed": 1,
    "sample_solver": "flowmatch_distill",
    "noise": "kijai",
    "offload_model": True,
    "lora_dir": (WEIGHTS / "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors",),
    "lora_scale": (0.8,),
    "blocks_to_swap": 30,
    "quant": "fp8",
    "dit_path": WEIGHTS / "Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors",
    "infinitetalk_dir": WEIGHTS / "InfiniteTalk" / "Wan2_1-InfiniTetalk-Single_fp16.safetensors",
    "text_encoder": WEIGHTS / "umt5-xxl-enc-bf16.safetensors",
    "clip_vision": WEIGHTS / "clip_vision_vit_h.safetensors",
    "vae": WEIGHTS / "Wan2_1_VAE_bf16.safetensors",
    "wav2vec_dir": WEIGHTS / "chinese-wav2vec2-base",
    "frame_num": 81,
    "motion_frame": 25,
    "color_correction_strength": 1.0,
    "color_method": "mkl",
    "pack": "kijai",
    "resize": ("lanczos,crop",),
    "whole_windows": True,
    "separate_voice": WEIGHTS / "hdemucs_high_trained.pt",
    "sample_audio_guide_scale": 1.0,
    "max_frame_num": None,
    "prompt": "一个人对着镜头激情唱歌",
    "image": Path("女孩.png"),
    "audio": Path("广告解说旁白女声.mp3"),
    "size": "480x832",
    "save_file": Path("infinitetalk数字人"),
    "crf": 19,
}
EXPLAINED = (
    "node 136 (LoadWanVideoT5TextEncoder): that pack brings a tokenizer along",
    "node 122 (WanVideoModelLoader): Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors is fp8 by its name",
    "node 122 (WanVideoModelLoader): base_precision fp16 is left out",
    "node 122 (WanVideoModelLoader): attention_mode sageattn is left out",
    "node 177 (WanVideoTorchCompileSettings): torch.compile is left out",
    "node 192 (WanVideoImageToVideoMultiTalk): colormatch mkl became --color_method mkl: within 1e-5",
    "node 205 (MultiTalkWav2VecEmbeds): num_frames, computed by node 199 (SimpleMath+), is never less",
    "--motion_frame 25 is the graph's. The guide suggests 9",
    "--sample_audio_guide_scale 1 is the graph's. The guide suggests 2 with a LoRA",
    "Behind the end of the speech that pack hears what it has in multitalk/encoded_silence.safetensors",
    "Left out, since they change time, memory or the last digits only",
    "node 202 (easy showAnything): nothing of the video comes from it",
)
BYPASSED = "node 159 (AudioCrop): bypassed in the graph"


def assert_is_the_guides(exported, **changed):
    defaults = Settings().as_json()
    assert exported.settings.as_json() == {**defaults, **Settings(**{**EXPECTED, **changed}).as_json()}


@pytest.mark.parametrize("path", [UI, API], ids=["UI", "API"])
def test_the_guides_workflow_gives_the_guides_table(path):
    exported = settings_of(read_graph(path), PortableFiles())
    assert_is_the_guides(exported)
    explained = (*EXPLAINED, BYPASSED) if path == UI else EXPLAINED
    notes = [note for note in exported.notes if note != PORTABLE_NOTE]
    assert len(notes) == len(explained)
    for note, beginning in zip(notes, explained, strict=True):
        assert note.startswith(beginning) and note.endswith(".")


def test_the_workflow_itself_gives_the_guides_table():
    if not REAL.is_file():
        pytest.skip("the guide's own file is not beside this checkout; the reduced one is tested")
    assert len(json.loads(REAL.read_text(encoding="utf-8"))["nodes"]) == 27
    real, reduced = (settings_of(read_graph(path), PortableFiles()) for path in (REAL, UI))
    assert_is_the_guides(real)
    assert real.notes == reduced.notes


def test_the_same_in_subgraphs():
    """As ComfyUI's page saved it and as it queued it: LoRA 0.25 and 7 blocks on the outside of two subgraphs."""
    saved, queued = (
        settings_of(read_graph(GRAPHS / f"kijai_nested{end}.json"), PortableFiles()) for end in ("", "_api")
    )
    expected = {**EXPECTED, "lora_scale": (0.25,), "blocks_to_swap": 7, "negative_prompt": "outside"}
    assert saved.settings == queued.settings == Settings(**expected)


@pytest.mark.whole
def test_the_command_makes_a_video_of_the_graphs_own_files(weights, speech, surroundings, tmp_path):
    """Small weights in Kijai's layouts, under the names and in the folders that the graph means."""
    sizes, models = random_checkpoint.TINY, tmp_path / "ComfyUI" / "models"
    files = {
        "diffusion_models": (
            EXPECTED["dit_path"],
            other_layouts.old_scaled_fp8(random_checkpoint.transformer_weights(sizes)),
        ),
        "diffusion_models/InfiniteTalk": (
            EXPECTED["infinitetalk_dir"],
            other_layouts.cast(random_checkpoint.infinitetalk_weights(sizes), torch.float16),
        ),
        "text_encoders": (
            EXPECTED["text_encoder"],
            torch.load(weights.ckpt_dir / "models_t5_umt5-xxl-enc-bf16.pth", weights_only=True),
        ),
        "clip_vision": (
            EXPECTED["clip_vision"],
            other_layouts.hugging_face_image_encoder(random_checkpoint.image_encoder_weights(sizes)),
        ),
        "vae": (EXPECTED["vae"], other_layouts.cast(random_checkpoint.vae_weights(sizes))),
        "loras": (EXPECTED["lora_dir"][0], lora_files.lightx2v_i2v(sizes)),
    }
    for folder, (path, tensors) in files.items():
        (models / folder).mkdir(parents=True)
        save_file(tensors, models / folder / path.name)
    torch.save(mel_band_state(), models / "diffusion_models" / EXPECTED["separate_voice"].name)  # told by what is in it
    shutil.copy(weights.ckpt_dir / "google" / "umt5-xxl" / "tokenizer.json", models / "text_encoders")
    shutil.copytree(weights.wav2vec_dir, models / "transformers" / "TencentGameMate" / "chinese-wav2vec2-base")
    (tmp_path / "ComfyUI" / "input").mkdir()
    for source, setting in ((PORTRAIT, "image"), (speech, "audio")):
        shutil.copy(source, tmp_path / "ComfyUI" / "input" / EXPECTED[setting])

    found = settings_of(read_graph(UI), FolderFiles(tmp_path / "ComfyUI")).settings
    small = {"size": "64x64", "frame_num": 21, "motion_frame": 5, "device": "cpu", "quiet": True}
    assert main(to_argv(found.replace(**small))) == 0
    with av.open(str(tmp_path / "infinitetalk数字人.mp4")) as video:
        assert video.streams.video[0].frames == 21  # a whole window for 0.8 s of speech


# ---- versions: the same widgets, as other versions stored them


@pytest.fixture
def ui():
    return json.loads(UI.read_text(encoding="utf-8"))


@pytest.fixture
def api():
    return json.loads(API.read_text(encoding="utf-8"))


OLDER = {
    "WanVideoSampler": [4, 1.0, 11.0, 1, "fixed", True, "flowmatch_distill", 0, 1, False, "comfy"],
    "WanVideoModelLoader": [EXPECTED["dit_path"].name, "bf16", "disabled", "offload_device", "sdpa"],
    "WanVideoBlockSwap": [30, False, False, True, 0],
    "WanVideoImageToVideoMultiTalk": [832, 480, 81, 25, False, "mkl", False, "infinitetalk"],
    "WanVideoLoraSelect": [EXPECTED["lora_dir"][0].name, 0.8, False],
    "WanVideoTextEncode": [EXPECTED["prompt"], "", True],
}
NEWER = {
    "WanVideoVAELoader": ["Wan2_1_VAE_bf16.safetensors", "bf16", False, False],
    "MultiTalkWav2VecEmbeds": [True, 81, 25, 1, 1, "para", False, False],
    "WanVideoSampler": [4, 1, 11, 1, "fixed", True, "flowmatch_distill", 0, 1, False, "comfy", 0, -1, False, "later"],
}
DEBUG_BEFORE_PREFETCH = {"WanVideoBlockSwap": [30, False, False, True, 0, True]}


@pytest.mark.parametrize("versions", [OLDER, NEWER, DEBUG_BEFORE_PREFETCH], ids=["June 2025", "2026", "July 2025"])
def test_widgets_of_any_version_are_matched_by_position(ui, versions):
    for kind, values in versions.items():
        of(ui, kind)["widgets_values"] = values
    expected = {**EXPECTED, "negative_prompt": ""} if versions is OLDER else EXPECTED
    assert export(ui).settings == Settings(**expected)


def test_inputs_that_an_old_version_saved_do_not_matter(ui):
    """A node keeps the list of inputs and the version of the day it was placed."""
    for node in ui["nodes"]:
        node["inputs"] = [entry for entry in node["inputs"] if entry["link"] is not None]
        node["properties"] = {"ver": "anything"}
    for link in ui["links"]:
        target = next(node for node in ui["nodes"] if node["id"] == link[3])
        link[4] = next(n for n, entry in enumerate(target["inputs"]) if entry["link"] == link[0])
    assert_is_the_guides(export(ui))


def test_widgets_in_an_unknown_order_are_refused(ui):
    of(ui, "WanVideoSampler")["widgets_values"] = ["flowmatch_distill", 4, 1.0, 11.0]
    with pytest.raises(InputError, match=r"graph.json: node 128 \(WanVideoSampler\): its 4 widgets are in an order"):
        export(ui)


def test_an_order_that_nothing_asks_for_is_no_reason_to_refuse(ui):
    ui["nodes"].append({"id": 300, "type": "WanVideoTeaCache", "widgets_values": ["?", "?"]})
    assert_is_the_guides(export(ui))


def test_orders_name_every_widget_once():
    for kind, orders in KIJAI_ORDERS.items():
        assert orders and all(orders), kind
        longest = orders[0]
        assert all(order.items() <= longest.items() for order in orders), kind


# ---- what becomes what


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("WanVideoSampler", {"scheduler": "euler", "steps": 20}, {"sample_solver": "kijai:euler", "sample_steps": 20}),
        ("WanVideoSampler", {"scheduler": "multitalk", "steps": 20}, {"sample_solver": "euler", "sample_steps": 4}),
        ("WanVideoSampler", {"scheduler": "unipc"}, {"sample_solver": "kijai:unipc", "noise": "kijai"}),
        ("WanVideoSampler", {"scheduler": "lcm"}, {"sample_solver": "kijai:lcm"}),
        ("WanVideoSampler", {"scheduler": "dpm++_sde", "steps": 6}, {"sample_solver": "dpm++_sde", "sample_steps": 6}),
        ("WanVideoSampler", {"start_step": 1, "end_step": 3}, {"sample_start_step": 1, "sample_end_step": 3}),
        ("WanVideoSampler", {"denoise_strength": 0.5}, {"sample_start_step": 1}),
        ("WanVideoSampler", {"force_offload": False}, {"offload_model": False}),
        ("WanVideoSampler", {"cfg": 5, "seed": 2**63}, {"sample_text_guide_scale": 5.0, "base_seed": 2**63}),
        ("MultiTalkWav2VecEmbeds", {"audio_cfg_scale": 3}, {"sample_audio_guide_scale": 3.0}),
        ("MultiTalkWav2VecEmbeds", {"num_frames": 250}, {"max_frame_num": 250}),
        ("WanVideoImageToVideoMultiTalk", {"colormatch": "disabled"}, {"color_correction_strength": 0.0}),
        ("WanVideoImageToVideoMultiTalk", {"colormatch": "hm-mvgd-hm"}, {"color_method": "hm-mkl-hm"}),
        ("WanVideoImageToVideoMultiTalk", {"frame_window_size": 80}, {"frame_num": 77}),
        ("ImageResizeKJv2", {"width": 832, "height": 480}, {"size": "832x480"}),
        ("ImageResizeKJv2", {"width": 720, "height": 1280}, {"size": "720x1280"}),
        ("ImageResizeKJv2", {"width": 640, "height": 640}, {"size": "640x640"}),
        ("WanVideoModelLoader", {"model": "wan_i2v_480p_bf16.safetensors"}, {"quant": None}),
        ("WanVideoModelLoader", {"model": "wan_bf16.safetensors", "quantization": "fp8_e4m3fn"}, {"quant": "fp8"}),
        ("WanVideoModelLoader", {"model": "wan-fp8-Q8_0.gguf"}, {"quant": None}),
        ("WanVideoBlockSwap", {"blocks_to_swap": 48}, {"blocks_to_swap": 40}),
        ("WanVideoTextEncode", {"device": "cpu"}, {"t5_cpu": True}),
        ("WanVideoTextEncode", {"negative_prompt": "blur"}, {"negative_prompt": "blur"}),
        ("VHS_VideoCombine", {"filename_prefix": "video/my\\talk%date%"}, {"save_file": Path("talk_date_")}),
        ("WanVideoLoraSelect", {"strength": 0}, {"lora_dir": None}),
        ("LoadImage", {"image": "faces/me.png [output]"}, {"image": Path("faces/me.png")}),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value,
)
def test_values_become_flags(api, kind, inputs, expected):
    found = export(changed(api, kind, **inputs)).settings
    assert {name: getattr(found, name) for name in expected} == expected


def test_guidance_by_both_is_converted(api):
    """The pack multiplies the one scale by the other; upstream and we do not."""
    changed(api, "WanVideoSampler", cfg=2.0)
    exported = export(changed(api, "MultiTalkWav2VecEmbeds", audio_cfg_scale=3.0))
    assert exported.settings.sample_text_guide_scale == 2.0 and exported.settings.sample_audio_guide_scale == 6.0
    assert any("audio_cfg_scale 3 became --sample_audio_guide_scale 6" in note for note in exported.notes)
    with pytest.raises(InputError, match="batched_cfg makes it ignore audio_cfg_scale"):
        export(changed(api, "WanVideoSampler", batched_cfg=True))


def test_a_chain_of_loras_keeps_its_order(api):
    api["301"] = {"class_type": "WanVideoLoraSelect", "inputs": {"lora": "first.safetensors", "strength": -0.5}}
    many = {f"lora_{n}": "none" for n in range(5)} | {f"strength_{n}": 1.0 for n in range(5)}
    many |= {"lora_1": "second.safetensors", "strength_1": 0.25, "prev_lora": ["301", 0]}
    api["302"] = {"class_type": "WanVideoLoraSelectMulti", "inputs": many}
    api["303"] = {"class_type": "WanVideoSetLoRAs", "inputs": {"model": ["122", 0], "lora": ["304", 0]}}
    api["304"] = {"class_type": "WanVideoLoraSelect", "inputs": {"lora": "last.safetensors", "strength": 1}}
    changed(api, "WanVideoLoraSelect", prev_lora=["302", 0])
    found = export(changed(api, "WanVideoSampler", model=["303", 0])).settings
    assert [path.name for path in found.lora_dir] == [
        "first.safetensors",
        "second.safetensors",
        EXPECTED["lora_dir"][0].name,
        "last.safetensors",
    ]
    assert found.lora_scale == (-0.5, 0.25, 0.8, 1.0)


def test_blocks_may_be_swapped_behind_the_loader(api):
    api["304"] = {"class_type": "WanVideoBlockSwap", "inputs": {"blocks_to_swap": 12}}
    api["305"] = {"class_type": "WanVideoSetBlockSwap", "inputs": {"model": ["122", 0], "block_swap_args": ["304", 0]}}
    assert export(changed(api, "WanVideoSampler", model=["305", 0])).settings.blocks_to_swap == 12


def test_the_image_encoder_must_see_the_same_picture(api):
    api["306"] = {"class_type": "LoadImage", "inputs": {"image": "other.png"}}
    with pytest.raises(
        InputError, match="node 193 .*: encodes another picture than the one that is shown; link the same"
    ):
        export(changed(api, "WanVideoClipVisionEncode", image_1=["306", 0]))


def test_samplers_in_parts_say_the_same(api):
    """The second sampler node, and the first one from its settings, and with a schedule of its own."""
    sampler = api.pop("128")["inputs"]
    schedule = {"scheduler": "flowmatch_distill", "steps": 4, "shift": 11.0, "start_step": 0, "end_step": -1}
    api["400"] = {"class_type": "WanVideoSchedulerv2", "inputs": schedule}
    api["401"] = {"class_type": "WanVideoSamplerExtraArgs", "inputs": {"multitalk_embeds": sampler["multitalk_embeds"]}}
    second = {name: sampler[name] for name in ("model", "image_embeds", "text_embeds", "cfg", "seed", "force_offload")}
    api["128"] = {
        "class_type": "WanVideoSamplerv2",
        "inputs": {**second, "scheduler": ["400", 0], "extra_args": ["401", 0]},
    }
    assert_is_the_guides(export(api))

    api["402"] = {"class_type": "WanVideoSamplerSettings", "inputs": sampler}
    api["128"] = {"class_type": "WanVideoSamplerFromSettings", "inputs": {"sampler_inputs": ["402", 0]}}
    del api["400"], api["401"]
    assert_is_the_guides(export(api))

    api["403"] = {"class_type": "WanVideoScheduler", "inputs": schedule}
    fed = {"steps": ["403", 1], "shift": ["403", 2], "scheduler": ["403", 3], "start_step": ["403", 4]}
    api["128"] = {"class_type": "WanVideoSampler", "inputs": {**sampler, **fed, "end_step": ["403", 5]}}
    del api["402"]
    assert_is_the_guides(export(api))


def test_other_ways_to_a_prompt(api):
    encoder = api.pop("136")["inputs"]["model_name"]
    prompts = of(api, "WanVideoTextEncode")["inputs"]
    texts = {name: prompts[name] for name in ("positive_prompt", "negative_prompt")}
    api["135"] = {"class_type": "WanVideoTextEncodeCached", "inputs": {"model_name": encoder, **texts, "device": "gpu"}}
    assert_is_the_guides(export(api))

    api["135"] = {"class_type": "WanVideoTextEmbedBridge", "inputs": {"positive": ["500", 0], "negative": ["501", 0]}}
    for identity, text in (("500", texts["positive_prompt"]), ("501", texts["negative_prompt"])):
        api[identity] = {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["502", 0]}}
    api["502"] = {"class_type": "CLIPLoader", "inputs": {"clip_name": encoder, "type": "wan", "device": "default"}}
    assert_is_the_guides(export(api))


def test_a_video_is_dubbed(api):
    video = {"video": "person.mp4", "force_rate": 25, "frame_load_cap": 0, "skip_first_frames": 0}
    api["133"] = {"class_type": "VHS_LoadVideo", "inputs": {**video, "select_every_nth": 1}}
    exported = export(api)
    assert exported.settings.video == Path("person.mp4") and exported.settings.image is None
    assert any("window n the frame n" in note for note in exported.notes)
    changed(api, "VHS_LoadVideo", skip_first_frames=10)
    with pytest.raises(InputError, match="skip_first_frames is 10, so only a part of the video is used; cut the file"):
        export(api)


def test_the_sound_of_a_video_may_be_the_speech(api):
    api["133"] = {"class_type": "LoadVideo", "inputs": {"file": "person.mp4"}}
    api["600"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["133", 0]}}
    changed(api, "ImageResizeKJv2", image=["600", 0])
    changed(api, "VHS_VideoCombine", audio=["600", 1])
    found = export(changed(api, "MultiTalkWav2VecEmbeds", audio_1=["600", 1])).settings
    assert found.video == found.audio == Path("person.mp4")


@pytest.mark.parametrize(
    ("crop", "frames"),
    [
        ({"class_type": "AudioCrop", "inputs": {"start_time": "0:00", "end_time": "1:02.5"}}, 1562),
        ({"class_type": "TrimAudioDuration", "inputs": {"start_index": 0.0, "duration": 4.0}}, 100),
        ({"class_type": "TrimAudioDuration", "inputs": {"start_index": 0.0, "duration": 0.0}}, None),
    ],
)
def test_sound_that_is_cut_at_its_end_makes_a_shorter_video(api, crop, frames):
    crop["inputs"]["audio"] = ["125", 0]
    api["159"] = crop
    assert export(changed(api, "AudioSeparation", audio=["159", 0])).settings.max_frame_num == frames
    crop["inputs"]["start_index" if "start_index" in crop["inputs"] else "start_time"] = (
        1.0 if "start_index" in crop["inputs"] else "0:01"
    )
    with pytest.raises(InputError, match="node 159 .*cuts the beginning of the sound off"):
        export(api)


def test_nodes_that_pass_a_picture_and_its_size_on(api):
    api["291"] = {"class_type": "GetImageSizeAndCount", "inputs": {"image": ["171", 0]}}
    changed(api, "WanVideoImageToVideoMultiTalk", start_image=["291", 0], width=["291", 1], height=["291", 2])
    assert_is_the_guides(export(changed(api, "WanVideoClipVisionEncode", image_1=["291", 0])))


def test_the_sound_that_is_written_may_be_what_the_encoder_heard(api):
    exported = export(changed(api, "VHS_VideoCombine", audio=["205", 1]))
    assert_is_the_guides(exported, output_sound="speech")
    assert not any("another sound" in note for note in exported.notes)


def test_another_sound_in_the_video_is_said(api):
    for origin in (["129", 0], ["126", 0]):
        api["126"] = {"class_type": "LoadAudio", "inputs": {"audio": "music.mp3"}}
        exported = export(changed(api, "VHS_VideoCombine", audio=origin))
        assert any("node 131 (VHS_VideoCombine): writes another sound" in note for note in exported.notes)


def test_teacache_becomes_ours(api):
    inputs = {"rel_l1_thresh": 0.26, "start_step": 1, "end_step": -1, "cache_device": "offload_device"}
    api["700"] = {"class_type": "WanVideoTeaCache", "inputs": inputs}
    for slot in ("cache_args", "teacache_args"):
        found = export(changed(copy.deepcopy(api), "WanVideoSampler", **{slot: ["700", 0]}))
        assert found.settings.use_teacache and found.settings.teacache_thresh == 0.26
    api["700"]["class_type"] = "WanVideoMagCache"
    found = export(changed(api, "WanVideoSampler", cache_args=["700", 0]))
    assert not found.settings.use_teacache
    assert any("node 700 (WanVideoMagCache): this way of skipping steps is left out" in note for note in found.notes)


def test_what_comes_after_the_sampler_is_named(api):
    api["800"] = {"class_type": "RIFE VFI", "inputs": {"frames": ["130", 0]}}
    changed(api, "VHS_VideoCombine", images=["800", 0], frame_rate=50, pingpong=True, format="video/h265-mp4")
    exported = export(api)
    notes = "\n".join(exported.notes)
    assert "node 800 (RIFE VFI): comes after the sampler and is left out" in notes
    assert "frame_rate 50 is left out" in notes and "pingpong is left out" in notes and "video/h265-mp4" in notes
    assert exported.settings.crf == Settings().crf


def test_a_core_node_may_save_the_video(api):
    del api["131"]
    assert "No node of the graph saves the video" in "\n".join(export(api).notes)
    api["900"] = {"class_type": "CreateVideo", "inputs": {"images": ["130", 0], "fps": 25.0, "audio": ["125", 0]}}
    api["901"] = {"class_type": "SaveVideo", "inputs": {"video": ["900", 0], "filename_prefix": "video/talk"}}
    exported = export(api)
    assert exported.settings.save_file == Path("talk")
    del api["900"]["inputs"]["audio"]
    assert any("node 900 (CreateVideo): writes no sound" in note for note in export(api).notes)
