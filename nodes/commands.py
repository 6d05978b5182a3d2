"""Our graphs as commands: walks upstream from the sampler and refuses by name what has no equivalent.

Works on API-format graphs as ComfyUI runs them. Only builds text; the command runs without ComfyUI.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import folder_paths

from ..pipeline.errors import InputError
from ..pipeline.flags import to_argv
from ..pipeline.presets import load_preset
from ..pipeline.settings import NEGATIVE_PROMPT, Settings, resolve, validate, warnings_for
from . import demo, files, host, inputs, loader, sampler

SCRIPT = Path(__file__).parent.parent / "generate_infinitetalk.py"
ENDINGS = {"sh": ".sh", "PowerShell": ".ps1"}
Graph = dict[str, dict]


@dataclass(frozen=True)
class Command:
    """A command as text, what the user should know about it, and a name for its file."""

    text: str
    notes: tuple[str, ...]
    file: str

    @property
    def shown(self) -> str:
        return "\n".join([self.text, *(f"# {note}" for note in self.notes)])


def own_shell() -> str:
    """The shell that this machine's users have."""
    return "PowerShell" if os.name == "nt" else "sh"


def of_graph(graph: Graph, shell: str, full: bool = False, link: str | None = None) -> Command:
    """The command that makes the video of a graph's sampler.

    Args:
        graph: in API format.
        full: every setting that has a value.
        link: id of the sampler, where there are several.

    Raises:
        InputError: there is none, there are several, or something in the graph has no equivalent.
    """
    owner = _sampler(graph, link)
    settings = _settings(graph, owner)
    prefix = PurePosixPath(str(_value(graph, owner, "filename_prefix")).replace("\\", "/"))
    settings = settings.replace(save_file=Path(prefix.name or "InfiniteTalk"))
    argv = [sys.executable, str(SCRIPT), *to_argv(settings, full)]
    return Command(_quoted(argv, shell), warnings_for(resolve(settings)), f"infinitetalk_command{ENDINGS[shell]}")


def save(command: Command, name: str) -> Path:
    """Write a command under ComfyUI's output folder."""
    folder, stem, _, _, _ = folder_paths.get_save_image_path(
        name.removesuffix(Path(command.file).suffix), folder_paths.get_output_directory()
    )
    path = Path(folder, stem + Path(command.file).suffix)
    path.write_text(command.text + "\n", encoding="utf-8", newline="\n")
    return path


def _quoted(argv: list[str], shell: str) -> str:
    if shell == "sh":
        return shlex.join(argv)
    return "& " + " ".join("'" + word.replace("'", "''") + "'" for word in argv)


def _sampler(graph: Graph, link: str | None) -> str:
    found = [id for id, node in graph.items() if node.get("class_type") == "InfiniteTalkSampler"]
    if link is not None:
        if link not in found:
            raise InputError(f"The video comes from node {link} ({_kind(graph, link)}), not from our sampler.")
        return link
    if len(found) != 1:
        what = "no InfiniteTalk sampler" if not found else f"several samplers (nodes {', '.join(found)})"
        raise InputError(f"The graph has {what}: link the video of the one that is meant to the export node.")
    return found[0]


def _settings(graph: Graph, owner: str) -> Settings:
    model = _linked(graph, owner, "model", "InfiniteTalkModelLoader")
    speech = _linked(graph, owner, "speech", "InfiniteTalkAudioEncoder")
    values = inputs.setting_values(_values(graph, model, loader.WIDGETS))
    values |= inputs.setting_values(_values(graph, owner, tuple(w for w in sampler.WIDGETS if w not in sampler.TEXTS)))
    values |= _values(graph, owner, sampler.TEXTS)
    if values["negative_prompt"] == NEGATIVE_PROMPT:
        values["negative_prompt"] = None
    values |= inputs.file_setting("wav2vec_dir", _value(graph, speech, "wav2vec_dir"))
    loras = _loras(graph, model)
    if loras:
        values |= {"lora_dir": tuple(path for path, _ in loras), "lora_scale": tuple(scale for _, scale in loras)}
    presets = {node: _preset(graph, node) for node in (model, owner)}
    if presets[model] is not None:
        values |= loader.ruled_values(load_preset(presets[model]), bool(loras))
    if presets[owner] is not None:
        ruled = load_preset(presets[owner]).settings
        values |= {name: value for name, value in ruled.items() if name in sampler.WIDGETS}
    if presets[model] == presets[owner]:
        values["preset"] = presets[owner]
    elif None not in presets.values():
        raise InputError(f"Loader and sampler are linked to different presets ({', '.join(presets.values())}).")
    if host.device() == "cpu" and host.has_cards():
        values["device"] = "cpu"
    return validate(Settings(**values, **_sources(graph, owner, speech)))


