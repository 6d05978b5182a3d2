"""``infinitetalk completion``: what bash offers is what the parsers know; other shells get the same words."""

import subprocess

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.commands.table import COMMANDS
from infinitetalk.pipeline.settings.definition import setting_infos
from infinitetalk.pipeline.settings.presets import preset_names


def script(capsys, shell):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "words, offered",
    [
        (["infinitetalk", "do"], {"download", "doctor"}),
        (["infinitetalk", ""], set(COMMANDS)),
        (["infinitetalk", "--sample_st"], {"--sample_steps", "--sample_start_step"}),
        (["infinitetalk", "generate", "--quant", ""], {"fp8", "int8"}),
        (["infinitetalk", "--preset", "0"], set(preset_names())),
        (["infinitetalk", "export", "--sh"], {"--shell"}),
        (["infinitetalk", "info", "--lang", ""], {"en", "zh"}),
        (["infinitetalk", "info", "a"], set()),
    ],
)
def test_bash_offers(capsys, words, offered):
    ask = f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; _infinitetalk"
    text = script(capsys, "bash") + f"\n{ask}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered and done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_every_shell_knows_every_flag_and_command(capsys, shell):
    text = script(capsys, shell)
    assert all(name in text for name in (*COMMANDS, *setting_infos(), *preset_names()))
    assert max(map(len, text.splitlines())) < 20_000
