"""``infinitetalk convert``: the transformer of these settings in one file; ``converting`` does it.

What can be refused without PyTorch is refused before it is imported.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoints.defaults import with_default_paths
from ..checkpoints.locate import TransformerFiles, find_transformer_files
from ..errors import InputError
from ..job.output import check_output
from ..planning.checked import check_transformer
from ..run.progress import no_progress
from ..settings.definition import Settings, setting_infos
from ..settings.flags import Parser, config_of, settings_from, with_settings
from ..settings.roles import Role
from ..settings.validation import validate
from .console import progress_lines, say

# what it takes beside the models, and what some of it means here
BESIDE = ("preset", "device", "save_file", "overwrite", "quiet")
HELPS = {
    "save_file": "the file to write; .safetensors is added",
    "overwrite": "replace the file if it exists",
    "quiet": "print the file's path and nothing else",
    "preset": "take LoRAs and the storage from presets/NAME.toml; flags given beside it win",
    "quant": "how the matrices are kept: fp8 or int8, with a scale for each row",
}


def parser() -> Parser:
    """The settings that say which models, and where to write, as flags."""
    found = Parser(
        "infinitetalk convert",
        "--quant {fp8,int8} --save_file FILE --ckpt_dir DIR --infinitetalk_dir FILE [--lora_dir FILE ...]",
        "Writes the transformer with 8-bit matrices, LoRAs fused, into one file that loads in seconds.",
        "Take the file by --dit_path, without --infinitetalk_dir; or by --quant_dir.",
    )
    infos = setting_infos()
    weights = infos["ckpt_dir"].group
    models = [name for name, info in infos.items() if info.group == weights and Role.MODELS in info.roles]
    return with_settings(found, [*models, *BESIDE], HELPS)


def run(args: argparse.Namespace) -> int:
    """Write the file and print its name.

    Raises:
        InputError: see ``checked`` and ``converting.convert``.
    """
    settings = with_default_paths(validate(settings_from(args, config_of(args))))
    path, files = checked(settings)
    from .converting import convert

    say(str(convert(settings, files, path, no_progress if settings.quiet else progress_lines())), exact=True)
    return 0


def checked(settings: Settings) -> tuple[Path, TransformerFiles]:
    """The file to write (.safetensors is added), and what it is made from.

    Raises:
        InputError: no --quant, files are missing, the file exists, or cannot be written.
    """
    if settings.quant is None:
        raise InputError("give --quant fp8 or --quant int8.")
    if settings.lora_mode == "side":
        raise InputError("LoRAs are fused into the file; leave --lora_mode side out.")
    if settings.save_file is None:
        raise InputError("give --save_file, the name of the file to write.")
    path = settings.save_file
    path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
    files = find_transformer_files(settings)
    check_transformer(files, settings)
    check_output(path, settings.overwrite, tuple(filter(None, (files.base, files.infinitetalk, *files.loras))))
    return path, files
