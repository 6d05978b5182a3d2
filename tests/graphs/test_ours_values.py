"""Where the values of our own nodes come from: files in ComfyUI's folders, presets, and what is linked."""

from pathlib import Path

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.command import command
from infinitetalk.pipeline.facts.downloads import STAND_INS
from infinitetalk.pipeline.graphs import ours, widgets
from infinitetalk.pipeline.graphs.places import FolderFiles
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.presets import load_preset, preset_names
from infinitetalk.tests.support.our_graphs import exported, graph, node


def with_preset(name, *owners):
    made = graph({"9": node("InfiniteTalkPreset", preset=name)}, crf=0)
    for owner in owners:
        made[owner]["inputs"]["preset"] = ["9", 0]
    return made


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_that_rules_both_is_named(name):
    found = exported(with_preset(name, "4", "5"))
    for setting, value in load_preset(name).settings.items():
        if setting not in ("task", "lora_dir", "quant_dir", "base_seed"):
            assert getattr(found.settings, setting) == (tuple(value) if isinstance(value, list) else value)
    text = command(found, "sh").text
    assert f"--preset {name}" in text and "--crf 0" in text and "--sample_steps" not in text


def test_a_preset_that_rules_one_of_them_gives_its_values_there_only():
    loader = exported(with_preset("01_ultra_fast", "4")).settings
    assert (loader.preset, loader.quant, loader.sample_steps) == (None, "fp8", None)
    sampler = exported(with_preset("01_ultra_fast", "5")).settings
    assert (sampler.preset, sampler.quant, sampler.sample_steps, sampler.lora_dir) == (None, None, 4, None)


@pytest.fixture
def comfyui(tmp_path):
    """A ComfyUI with models in several folders, and one of them elsewhere."""
    base, other = tmp_path / "Comfy UI", tmp_path / "other models"
    for path in (
        *(base / "models/diffusion_models/base.safetensors", base / "models/unet/sub/talk.safetensors"),
        *(base / "models/audio_encoders/wav2vec/model.safetensors", base / "input/portrait.png"),
        *(base / "output/said.wav", other / "loras/deep/x.safetensors", other / "vaes/vae.safetensors"),
        base / "models/loras/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (base / "extra_model_paths.yaml").write_text(
        f"a111:\n  base_path: {other}\n  loras: |\n    nothing\n    loras\n  vae: vaes\n  is_default: true\nempty:\n"
    )
    return base


def test_files_are_looked_up_in_comfyuis_folders(comfyui, tmp_path):
    lora = {"6": node("InfiniteTalkLoRA", lora="deep/x.safetensors", scale=1)}
    made = graph(lora, infinitetalk_dir="sub\\talk.safetensors", vae="vae.safetensors")
    made["4"]["inputs"]["lora"], made["2"]["inputs"]["audio"] = ["6", 0], "said.wav [output]"
    found = exported(made, FolderFiles(comfyui))
    settings = found.settings
    assert settings.infinitetalk_dir == comfyui / "models/unet/sub/talk.safetensors"
    assert settings.wav2vec_dir == comfyui / "models/audio_encoders/wav2vec"
    assert settings.lora_dir == (tmp_path / "other models/loras/deep/x.safetensors",)
    assert settings.vae == tmp_path / "other models/vaes/vae.safetensors"
    assert (settings.image, settings.audio) == (comfyui / "input/portrait.png", comfyui / "output/said.wav")
    assert found.notes == ()


def test_a_folder_is_a_checkpoint(comfyui):
    (comfyui / "models/diffusion_models/Wan2.1-I2V-14B-480P").mkdir()
    (comfyui / "input/speech.wav").touch()
    made = graph(dit_path="Wan2.1-I2V-14B-480P", infinitetalk_dir="sub/talk.safetensors")
    settings = exported(made, FolderFiles(comfyui)).settings
    assert (settings.ckpt_dir.name, settings.dit_path) == ("Wan2.1-I2V-14B-480P", None)
    assert exported(made).settings.ckpt_dir == Path("weights/Wan2.1-I2V-14B-480P")