def _sources(graph: Graph, owner: str, speech: str) -> dict[str, Path]:
    """Files of the reference and of the speech."""
    found = {}
    for slot, kind, widget in (("image", "LoadImage", "image"), ("video", "LoadVideo", "file")):
        if slot in graph[owner]["inputs"]:
            found[slot] = _source(graph, owner, slot, kind, widget, demo.PORTRAIT)
    if len(found) != 1:
        raise InputError("The sampler needs an image or a video, one of them.")
    return {**found, "audio": _source(graph, speech, "audio", "LoadAudio", "audio", demo.SPEECH)}


def _source(graph: Graph, owner: str, slot: str, kind: str, widget: str, bundled: Path) -> Path:
    id = _origin(graph, owner, slot)
    if _kind(graph, id) == "InfiniteTalkDemo":
        return bundled
    if _kind(graph, id) != kind:
        raise InputError(
            f"{slot} comes from node {id} ({_kind(graph, id)}), which has no equivalent on the command line: save its "
            f"result and load it with {kind}."
        )
    return Path(folder_paths.get_annotated_filepath(_value(graph, id, widget))).absolute()


def _loras(graph: Graph, model: str) -> list[tuple[Path, float]]:
    chain, slot, owner = [], "lora", model
    while slot in graph[owner]["inputs"]:
        owner, slot = _linked(graph, owner, slot, "InfiniteTalkLoRA"), "previous"
        if len(chain) > len(graph):
            raise InputError("The LoRA nodes are linked in a circle.")
        path = files.path("lora_dir", _value(graph, owner, "lora"))
        chain.append((path, float(_value(graph, owner, "scale"))))
    return chain[::-1]


def _preset(graph: Graph, owner: str) -> str | None:
    if "preset" not in graph[owner]["inputs"]:
        return None
    return _value(graph, _linked(graph, owner, "preset", "InfiniteTalkPreset"), "preset")


def _kind(graph: Graph, id: str) -> str:
    return graph.get(id, {}).get("class_type", "which is not in the graph")


def _origin(graph: Graph, owner: str, slot: str) -> str:
    link = graph[owner]["inputs"].get(slot)
    if not isinstance(link, list):
        raise InputError(f"{slot} of node {owner} ({_kind(graph, owner)}) is not linked.")
    return str(link[0])


def _linked(graph: Graph, owner: str, slot: str, kind: str) -> str:
    """The node of this kind that an input comes from."""
    id = _origin(graph, owner, slot)
    if _kind(graph, id) != kind:
        raise InputError(f"{slot} of node {owner} comes from node {id} ({_kind(graph, id)}), {kind} expected.")
    return id


def _values(graph: Graph, owner: str, names: tuple[str, ...]) -> dict[str, object]:
    return {name: _value(graph, owner, name) for name in names}


def _value(graph: Graph, owner: str, name: str) -> object:
    given = graph[owner]["inputs"]
    if name not in given:
        raise InputError(f"Node {owner} ({_kind(graph, owner)}) has no value for {name}.")
    if isinstance(given[name], list):
        id = str(given[name][0])
        raise InputError(
            f"{name} of node {owner} is computed by node {id} ({_kind(graph, id)}), which has no equivalent on the "
            "command line: put the value into the widget."
        )
    return given[name]
