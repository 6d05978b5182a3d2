"""Flags to settings and back, and what wins over what."""

import dataclasses
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from infinitetalk.pipeline.settings.definition import Settings, setting_infos, setting_types
from infinitetalk.pipeline.settings.flags import build_parser, parse, to_argv
from infinitetalk.pipeline.settings.presets import preset_names, settings_with_preset


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], False),
        (["--t5_cpu"], True),
        (["--t5_cpu", "true"], True),
        (["--t5_cpu", "False"], False),
        (["--t5_cpu", "YES"], True),
        (["--t5_cpu", "no"], False),
        (["--t5_cpu=1"], True),
        (["--t5_cpu", "0"], False),
        (["--t5_cpu", "--quiet"], True),
    ],
)
def test_switches_take_an_optional_value(argv, value):
    assert parse(argv).t5_cpu is value


def test_offload_model_may_be_left_undecided():
    assert parse([]).offload_model is None
    assert parse(["--offload_model", "true"]).offload_model is True
    assert parse(["--offload_model", "none"]).offload_model is None


def test_several_values_stand_behind_one_flag_or_behind_several():
    expected = (Path("a"), Path("b"))
    assert parse(["--lora_dir", "a", "b"]).lora_dir == expected
    assert parse(["--lora_dir", "a", "--lora_dir", "b"]).lora_dir == expected
    assert parse(["--lora_scale", "-0.5", "1"]).lora_scale == (-0.5, 1.0)


def test_given_flags_win_over_the_preset_and_the_preset_over_the_defaults():
    settings = parse(["--base_seed", "7", "--preset", "02_comfyui_equivalent", "--max_frame_num", "none"])
    assert (settings.base_seed, settings.max_frame_num) == (7, None)
    assert settings == settings_with_preset("02_comfyui_equivalent", base_seed=7, max_frame_num=None)
    # a flag that repeats the default is given all the same
    assert parse(["--preset", "01_ultra_fast", "--sample_text_guide_scale", "5"]).sample_text_guide_scale == 5


def test_the_word_none_is_a_prompt_like_any_other():
    assert parse(["--prompt", "none"]).prompt == "none"


def test_the_parser_has_a_flag_for_every_setting_and_no_other():
    # private, but argparse lists its flags nowhere else
    flags = {option for action in build_parser()._actions for option in action.option_strings}
    assert flags - {"-h", "--help", "--config"} == {f"--{name}" for name in setting_types()}


def _texts():
    # argparse of Python 3.11 and 3.12 drops a value that is just "--"; NUL cannot be on a command line
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(lambda text: text != "--")


def _values(name):
    info, expected = setting_infos()[name], setting_types()[name]
    if info.choices:
        single = st.sampled_from(info.choices)
    else:
        single = {
            bool: st.booleans(),
            int: st.integers(None if info.min is None else int(info.min), info.max),
            float: st.floats(info.min, info.max, allow_nan=False, allow_infinity=False),
            str: _texts() if info.free_text else _texts().filter(lambda text: text.lower() != "none"),
            Path: st.sampled_from(["none", "a b", "-a", "--x", "~/\N{SNOWMAN}", ".", "x=y", "--a b"]).map(Path),
        }[expected.kind]
    values = st.lists(single, min_size=1, max_size=3).map(tuple) if expected.several else single
    return st.none() | values if expected.optional else values


SETTINGS = {name: _values(name) for name in setting_types() if name != "preset"}


@hypothesis.settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=SETTINGS), st.sampled_from([None, *preset_names()]), st.booleans())
def test_settings_survive_the_way_to_flags_and_back(values, preset, full):
    settings = Settings(**values) if preset is None else Settings(**{**_preset_values(preset), **values})
    argv = to_argv(settings, full=full)
    assert all(isinstance(word, str) for word in argv)
    assert parse(argv) == settings


def _preset_values(preset):
    return {field.name: getattr(settings_with_preset(preset), field.name) for field in dataclasses.fields(Settings)}


def test_default_settings_need_no_flags_and_a_preset_only_its_name():
    assert to_argv(Settings()) == []
    assert to_argv(settings_with_preset("03_balanced")) == ["--preset", "03_balanced"]
    assert "--frame_num" in to_argv(Settings(), full=True)
