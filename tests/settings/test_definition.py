"""Settings: upstream's names and defaults, ranges, combinations, refusals, derived values, presets, the docs page."""

import dataclasses
import math
from pathlib import Path

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.settings.definition import Settings, setting_infos, setting_types
from infinitetalk.pipeline.settings.presets import load_preset, preset_names, settings_with_preset
from infinitetalk.pipeline.settings.validation import preset_remarks, resolve, validate, warnings_for

# generate_infinitetalk.py of upstream, 2025-08-25
UPSTREAM_DEFAULTS = {
    "task": "infinitetalk-14B",
    "size": "infinitetalk-480",
    "frame_num": 81,
    "max_frame_num": 1000,
    "ckpt_dir": None,
    "infinitetalk_dir": None,
    "quant_dir": None,
    "wav2vec_dir": None,
    "dit_path": None,
    "lora_dir": None,
    "lora_scale": (1.2,),
    "offload_model": None,
    "ulysses_size": 1,
    "ring_size": 1,
    "t5_fsdp": False,
    "t5_cpu": False,
    "dit_fsdp": False,
    "save_file": None,
    "audio_save_dir": Path("save_audio"),
    "base_seed": 42,
    "input_json": Path("examples.json"),
    "motion_frame": 9,
    "mode": "clip",
    "sample_steps": None,
    "sample_shift": None,
    "sample_text_guide_scale": 5.0,
    "sample_audio_guide_scale": 4.0,
    "num_persistent_param_in_dit": None,
    "audio_mode": "localfile",
    "use_teacache": False,
    "teacache_thresh": 0.2,
    "use_apg": False,
    "apg_momentum": -0.75,
    "apg_norm_threshold": 55,
    "color_correction_strength": 1.0,
    "scene_seg": False,
    "quant": None,
}
DELIBERATE = {"mode": "streaming", "max_frame_num": None}
OURS = {
    "speaker",
    "audio_type",
    "timeline",
    "bind",
    "vae_dtype",
    "vae_tiles",
    "vram_limit",
    "sample_audio_guide_steps",
    "seam_frames",
    "color_method",
    "pack",
    "resize",
    "whole_windows",
    "separate_voice",
    "silence",
    "text_guide_schedule",
    "speech_strength",
    "image_strength",
    "output_sound",
    "kernels",
    "resume",
    "preset",
    "sample_solver",
    "text_encoder",
    "clip_vision",
    "vae",
    "tokenizer",
    "blocks_to_swap",
    "device",
    "threads",
    "gpus",
    "dtype",
    "attention",
    "image",
    "video",
    "audio",
    "prompt",
    "negative_prompt",
    "overwrite",
    "quiet",
    "dry_run",
    "crf",
    "lora_mode",
    "lora_ignore_unmatched",
    "quant_matmul",
    "noise",
    "sample_schedule",
    "window_seeds",
    "clip_crop",
    "sample_start_step",
    "sample_end_step",
}


def test_every_upstream_flag_has_upstreams_default_but_for_the_two_that_cut_silently():
    ours = dataclasses.asdict(Settings())
    assert {name: ours[name] for name in UPSTREAM_DEFAULTS} == {**UPSTREAM_DEFAULTS, **DELIBERATE}
    assert set(ours) == set(UPSTREAM_DEFAULTS) | OURS


def test_every_setting_has_help_on_one_line_and_a_type():
    for name, info in setting_infos().items():
        assert info.help and "\n" not in info.help and not info.help.endswith("."), name
        assert setting_types()[name].kind in (bool, int, float, str, Path), name
        assert info.landed or info.refusal, name


def test_paths_may_be_strings_and_several_values_a_list():
    settings = Settings(ckpt_dir="weights", lora_dir=["a", "b"], lora_scale=[1, 2])
    assert settings.ckpt_dir == Path("weights")
    assert settings.lora_dir == (Path("a"), Path("b")) and settings.lora_scale == (1, 2)


