"""Why a window is not finite: looks which of the loaded files holds NaN, and names what else may be the cause.

Reads all weights once more, which a run that has failed has time for. Knows files and settings, and no models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..checkpoints.files import Tensors, open_tensors
from ..checkpoints.locate import ModelFiles
from ..errors import InputError
from ..facts.attention import ATTENTION
from ..settings.definition import Settings
from .windows import NotFinite

_NO_WEIGHTS = ("tokenizer",)


def explained(error: NotFinite, settings: Settings, files: ModelFiles, dtype: str) -> InputError:
    """The same error with the file to blame, or with the usual causes.

    Args:
        dtype: that the transformer computes in, such as "float16".
    """
    found = next(_damaged(files), None)
    if found is not None:
        path, name = found
        return InputError(f"{error} {path} is damaged: its tensor {name} is not finite; download that file again.")
    rounds = settings.attention in ATTENTION and not ATTENTION[settings.attention].exact
    causes = [
        *(
            ["a LoRA that is too strong (--lora_scale) or does not belong here (--lora_dir)"]
            if files.transformer.loras
            else []
        ),
        *(["fp16 (--dtype)"] if dtype == "float16" else []),
        *(["8-bit attention (--attention)"] if rounds else []),
        *(["8-bit products (--quant_matmul)"] if settings.quant_matmul == "on" else []),
        "a file that is damaged without holding NaN (compare its size or checksum)",
    ]
    return InputError(f"{error} No loaded file holds NaN; what is left as the cause: {', or '.join(causes)}.")


def _damaged(files: ModelFiles) -> Iterator[tuple[Path, str]]:
    """Files that hold numbers that are not finite, each with the name of the first such tensor."""
    for model, path in files.by_name().items():
        if model in _NO_WEIGHTS:
            continue
        for source in _sources(path):
            try:
                name = next(_not_finite(open_tensors(source, model)), None)
            except InputError:  # a kind of file that only its model reads
                continue
            if name is not None:
                yield source, name


def _sources(path: Path) -> list[Path]:
    """The path itself, or in a folder without shards the files of weights."""
    if not path.is_dir() or list(path.glob("diffusion_pytorch_model*.safetensors")):
        return [path]
    return sorted(file for ending in ("*.safetensors", "*.bin", "*.pth") for file in path.glob(ending))


def _not_finite(tensors: Tensors) -> Iterator[str]:
    for name in tensors:
        if tensors.storage(name) is None:
            continue
        numbers = tensors[name]
        if not bool((numbers.float() if numbers.itemsize == 1 else numbers).isfinite().all()):
            yield name
