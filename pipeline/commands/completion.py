"""``infinitetalk completion SHELL``: commands, flags and their choices for a shell's completion, out of the parsers.

The script is text that the shell keeps; nothing is run while somebody types. Imports nothing heavy.
"""

from __future__ import annotations

import argparse

from ..settings.flags import Parser
from .console import say
from .log import LEVELS
from .table import COMMANDS, USUAL

_PRESET = "preset"
Flags = dict[str, tuple[str, ...]]  # a flag -> its choices, none where any text goes


def parser() -> Parser:
    """The flags of the command."""
    found = Parser(
        "infinitetalk completion",
        "SHELL",
        "Prints a script that completes commands, flags and their choices.",
        'bash: eval "$(infinitetalk completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc;\n'
        "fish: infinitetalk completion fish > ~/.config/fish/completions/infinitetalk.fish;\n"
        "PowerShell: infinitetalk completion powershell | Out-String | Invoke-Expression, in $PROFILE.",
    )
    found.add_argument("shell", choices=tuple(_SCRIPTS), metavar="SHELL", help=", ".join(_SCRIPTS))
    return found


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    say(_SCRIPTS[args.shell]({name: flags_of(name) for name in COMMANDS}).rstrip())
    return 0


def flags_of(name: str) -> Flags:
    """The long flags of a command, and what may follow each."""
    from ..settings.presets import DEMO, preset_names

    found: Flags = {}
    for action in COMMANDS[name].load().parser()._actions:
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        choices = tuple(map(str, action.choices or ()))
        if metavar.startswith("{"):
            choices = tuple(metavar.strip("{}").split(","))
        for option in action.option_strings:
            if option.startswith("--"):
                found[option] = (*preset_names(), DEMO) if option == f"--{_PRESET}" else choices
    return {**found, "--lang": ("en", "zh"), "--log_level": LEVELS, "--log_file": ()}


def _bash(commands: dict[str, Flags]) -> str:
    choices = [
        f"    '{name} {flag}') words='{' '.join(values)}' ;;"
        for name, flags in commands.items()
        for flag, values in flags.items()
        if values
    ]
    flags = [f"    {name}) words='{' '.join(known)}' ;;" for name, known in commands.items()]
    return "\n".join(
        [
            "_infinitetalk() {",
            "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words='' command=" + USUAL,
            f"  case ' {' '.join(commands)} ' in *\" ${{COMP_WORDS[1]}} \"*) command=${{COMP_WORDS[1]}} ;; esac",
            '  case "$command $prev" in',
            *choices,
            "  esac",
            '  if [ -z "$words" ] && [ "${cur:0:1}" = - ]; then',
            '    case "$command" in',
            *flags,
            "    esac",
            '  elif [ -z "$words" ] && [ "$COMP_CWORD" -eq 1 ]; then',
            f"    words='{' '.join(commands)}'",
            "  fi",
            '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            "complete -o default -F _infinitetalk infinitetalk",
        ]
    )


def _zsh(commands: dict[str, Flags]) -> str:
    return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + _bash(commands)


def _fish(commands: dict[str, Flags]) -> str:
    named = f"__fish_seen_subcommand_from {' '.join(commands)}"
    lines = [
        f"complete -c infinitetalk -n 'not {named}' -a {name} -d '{_quoted(COMMANDS[name].line)}'" for name in commands
    ]
    for name, flags in commands.items():
        where = f"__fish_seen_subcommand_from {name}" + (f"; or not {named}" if name == USUAL else "")
        lines += [
            f"complete -c infinitetalk -n '{where}' -l {flag[2:]}" + (f" -x -a '{' '.join(values)}'" if values else "")
            for flag, values in flags.items()
        ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace("'", r"\'")


def _powershell(commands: dict[str, Flags]) -> str:
    tables = [
        "  '" + name + "' = @{ " + "; ".join(f"'{f}' = '{' '.join(v)}'" for f, v in flags.items()) + " }"
        for name, flags in commands.items()
    ]
    return "\n".join(
        [
            "Register-ArgumentCompleter -Native -CommandName infinitetalk -ScriptBlock {",
            "  param($word, $ast, $at)",
            "  $all = @{",
            *tables,
            "  }",
            "  $said = @($ast.CommandElements | ForEach-Object { $_.ToString() })",
            "  $before = @($said | Where-Object { $_ -ne $word })",
            f"  $command = '{USUAL}'",
            "  if ($before.Count -gt 1 -and $all.ContainsKey($before[1])) { $command = $before[1] }",
            "  $values = $all[$command][$before[-1]]",
            "  $words = if ($values) { $values -split ' ' }",
            "    elseif ($word -like '-*') { $all[$command].Keys }",
            "    elseif ($before.Count -eq 1) { $all.Keys }",
            '  $words | Where-Object { $_ -like "$word*" } | Sort-Object |',
            "    ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }",
            "}",
        ]
    )


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish, "powershell": _powershell}
