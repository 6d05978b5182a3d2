"""``--preset demo``: what ``make demo`` always made, from a clone and from an install, and with files of one's own."""

from pathlib import Path

import pytest
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.demo import demo_settings
from infinitetalk.pipeline.settings.flags import parse, to_argv
from infinitetalk.pipeline.settings.presets import ASSETS, DEMO, load_preset, preset_names
from infinitetalk.pipeline.settings.validation import resolve

MODEL = ASSETS / "demo_model"
SPELT_OUT = [
    *("--ckpt_dir", MODEL / "Wan2.1-I2V-14B-480P", "--wav2vec_dir", MODEL / "chinese-wav2vec2-base"),
    *("--infinitetalk_dir", MODEL / "InfiniteTalk" / "single" / "infinitetalk.safetensors"),
    *("--lora_dir", MODEL / "demo_lora_4_steps.safetensors", "--lora_scale", 1, "--seam_frames", 4),
    *("--image", ASSETS / "drawn_portrait.png", "--audio", ASSETS / "speech.wav"),
    *("--prompt", "A woman is talking to the camera.", "--size", "192x192", "--sample_steps", 4, "--sample_shift", 5),
    *("--sample_text_guide_scale", 1, "--sample_audio_guide_scale", 1),
]


def test_the_preset_is_the_flags_spelt_out():
    settings = parse(["--preset", DEMO])
    assert settings.replace(preset=None) == parse([str(word) for word in SPELT_OUT])
    assert resolve(settings).base_seed == 42
    for path in (settings.ckpt_dir, settings.infinitetalk_dir, settings.wav2vec_dir, *settings.lora_dir):
        assert path.is_absolute() and path.exists()
    assert settings.image.is_file() and settings.audio.is_file()


def test_it_is_not_offered_for_real_work():
    assert DEMO not in preset_names() and load_preset(DEMO).about.title_en


OWN = {
    "a picture": ["--image", "me.png"],
    "a video": ["--video", "me.mp4"],
    "a JSON": ["--input_json", "mine.json"],
    "no LoRA": ["--lora_dir", "none"],
    "nothing": [],
}


@pytest.mark.parametrize("name", OWN)
def test_files_of_ones_own_win_and_the_flags_say_so_again(name):
    settings = parse(["--preset", DEMO, *OWN[name]])
    assert parse(to_argv(settings)) == settings
    assert parse(to_argv(settings, full=True)) == settings
    if name == "a video":
        assert (settings.image, settings.video) == (None, Path("me.mp4"))
    if name == "a JSON":
        assert (settings.image, settings.audio, settings.prompt) == (None, None, None)
    if name == "no LoRA":
        assert settings.lora_scale == Settings().lora_scale


def test_in_python_it_has_no_job_and_no_lora():
    settings = demo_settings(seam_frames=0, base_seed=7)
    assert (settings.preset, settings.image, settings.prompt, settings.lora_dir) == (None, None, None, None)
    assert (settings.size, settings.sample_steps, settings.seam_frames, settings.base_seed) == ("192x192", 4, 0, 7)
