"""``run_configs/``: the presets as scripts in the exporter's full form, and a menu of them.

``python -m infinitetalk.scripts.write_run_configs`` writes them; nobody else does. They name
the guide's paths under ``weights/`` and the bundled example, and run from anywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..pipeline.export.command import flags, line
from ..pipeline.settings.presets import Preset, load_preset, preset_names, settings_with_preset
from ..pipeline.settings.roles import Values

ROOT = Path(__file__).parent.parent
FOLDER = "run_configs"
WEIGHTS = Path("weights")
EXAMPLE = Path("examples/single_example_image.json")
BEGIN = """\
#!/usr/bin/env bash
# {title_en} / {title_zh}
# {promise}
# Flags given to this script come last and win: {name}.sh --image me.png --audio speech.wav --prompt "..."
# Paths are those of the clone. Written by python -m infinitetalk.scripts.write_run_configs.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${{PYTHON:-}}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python; fi
fi

exec """
MENU = Path(__file__).parent / "menu.sh"  # with <LINES> and <CASES> for the presets


def files() -> dict[str, str]:
    """Content of every script, by path in the project."""
    presets = [load_preset(name) for name in preset_names()]
    made = {f"{FOLDER}/{preset.name}.sh": script(preset) for preset in presets}
    return {**made, f"{FOLDER}/menu.sh": menu(presets)}


def script(preset: Preset) -> str:
    """The script of a preset."""
    named = {"ckpt_dir": "base", "infinitetalk_dir": "infinitetalk", "wav2vec_dir": "wav2vec"}
    weights: Values = {flag: WEIGHTS / preset.weights[name] for flag, name in named.items()}
    settings = preset.as_settings()
    if settings.lora_dir is not None:
        weights["lora_dir"] = tuple(WEIGHTS / file for file in settings.lora_dir)
    if settings.quant_dir is not None:
        weights["quant_dir"] = WEIGHTS / settings.quant_dir
    settings = settings_with_preset(preset.name, **weights).replace(
        preset=None, input_json=EXAMPLE, save_file=Path(preset.about.output_name)
    )
    about = preset.about
    # the words of a script: "$PYTHON" must stay as it is
    command = line(("generate_infinitetalk.py",), flags(settings, full=True), "sh", ('"$@"',))
    titles = {"title_en": about.title_en, "title_zh": about.title_zh}
    return BEGIN.format(name=preset.name, promise=promise(preset), **titles) + f'"$PYTHON" {command}\n'


def promise(preset: Preset) -> str:
    """What the preset is meant to need and to give."""
    about = preset.about
    speed = f"; {about.speedup} times as fast as 40 steps with three passes" if about.speedup is not None else ""
    return f"Meant for {about.peak_vram_gb} GB{speed}."


def menu(presets: list[Preset]) -> str:
    """The chooser."""
    width = max(len(preset.name) for preset in presets)
    lines = [
        f"  {number}  {preset.name:{width}}  {preset.about.peak_vram_gb:>2} GB  "
        f"{preset.about.title_en} / {preset.about.title_zh}"
        for number, preset in enumerate(presets, 1)
    ]
    cases = [f"    {n} | {preset.name}) choice={preset.name} ;;" for n, preset in enumerate(presets, 1)]
    return MENU.read_text(encoding="utf-8").replace("<LINES>", "\n".join(lines)).replace("<CASES>", "\n".join(cases))


def main() -> None:
    """Write all of them."""
    for name, content in files().items():
        path = ROOT / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")
        path.chmod(0o755)
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
