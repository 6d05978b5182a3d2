"""Settings as command line flags, both ways: a parser made from ``Settings``, and ``to_argv``.

Knows names, types and help texts of settings, and what a preset does; judges no values
(``validation``) and does nothing with them.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Never

from ..errors import InputError
from ..facts.language import setting_help, spoken
from .config import FOLDERS, Config, find_config
from .definition import Settings, setting_infos, setting_types
from .presets import DEMO, load_preset, preset_names, settings_with_preset, settings_with_values
from .roles import SettingInfo, SettingType, Single, Value, Values

HEADINGS = ("usage:", "positional arguments:", "options:", "show this help message and exit")
TRUE_WORDS = ("true", "yes", "on", "1", "t", "y")
FALSE_WORDS = ("false", "no", "off", "0", "f", "n")
NONE_WORD = "none"
NEAR = 0.7  # how alike a word must be to a flag's name to be taken for a slip, from 0 to 1
SHORTEST = 3  # letters
MEANT = {  # words of other programs
    **dict.fromkeys(("o", "out", "output", "output_path", "output_dir"), "save_file"),
    **dict.fromkeys(("cfg", "cfg_scale", "guidance", "guidance_scale", "text_cfg"), "sample_text_guide_scale"),
    **dict.fromkeys(("audio_cfg", "audio_cfg_scale"), "sample_audio_guide_scale"),
    **dict.fromkeys(("width", "height", "resolution"), "size"),
    **dict.fromkeys(("num_frames", "frames", "length"), "max_frame_num"),
    **dict.fromkeys(("i", "img", "portrait", "reference"), "image"),
    **dict.fromkeys(("a", "wav", "speech", "sound"), "audio"),
    **dict.fromkeys(("p", "text"), "prompt"),
    **dict.fromkeys(("n", "neg"), "negative_prompt"),
    **dict.fromkeys(("q", "silent"), "quiet"),
    **dict.fromkeys(("f", "y", "force"), "overwrite"),
}
WORDS = "--ckpt_dir DIR --infinitetalk_dir FILE --wav2vec_dir DIR [flags]"
DESCRIPTION = "Makes a talking video of any length from a portrait or a video, and speech."
EPILOG = """\
A picture and a voice, with the models of a preset, which are looked for under weights/:
  infinitetalk download --preset 02_comfyui_equivalent
  infinitetalk --preset 02_comfyui_equivalent --image me.png --audio speech.wav --save_file talking