WRONG = [
    ({"frame_num": 80}, "--frame_num: 80 found, 4n+1 expected, for example 77 or 81"),
    ({"frame_num": 1, "motion_frame": 1}, "at least 5"),
    ({"motion_frame": 0}, "at least 1"),
    ({"motion_frame": 81}, "fewer than --frame_num (81)"),
    ({"sample_steps": 0}, "at least 1"),
    ({"sample_shift": 0.0}, "at least 0.01"),
    ({"sample_solver": "heun"}, "one of euler"),
    ({"sample_solver": "flowmatch_distill", "sample_steps": 8}, "exactly 4 steps"),
    ({"sample_text_guide_scale": -1.0}, "at least 0"),
    ({"sample_audio_guide_scale": math.inf}, "finite"),
    ({"apg_momentum": math.nan}, "finite"),
    ({"color_correction_strength": 1.5}, "at most 1"),
    ({"seam_frames": -1}, "at least 0"),
    ({"seam_frames": 33}, "at most 32"),
    ({"crf": 52}, "at most 51"),
    ({"max_frame_num": 0}, "at least 1"),
    ({"base_seed": 2**64}, "at most 18446744073709551615"),
    ({"size": "infinitetalk-1080"}, "--size"),
    ({"size": "832x8"}, "--size"),
    ({"device": "tpu"}, "cuda:N"),
    ({"mode": "stream"}, "streaming, clip"),
    ({"num_persistent_param_in_dit": 0, "blocks_to_swap": 30}, "give one of them"),
    ({"image": "a.png", "video": "a.mp4"}, "--image and --video"),
    ({"lora_dir": ("a", "b")}, "--lora_scale: 1 found, one for each file of --lora_dir (2)"),
    ({"lora_scale": ()}, "one or more values"),
    ({"lora_scale": (0.8,)}, "--lora_scale needs --lora_dir"),
    ({"lora_mode": "merge"}, "one of auto, fuse, side"),
    ({"quant": "fp4"}, "'fp4' found, one of fp8, int8"),
    ({"quant_dir": "a.safetensors"}, "--quant_dir needs --quant"),
    ({"quant_matmul": "fast"}, "one of auto, on, off"),
    ({"frame_num": "81"}, "'81' found, a whole number expected"),
    ({"frame_num": True}, "a whole number expected"),
    ({"t5_cpu": 1}, "true or false expected"),
    ({"frame_num": None}, "a whole number expected"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG)
def test_a_wrong_value_is_one_sentence_that_names_the_flag(changes, sentence):
    with pytest.raises(InputError) as caught:
        validate(Settings(**changes))
    assert sentence in str(caught.value) and "--" in str(caught.value) and "\n" not in str(caught.value)


REFUSED = {
    "task": "t2v-14B",
    "scene_seg": True,
    "audio_mode": "tts",
    "audio_save_dir": "elsewhere",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"^--{name}: "):
        validate(Settings(**{name: REFUSED[name]}))


def test_the_list_of_refusals_is_complete():
    assert {name for name, info in setting_infos().items() if info.refusal} == set(REFUSED)


def test_resolve_fills_in_what_upstream_fills_in():
    at_480, at_720 = resolve(Settings()), resolve(Settings(size="infinitetalk-720"))
    assert (at_480.sample_steps, at_480.sample_shift, at_480.max_frame_num) == (40, 7, None)
    assert at_720.sample_shift == 11
    assert resolve(Settings(size="832x480")).sample_shift == 7
    assert resolve(Settings(size="1280x720")).sample_shift == 11
    assert resolve(Settings(sample_shift=3.0, sample_steps=8)) == Settings(sample_shift=3.0, sample_steps=8)
    assert resolve(Settings(sample_solver="flowmatch_distill")).sample_steps == 4


def test_a_clip_is_one_window_at_most():
    assert resolve(Settings(mode="clip")).max_frame_num == 81
    assert resolve(Settings(mode="clip", max_frame_num=1000, frame_num=49)).max_frame_num == 49
    assert resolve(Settings(mode="clip", max_frame_num=20)).max_frame_num == 20


def test_a_negative_seed_becomes_one_random_seed():
    seeds = {resolve(Settings(base_seed=-1)).base_seed for _ in range(8)}
    assert len(seeds) > 1 and all(0 <= seed <= 99_999_999 for seed in seeds)
    once = resolve(Settings(base_seed=-1))
    assert resolve(once) == once


def test_teacache_that_cannot_act_is_said():
    assert "cannot speed up 4 steps" in warnings_for(resolve(Settings(use_teacache=True, sample_steps=4)))[0]
    assert warnings_for(resolve(Settings(use_teacache=True, sample_steps=6))) == ()


def test_steps_of_a_guidance_that_is_off_are_said():
    # what a preset chose is told in the plan alone; changed steps are the user's, and so is a warning about them
    chosen = resolve(settings_with_preset("01_ultra_fast"))
    assert warnings_for(chosen) == () and "cannot speed up 4 steps" in preset_remarks(chosen)[0]
    changed = resolve(settings_with_preset("01_ultra_fast", sample_steps=5))
    assert preset_remarks(changed) == () and "cannot speed up 5 steps" in warnings_for(changed)[0]
    assert warnings_for(resolve(Settings(sample_audio_guide_steps=2))) == ()
    (said,) = warnings_for(resolve(Settings(sample_audio_guide_steps=2, sample_audio_guide_scale=1.0)))
    assert said.startswith("--sample_audio_guide_steps does nothing")


LIGHTX2V = ("lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors",)
FUSIONX = ("Wan2.1_I2V_14B_FusionX_LoRA.safetensors",)
# LoRA, scale, quant, size, steps, shift, solver, text, audio, seed, persistent parameters, offload, t5_cpu; VRAM, speed
PRESETS = {
    "01_ultra_fast": (LIGHTX2V, 1.0, "fp8", 480, 4, 2, "euler", 1, 2, 42, 0, True, False, 10, 8.8),
    "02_comfyui_equivalent": (LIGHTX2V, 0.8, "fp8", 480, 4, 11, "flowmatch_distill", 1, 2, 1, 0, True, False, 12, 7.1),
    "03_balanced": (FUSIONX, 0.6, "fp8", 480, 8, 7, "euler", 1.5, 3, 42, 0, None, False, 14, 3.8),
    "04_high_quality": (None, 1.2, None, 480, 40, 7, "euler", 5, 4, 42, None, None, False, 18, 1.1),
    "05_low_vram": (LIGHTX2V, 0.8, "fp8", 480, 4, 11, "euler", 1, 2, 42, 0, True, True, 10, None),
    "06_720p_high_res": (LIGHTX2V, 0.8, "fp8", 720, 4, 11, "euler", 1, 2, 42, None, None, False, 22, None),
}
OTHERS = {
    "01_ultra_fast": {"use_teacache": True, "teacache_thresh": 0.2},
    "02_comfyui_equivalent": {"color_correction_strength": 1.0, "max_frame_num": 1000},
    "04_high_quality": {"use_apg": True, "apg_momentum": -0.75, "apg_norm_threshold": 55},
}


def test_there_are_six_presets():
    assert preset_names() == tuple(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_what_was_published(name):
    lora, scale, quant, size, steps, shift, solver, text, audio, seed, kept, offload, t5_cpu, vram, speed = PRESETS[
        name
    ]
    quant_file = "InfiniteTalk/quant_models/infinitetalk_single_fp8.safetensors" if quant else None
    assert settings_with_preset(name) == Settings(
        preset=name,
        lora_dir=lora,
        lora_scale=(scale,),
        quant=quant,
        quant_dir=quant_file,
        size=f"infinitetalk-{size}",
        sample_steps=steps,
        sample_shift=shift,
        sample_solver=solver,
        sample_text_guide_scale=text,
        sample_audio_guide_scale=audio,
        base_seed=seed,
        num_persistent_param_in_dit=kept,
        offload_model=offload,
        t5_cpu=t5_cpu,
        mode="streaming",
        frame_num=81,
        motion_frame=9,
        **OTHERS.get(name, {}),
    )
    about = load_preset(name).about
    assert about.peak_vram_gb == vram and about.speedup == speed
    assert (about.measured_speedup or 99) > (about.speedup or 1)
    assert about.title_en.isascii() and not about.title_zh.isascii() and about.output_name


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_allowed(name):
    assert resolve(settings_with_preset(name)).preset == name


def test_a_given_way_to_say_what_stays_takes_the_place_of_the_presets():
    settings = resolve(settings_with_preset("02_comfyui_equivalent", blocks_to_swap=0))
    assert (settings.blocks_to_swap, settings.num_persistent_param_in_dit) == (0, None)
    assert settings_with_preset("02_comfyui_equivalent", blocks_to_swap=None).num_persistent_param_in_dit == 0
    with pytest.raises(InputError, match="give one of them"):
        resolve(settings_with_preset("02_comfyui_equivalent", blocks_to_swap=0, num_persistent_param_in_dit=0))


def test_a_preset_without_its_lora_and_quantisation_runs():
    settings = resolve(settings_with_preset("03_balanced", lora_dir=None, quant=None))
    assert (settings.lora_scale, settings.quant_dir, settings.sample_steps) == ((1.2,), None, 8)


def test_an_own_lora_file_keeps_the_presets_scale():
    assert settings_with_preset("03_balanced", lora_dir=("mine.safetensors",)).lora_scale == (0.6,)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InputError, match="Did you mean 03_balanced\\?.*01_ultra_fast, .*06_720p_high_res"):
        settings_with_preset("balanced")