def test_a_presets_lora_is_found_and_missing_files_are_named(comfyui):
    (comfyui / "input/speech.wav").touch()
    made = with_preset("01_ultra_fast", "4")
    made["4"]["inputs"]["infinitetalk_dir"] = "sub/talk.safetensors"
    with pytest.raises(InputError, match="01_ultra_fast needs infinitetalk_single_fp8.safetensors"):
        exported(made, FolderFiles(comfyui))
    quantised = comfyui / "models/diffusion_models/quant_models/infinitetalk_single_fp8.safetensors"
    quantised.parent.mkdir()
    quantised.touch()
    settings = exported(made, FolderFiles(comfyui)).settings
    assert settings.quant_dir == quantised and settings.lora_dir[0].parent == comfyui / "models/loras"
    made["4"]["inputs"]["vae"] = "gone.safetensors"
    with pytest.raises(InputError, match="--vae: 'gone.safetensors' is not in .*models/vae"):
        exported(made, FolderFiles(comfyui))
    with pytest.raises(InputError, match="no folder models"):
        FolderFiles(comfyui / "models")


def test_a_presets_lora_may_be_stood_in_for(comfyui):
    (comfyui / "input/speech.wav").touch()
    (comfyui / "models/diffusion_models/infinitetalk_single_fp8.safetensors").touch()
    made = with_preset("01_ultra_fast", "4")
    made["4"]["inputs"]["infinitetalk_dir"] = "sub/talk.safetensors"
    own, other = next(iter(STAND_INS.items()))
    (comfyui / "models/loras" / own).rename(comfyui / "elsewhere")
    with pytest.raises(InputError, match=f"needs {own}.*nor is {other}, .*infinitetalk download --preset"):
        exported(made, FolderFiles(comfyui))
    (comfyui / "models/loras" / other).touch()
    assert exported(made, FolderFiles(comfyui)).settings.lora_dir == (comfyui / "models/loras" / other,)
    (comfyui / "elsewhere").rename(comfyui / "models/loras" / own)
    assert exported(made, FolderFiles(comfyui)).settings.lora_dir == (comfyui / "models/loras" / own,)


def test_the_demo_names_the_bundled_files():
    made = graph({"8": node("InfiniteTalkDemo")}, dit_path=widgets.DEMO, infinitetalk_dir=widgets.DEMO)
    made["5"]["inputs"]["image"], made["3"]["inputs"] = ["8", 0], {"audio": ["8", 1], "wav2vec_dir": widgets.DEMO}
    found = exported(made)
    assert (found.settings.image, found.settings.audio) == (ours.PORTRAIT, ours.SPEECH)
    assert found.settings.ckpt_dir.is_dir() and found.settings.wav2vec_dir.is_dir() and found.notes == ()


@pytest.mark.parametrize("prefix, name", [("a/b", "b"), ("x\\y:z", "y_z"), ("", "InfiniteTalk"), ("videos/", "videos")])
def test_the_videos_name_is_the_prefix_without_its_folder(prefix, name):
    assert exported(graph(filename_prefix=prefix)).settings.save_file == Path(name)


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_rules_the_seed(name):
    made = with_preset(name, "4", "5")
    made["5"]["inputs"]["base_seed"] = 77
    found = exported(made)
    assert found.settings.base_seed == 77 and parse(words(command(found, "sh").text)).base_seed == 77


def words(text):
    import shlex

    return shlex.split(text.replace("\\\n", " "))[2:]


LINKED = {
    "by a node": (["20", 0], {}),
    "by the page": (12, {widgets.BY_LINK: "crf sample_steps"}),  # which resolves what its own nodes hold
}


@pytest.mark.parametrize("way", LINKED)
def test_a_value_that_comes_by_a_link_wins_over_a_preset(way):
    given, more = LINKED[way]
    made = with_preset("04_high_quality", "4", "5")
    made["20"] = node("PrimitiveInt", value=12)
    made["5"]["inputs"] |= {"sample_steps": given, **more}
    found = exported(made)
    assert (found.settings.sample_steps, found.settings.sample_shift, found.settings.use_apg) == (12, 7.0, True)
    assert parse(words(command(found, "sh").text)).sample_steps == 12


def test_a_storage_that_comes_by_a_link_takes_no_file_of_the_preset():
    made = with_preset("02_comfyui_equivalent", "4", "5")
    made["20"] = node("PrimitiveString", value="none")
    made["4"]["inputs"]["quant"] = ["20", 0]
    found = exported(made).settings
    assert (found.quant, found.quant_dir) == (None, None) and found.lora_dir is not None


def test_what_a_widget_holds_itself_counts_as_soon_as_another_preset_is_linked():
    """A prompt has the widgets' own values: what one preset rules is not left behind for the next."""
    made = with_preset("02_comfyui_equivalent", "4", "5")
    assert exported(made).settings.max_frame_num == 1000
    made["9"]["inputs"]["preset"] = "04_high_quality"
    found = exported(made).settings
    assert (found.max_frame_num, found.quant, found.use_teacache, found.sample_steps) == (None, None, False, 40)