Presets: {presets}; {demo} is for the small model that is inside.
Switches take an optional true or false. A flag whose default is none takes the word none, which undoes
what a preset sets. docs/settings.md has everything in one table; infinitetalk help lists the other commands.
"""

_CONFIG_HELP = "infinitetalk.toml with folders and own presets (left out: here, else the user's; none: no config)"
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH", bool: "true|false"}


class Parser(argparse.ArgumentParser):
    """argparse, but bad input is an InputError and ends nothing, and an unknown flag gets the nearest.

    Args:
        prog: how the command is called.
        words: what follows in its usage.
        description: what it does.
        epilog: what is to be said after the flags.
    """

    def __init__(self, prog: str, words: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} {words}".rstrip(),
            description=spoken(description),
            epilog=spoken(epilog),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=118),
            allow_abbrev=False,
        )

    def format_help(self) -> str:
        text = super().format_help()
        for heading in HEADINGS:
            text = text.replace(heading, spoken(heading), 1)
        return text

    def error(self, message: str) -> Never:
        raise InputError(f"{message.removeprefix('argument ')}; {self._hint()}")

    def _hint(self) -> str:
        """Where words have places, they are few enough to be told whole."""
        placed = any(not action.option_strings for action in self._actions)
        return f"usage: {self.usage}" if placed else "--help lists all flags."

    def parse_args(self, words: list[str]) -> argparse.Namespace:  # type: ignore[override]
        """What the words give.

        Raises:
            InputError: an unknown flag, a word too many or too few, a value of the wrong type.
        """
        known, unknown = self.parse_known_args(words)
        if unknown:
            flags = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            raise InputError(_unknown_sentence(unknown[0], [flag for flag in flags if flag != "help"], self._hint()))
        return known


def parse(argv: list[str]) -> Settings:
    """The settings that these flags give: flags win over the preset, the preset over the defaults.

    Raises:
        InputError: an unknown flag (suggests the nearest), a value of the wrong type, an unknown preset.
    """
    return settings_from(build_parser().parse_args(argv))


def settings_from(args: argparse.Namespace, config: Config | None = None) -> Settings:
    """The settings that the result of a parser from ``with_settings`` gives; see ``parse``.

    Args:
        config: what counts where flags and preset say nothing, and presets of one's own.

    Raises:
        InputError: an unknown preset.
    """
    config = config or Config()
    values = [(name, value) for name, value in vars(args).items() if name in setting_types()]
    given = {name: _several(value) if isinstance(value, list) else value for name, value in values if name != "preset"}
    preset = getattr(args, "preset", None)
    if preset in config.presets:
        settings, named = settings_with_values(config.presets[preset], given), set(config.presets[preset])
    else:
        settings = _implied(preset, given)
        named = set() if preset is None else set(load_preset(preset).settings)
    for ways in (("blocks_to_swap", "num_persistent_param_in_dit"), ("dit_path", "infinitetalk_dir")):
        named |= set(ways) if named & set(ways) or given.keys() & set(ways) else set()
    left = {name: value for name, value in config.settings.items() if name not in given and name not in named}
    if settings.quant_dir is not None:  # may hold everything
        left.pop("infinitetalk_dir", None)
    if settings.preset == DEMO:  # brings its own models
        left = {name: value for name, value in left.items() if name not in FOLDERS}
    return settings.replace(**left)


def config_of(args: argparse.Namespace) -> Config:
    """The config that the flags name, or the one that lies where it is looked for."""
    return find_config(getattr(args, "config", None))


def _several(values: list[Single | None]) -> tuple[Single | None, ...] | None:
    return None if values == [None] else tuple(values)


def build_parser() -> Parser:
    """A parser of all settings, whose result holds only the flags that were given."""
    epilog = EPILOG.format(presets=", ".join(preset_names()), demo=DEMO)
    return with_settings(Parser("infinitetalk [generate]", WORDS, DESCRIPTION, epilog), setting_types())


def with_settings(parser: Parser, names: Collection[str], helps: Mapping[str, str] = MappingProxyType({})) -> Parser:
    """The parser, with flags for the settings of these names; its result is for ``settings_from``.

    Args:
        helps: what some of them mean to this command.
    """
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=spoken(_CONFIG_HELP))
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, info in setting_infos().items():
        if name not in names:
            continue
        if info.group not in groups:
            groups[info.group] = parser.add_argument_group(spoken(info.group))
        told = dataclasses.replace(info, help=helps.get(name) or setting_help(name, info.help))
        _add_flag(groups[info.group], name, told, setting_types()[name], getattr(Settings, name))
    return parser


def _add_flag(
    group: argparse._ArgumentGroup, name: str, info: SettingInfo, expected: SettingType, default: Value
) -> None:
    switch = expected.kind is bool and not expected.several
    metavar = "{" + ",".join(info.choices) + "}" if info.choices else _METAVARS[expected.kind]
    group.add_argument(
        f"--{name}",
        type=lambda text: value_from_text(name, text),
        metavar=metavar,
        help=describe_setting(info, default).replace("%", "%%"),
        default=argparse.SUPPRESS,
        action="extend" if expected.several else "store",
        nargs="+" if expected.several else "?" if switch else None,
        const=True if switch else None,
    )


def describe_setting(info: SettingInfo, default: Value) -> str:
    """Help, unit, default, and whether the feature is there, in one line."""
    text = info.help
    if info.unit:
        text += f" [{info.unit}]"
    if default is not None and default is not False:
        text += f" ({spoken('default')}: {value_to_text(default)})"
    return text + ("" if info.landed else f" ({spoken('not available yet')})")


def value_from_text(name: str, text: str) -> Single | None:
    """One value of the setting ``name``, as written on a command line.

    Raises:
        InputError: the text is not of the setting's type.
    """
    expected = setting_types()[name]
    if expected.optional and not setting_infos()[name].free_text and text.lower() == NONE_WORD:
        return None
    if expected.kind is bool:
        if text.lower() in TRUE_WORDS + FALSE_WORDS:
            return text.lower() in TRUE_WORDS
        raise InputError(f"--{name}: {text!r} found, true or false (or nothing) expected.")
    if expected.kind in (int, float):
        try:
            return expected.kind(text)
        except ValueError:
            number = "a whole number" if expected.kind is int else "a number"
            raise InputError(f"--{name}: {text!r} found, {number} expected.") from None
    return expected.kind(text)


def value_to_text(value: Value) -> str:
    """A value as ``value_from_text`` reads it; several are separated by spaces."""
    if isinstance(value, tuple):
        return " ".join(value_to_text(single) for single in value)
    if isinstance(value, Path) and (str(value).lower() == NONE_WORD or str(value) == "--"):
        return f"./{value}"  # a file of that name, not the word; and argparse drops "--"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def to_argv(settings: Settings, full: bool = False) -> list[str]:
    """Flags that ``parse`` turns into these settings again.

    Args:
        full: every setting that has a value, not only those that differ from the preset and the defaults.
    """
    given = _differences(settings, _implied(settings.preset, {}))
    # Undoing a preset's LoRA undoes its scale as well, so what these flags imply is looked at once more.
    given |= _differences(settings, _implied(settings.preset, given))
    if full:
        given |= {name: getattr(settings, name) for name in setting_types() if getattr(settings, name) is not None}
    argv = [] if settings.preset is None else ["--preset", settings.preset]
    for name, expected in setting_types().items():
        no_word = setting_infos()[name].free_text and given.get(name) is None  # any word would be a text
        if name in given and name != "preset" and not no_word:
            argv += _flag_to_argv(name, given[name], expected)
    return argv


def _implied(preset: str | None, given: Mapping[str, object]) -> Settings:
    return Settings.of(given) if preset is None else settings_with_preset(preset, **given)


def _differences(settings: Settings, base: Settings) -> Values:
    return {name: getattr(settings, name) for name in setting_types() if getattr(settings, name) != getattr(base, name)}


def _flag_to_argv(name: str, value: Value, expected: SettingType) -> list[str]:
    if value is True and not expected.optional:
        return [f"--{name}"]
    texts = [value_to_text(single) for single in (value if isinstance(value, tuple) else (value,))]
    if any(text.startswith("-") for text in texts):  # would be read as a flag
        return [f"--{name}={text}" for text in texts]
    return [f"--{name}", *texts]


def _alike(name: str, names: list[str]) -> list[str]:
    """The flag whose name has this word in it, or is nearly it; a letter or two are like nothing."""
    if len(name) < SHORTEST:
        return []
    within = sorted((known for known in names if name in known.split("_") or known.startswith(name)), key=len)
    within = within or sorted((known for known in names if name in known), key=len)
    return within or difflib.get_close_matches(name, names, n=1, cutoff=NEAR)


def _unknown_sentence(argument: str, names: list[str], otherwise: str) -> str:
    flag = argument.split("=")[0]
    # Dashes of every kind, and - for _, come from copied text.
    name = flag.lstrip("-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}").replace("-", "_")
    near = [MEANT[name]] if MEANT.get(name) in names else _alike(name, names)
    hint = f"did you mean --{near[0]}?" if near else otherwise
    if flag.startswith("--"):
        return f"{flag} is not a flag; {hint}"
    if not names:
        return f"{argument!r} found, nothing expected."
    return f"{argument!r} stands where a flag was expected; {hint}"
