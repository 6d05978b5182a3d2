"""Graphs of our sampler around ComfyUI's own model as settings, and what is refused."""

from pathlib import Path

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.command import command
from infinitetalk.pipeline.graphs.graph import graph_of
from infinitetalk.pipeline.graphs.places import PortableFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.support.comfy_graphs import node
from infinitetalk.tests.support.core_graphs import NAMES, streamed

WEIGHTS = Path("weights")
EXPECTED = Settings(
    image="portrait.png",
    audio="speech.wav",
    prompt="A cat is talking.",
    negative_prompt="",
    dit_path=WEIGHTS / NAMES["diffusion_models"],
    quant="fp8",
    infinitetalk_dir=WEIGHTS / NAMES["model_patches"],
    text_encoder=WEIGHTS / NAMES["text_encoders"],
    clip_vision=WEIGHTS / NAMES["clip_vision"],
    vae=WEIGHTS / NAMES["vae"],
    wav2vec_dir=WEIGHTS / NAMES["audio_encoders"],
    lora_dir=[WEIGHTS / NAMES["loras"]],
    lora_scale=[1.0],
    size="64x64",
    frame_num=17,
    motion_frame=5,
    sample_steps=2,
    sample_shift=7.0,
    sample_solver="comfy:euler",
    noise="comfy_counting",
    pack="comfy",
    clip_crop="squeeze",
    resize=["bilinear,middle"],
    sample_text_guide_scale=1.0,
    sample_audio_guide_scale=1.0,
    base_seed=42,
    save_file="video",
)


def whole(**changes):
    """The graph without the nodes that cut its sound."""
    made = streamed(**changes)
    for each in made.values():
        for slot, value in each["inputs"].items():
            if value == ["audio", 0]:
                each["inputs"][slot] = ["whole", 0]
    del made["audio"]
    return made


def exported(graph):
    return settings_of(graph_of(graph), PortableFiles())


def test_the_sampler_becomes_settings():
    found = exported(whole())
    assert found.settings == EXPECTED
    assert found.take.verdict == exported(whole(seam_frames=4)).take.verdict
    assert "--noise comfy_counting" in command(found, "sh").text


def test_widgets_of_its_own_and_model_and_prompts_apart():
    both = {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0]}
    own = {"color_correction_strength": 0.5, "seam_frames": 4, "crf": 0, "max_frame_num": 29}
    found = exported(whole(guider=None, **both, cfg=3.0, **own))
    expected = {**own, "negative_prompt": "blurred", "sample_text_guide_scale": 3.0}
    assert found.settings == EXPECTED.replace(**expected)


def test_a_video_is_a_reference_by_time():
    made = whole(image=None, video=["video", 0], clip_vision_output=None)
    made["video"] = node("LoadVideo", file="person.mp4")
    found = exported(made)
    assert found.settings.video == Path("person.mp4") and found.settings.image is None
    assert found.settings.clip_crop == "off"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guider": ["image", 0]}, "CFGGuider"),
        ({"sigmas": ["noise", 0]}, "BasicScheduler"),
        ({"motion_frame_count": 17}, "--motion_frame"),
        ({"audio": ["other", 0]}, "carries another sound"),
    ],
)
def test_what_has_no_equivalent_is_refused(changes, words):
    made = {**whole(**changes), "other": node("LoadAudio", audio="music.wav")}
    with pytest.raises(InputError, match=words):
        exported(made)


def test_the_scale_of_the_sound_is_the_strength_of_the_speech():
    assert exported(whole(audio_scale=2.0)).settings.speech_strength == 2.0


def test_without_sound_the_commands_video_has_the_speech():
    found = exported(whole(audio=None))
    assert any("its video is silent" in said for said in found.notes)
