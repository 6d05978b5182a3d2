"""Finding a weights file by its name: as a path, or in the folder where the weights are.

The weights' folder is the one that --ckpt_dir lies in, as the guide lays it out (``weights/Wan2.1-I2V-14B-480P``
beside ``weights/InfiniteTalk`` and the LoRAs), or ``weights`` in the current folder. Knows nothing about contents.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError


def look_up(flag: str, path: Path, ckpt_dir: Path | None, download: str) -> Path:
    """The file or folder that ``path`` means.

    Args:
        flag: for the message.
        download: what to say about getting it.

    Raises:
        InputError: it is nowhere; says where it was looked for.
    """
    folders = [Path(), *([ckpt_dir.absolute().parent] if ckpt_dir is not None else []), Path("weights")]
    for place in (folder / path for folder in folders):
        if place.exists():
            return place
    looked = ", ".join(str(folder) for folder in folders[1:])
    raise InputError(f"{flag}: {path} does not exist, nor is it in {looked}; check the name, {download}.")
