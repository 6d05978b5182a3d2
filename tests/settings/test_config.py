"""infinitetalk.toml and presets of one's own: what wins, what is recorded, what is refused."""

from pathlib import Path

import pytest
from infinitetalk.pipeline.commands.doctor import examine
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.settings.config import find_config
from infinitetalk.pipeline.settings.flags import build_parser, config_of, parse, settings_from, to_argv

TEXT = """
[settings]
ckpt_dir = "models/base"
blocks_to_swap = 20
quiet = true

[presets.mine]
sample_steps = 8
size = "320x320"
blocks_to_swap = 10
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "user"))
    return tmp_path


def settings_of(*words):
    args = build_parser().parse_args(list(words))
    return settings_from(args, config_of(args))


def test_flags_win_over_the_preset_over_the_config_over_the_defaults(folder):
    Path("infinitetalk.toml").write_text(TEXT)
    assert settings_of().blocks_to_swap == 20 and settings_of().quiet and settings_of().ckpt_dir == Path("models/base")
    assert settings_of("--preset", "mine").blocks_to_swap == 10 and settings_of("--preset", "mine").sample_steps == 8
    assert settings_of("--preset", "mine", "--blocks_to_swap", "5").blocks_to_swap == 5
    assert settings_of("--config", "none") == parse([])
    preset = settings_of("--preset", "01_ultra_fast")
    assert preset.num_persistent_param_in_dit == 0 and preset.blocks_to_swap is None
    assert settings_of("--preset", "demo").ckpt_dir == parse(["--preset", "demo"]).ckpt_dir


def test_the_working_folders_counts_then_the_users(folder):
    user = folder / "user" / "infinitetalk" / "infinitetalk.toml"
    user.parent.mkdir(parents=True)
    user.write_text("[settings]\nwav2vec_dir = 'w'\n")
    assert settings_of().wav2vec_dir == user.parent / "w"
    Path("infinitetalk.toml").write_text(TEXT)
    assert settings_of().wav2vec_dir is None
    assert settings_of("--config", str(user)).wav2vec_dir == user.parent / "w"
    (line,) = (finding.found for finding in examine(quick=True) if finding.what == "config")
    assert "ckpt_dir, blocks_to_swap, quiet, preset mine" in line and "flags, then the preset, then the config" in line


def test_what_is_exported_means_the_same_when_the_config_is_another(folder):
    Path("infinitetalk.toml").write_text(TEXT)
    settings = settings_of("--preset", "mine")
    words = to_argv(settings)
    assert "mine" not in words and parse(words) == settings
    Path("infinitetalk.toml").write_text(TEXT.replace("8", "9").replace("320x320", "64x64"))
    assert settings_of(*words).replace(quiet=False) == settings.replace(quiet=False)


def test_a_preset_of_ones_own_is_a_file(folder):
    Path("my.toml").write_text("[settings]\nsample_steps = 6\nlora_dir = ['a.safetensors']\nlora_scale = [0.5]\n")
    settings = parse(["--preset", "my.toml", "--sample_shift", "3"])
    assert (settings.sample_steps, settings.sample_shift, settings.preset) == (6, 3.0, None)
    assert parse(["--preset", "my.toml", "--lora_dir", "none"]).lora_scale == (1.2,)
    assert parse(to_argv(settings)) == settings


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("[settings]\nsample_steps = 4\n", "sets sample_steps, which may change the video of every command"),
        ("[settings]\nattention = 'sdpa'\n", "put it into [presets.NAME]"),
        ("[settings]\nimage = 'a.png'\n", "gives 'image', which is no setting for a file"),
        ("[settings]\nckpt_di = 'a'\n", "did you mean ckpt_dir?"),
        ("[setings]\n", "has an unknown table 'setings'"),
        ("settings = 3\n", "write name = value under [settings]"),
        ("presets = 3\n", "write [presets.NAME]"),
        ("[settings\n", "is not TOML in UTF-8"),
        ("[settings]\nblocks_to_swap = 'many'\n", "--blocks_to_swap: 'many' found, a whole number expected"),
    ],
)
def test_what_is_wrong_in_a_config_is_a_sentence(folder, capsys, text, sentence):
    Path("infinitetalk.toml").write_text(text)
    assert main(["--image", "a.png", "--audio", "b.wav"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("text, sentence", [(None, "cannot be read"), ("a = 1\n", "has no table [settings]")])
def test_a_preset_file_that_is_none(folder, text, sentence):
    if text is not None:
        Path("p.toml").write_text(text)
    with pytest.raises(InputError, match="--preset: p.toml") as error:
        parse(["--preset", "p.toml"])
    assert sentence in str(error.value).replace("\\", "")
    with pytest.raises(InputError, match="--config: nowhere.toml cannot be read"):
        find_config("nowhere.toml")
