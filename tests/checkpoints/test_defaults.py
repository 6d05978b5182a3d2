"""Where the models are that nobody names, and everything that is missing, at once."""

import shutil

import pytest
from infinitetalk.pipeline.checkpoints import lookup
from infinitetalk.pipeline.checkpoints.defaults import with_default_paths
from infinitetalk.pipeline.checkpoints.locate import find_transformer_files
from infinitetalk.pipeline.checkpoints.missing import missing_files, refuse_missing
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts import downloads
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.presets import load_preset, preset_names, settings_with_preset
from infinitetalk.tests.support.random_checkpoint import T5_FILE

LIGHTX2V, T2V = next(iter(downloads.STAND_INS.items()))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, and a clone that has no weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lookup, "_CLONE", tmp_path / "clone")
    return tmp_path


def test_the_guides_places_are_found_here_and_then_in_the_clone(here, weights):
    assert with_default_paths(Settings()) == Settings()
    shutil.copytree(weights.ckpt_dir.parent, here / "clone" / "weights")
    found = with_default_paths(Settings())
    assert found.ckpt_dir == here / "clone" / "weights" / weights.ckpt_dir.name
    assert found.infinitetalk_dir.is_file() and found.wav2vec_dir.is_dir()
    shutil.move(here / "clone" / "weights" / weights.ckpt_dir.name, here / "weights" / weights.ckpt_dir.name)
    found = with_default_paths(Settings())
    assert str(found.ckpt_dir) == f"weights/{weights.ckpt_dir.name}" and "clone" in str(found.wav2vec_dir)
    assert with_default_paths(found) == found and missing_files(found) == ()


def test_what_says_where_everything_is_stays_as_it_is(here, weights):
    shutil.copytree(weights.ckpt_dir.parent, here / "weights")
    shard = weights.ckpt_dir / "diffusion_pytorch_model-00001-of-00007.safetensors"
    single = {"text_encoder": T5_FILE, "clip_vision": "x.pth", "vae": "x.pth", "wav2vec_dir": "w"}
    whole = Settings.of({**single, "dit_path": weights.infinitetalk})
    assert with_default_paths(whole) == whole  # its file has audio layers
    assert with_default_paths(whole.replace(dit_path=shard)).infinitetalk_dir is not None
    assert with_default_paths(whole.replace(dit_path="nowhere")) == whole.replace(dit_path="nowhere")
    assert with_default_paths(whole.replace(vae=None)).ckpt_dir is not None


@pytest.mark.parametrize("name", preset_names())
def test_everything_that_a_preset_lacks_is_named_at_once(here, name):
    preset = load_preset(name)
    with pytest.raises(InputError) as error:
        refuse_missing(settings_with_preset(name), speech=True)
    text = str(error.value)
    assert text.splitlines()[-1].strip() == f"All of them: infinitetalk download --preset {name}"
    for part in preset.parts():
        (line,) = (row for row in text.splitlines() if f" {part.name} " in f" {row} " and part.address in row)
        assert "infinitetalk download" in line
    assert all(lora.name in text for lora in preset.as_settings().lora_dir or ())


def test_files_of_ones_own_are_named_beside_those_that_can_be_fetched(here, weights):
    settings = Settings(
        ckpt_dir=weights.ckpt_dir, wav2vec_dir=weights.wav2vec_dir, infinitetalk_dir=weights.infinitetalk
    )
    assert missing_files(settings) == ()
    settings = settings.replace(vae="mine.pth", lora_dir=("style.safetensors",), wav2vec_dir=None)
    with pytest.raises(InputError) as error:
        refuse_missing(settings, speech=True)
    assert str(error.value).splitlines() == [
        "3 things are missing:",
        "  --vae: mine.pth: check the name",
        "  --lora_dir: style.safetensors: check the name",
        f"  --wav2vec_dir, or weights/chinese-wav2vec2-base: {downloads.SPEECH_ENCODER}",
        "  All of them: infinitetalk download wav2vec",
    ]
    refuse_missing(settings.replace(vae=None, lora_dir=None), speech=True)  # one alone is told where it is looked for


def test_the_guides_other_lora_stands_in(here, weights):
    (here / "weights").mkdir()
    named = Settings(ckpt_dir=weights.ckpt_dir, lora_dir=(f"weights/{LIGHTX2V}",))
    with pytest.raises(InputError, match=f"lightx2v .* or, in its place, infinitetalk download {'lightx2v_t2v'} "):
        find_transformer_files(named)
    (here / "weights" / T2V).touch()
    for lora in (f"weights/{LIGHTX2V}", LIGHTX2V):
        files = find_transformer_files(named.replace(lora_dir=(lora,)))
        assert files.loras[0].name == T2V
    with pytest.raises(InputError, match="does not exist"):  # a place of one's own means that file
        find_transformer_files(named.replace(lora_dir=(here / "mine" / LIGHTX2V,)))
    (here / "weights" / LIGHTX2V).touch()
    assert find_transformer_files(named).loras[0].name == LIGHTX2V


def test_in_comfyui_parts_for_its_folders_are_named_by_widgets(here, weights):
    shard = weights.ckpt_dir / "diffusion_pytorch_model-00001-of-00007.safetensors"
    with pytest.raises(InputError) as error:
        refuse_missing(Settings(dit_path=shard, infinitetalk_dir=weights.infinitetalk), speech=False, comfy=True)
    lines = str(error.value).splitlines()
    assert [line.split(": infinitetalk")[0].strip() for line in lines[1:4]] == [
        "text_encoder: none is chosen",
        "clip_vision: none is chosen",
        "vae: none is chosen",
    ]
    assert lines[-1].strip() == "All of them: infinitetalk download umt5_fp8 clip_vision_h wan_vae --comfyui DIR"
