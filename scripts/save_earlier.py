"""What users of a version have on their disks, as that version makes it: ``tests/data/earlier``.

    python -m scripts.save_earlier --checkout ../version [--comfyui DIR --comfyui-python PY]

Graphs of the pack's nodes as saved and as queued, commands exported from them and from others' graphs, the shipped
scripts, finished videos, an unfinished one, and what commands print. ``tests/whole/test_earlier.py`` reads it with the
present version. Without ``--comfyui`` the video that was made there is left as it is. Everything is made by the
checkout's own command line; its folder is written as ``<CLONE>``, and this one as ``<EARLIER>``.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import av

from .frame_hashes import (
    DEMO_LORA,
    DEMO_MODEL,
    MADE_FROM,
    Failed,
    Place,
    flags,
    graph_of_small_model,
    hash_of,
    kill_after_first_window,
    process_environment,
    queued,
)

CLONE, EARLIER = "<CLONE>", "<EARLIER>"
COMFYUI = "/opt/ComfyUI"  # where a user may have it; stands for the temporary folder in a video's settings
WORKFLOWS = ("infinitetalk_demo", "infinitetalk_single_image", "infinitetalk_single_video")
FORMS = {  # ending of a command's file -> flags of ``export``
    ".sh": ("--shell", "sh"),
    ".ps1": ("--shell", "powershell"),
    ".full.sh": ("--shell", "sh", "--full"),
    ".upstream.sh": ("--shell", "sh", "--target", "upstream"),
    ".upstream.ps1": ("--shell", "powershell", "--target", "upstream"),
}
SMALL = {
    **{name: f"{CLONE}/{file}" for name, file in DEMO_MODEL.items()},
    **{"image": f"{CLONE}/{MADE_FROM['image']}", "audio": f"{CLONE}/{MADE_FROM['audio']}"},
    **{"prompt": MADE_FROM["prompt"], "size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 2},
    **{"sample_text_guide_scale": 1, "device": "cpu"},
}
FINISHED = {
    **SMALL,
    **{"lora_dir": f"{CLONE}/{DEMO_LORA}", "lora_scale": 0.5, "negative_prompt": "blurred"},
    **{"max_frame_num": 17, "sample_audio_guide_scale": 2, "seam_frames": 4, "base_seed": 11, "crf": 30},
}
UNFINISHED = {**SMALL, "max_frame_num": 29, "sample_audio_guide_scale": 1, "base_seed": 5, "crf": 0}
DRY = {name: value for name, value in FINISHED.items() if name not in ("max_frame_num", "frame_num", "motion_frame")}
PRINTED = {  # name -> words of a command whose text is kept
    "version": ["--version"],
    "info": ["info", f"{EARLIER}/finished.mp4"],
    "info_full": ["info", f"{EARLIER}/finished.mp4", "--full"],
    "info_comfyui": ["info", f"{EARLIER}/finished_in_comfyui.mp4"],
    "inspect_transformer": ["inspect", f"{CLONE}/{DEMO_MODEL['infinitetalk_dir']}"],
    "inspect_several": [
        "inspect",
        f"{CLONE}/{DEMO_LORA}",
        f"{CLONE}/{DEMO_MODEL['ckpt_dir']}/Wan2.1_VAE.pth",
        f"{CLONE}/{DEMO_MODEL['wav2vec_dir']}/model.safetensors",
    ],
    "presets": ["presets"],
    "recommend_quality_24": ["recommend", "--goal", "quality", "--vram", "24"],
    "recommend_speed": ["recommend", "--goal", "speed"],
    "recommend_8": ["recommend", "--vram", "8"],
    "dry_run": [*flags(DRY), "--dry_run"],
    "dry_run_guided": [*flags({**DRY, "sample_text_guide_scale": 5, "quant": "fp8"}), "--dry_run"],
    "refused_flag": ["--sample_step", "4"],
    "refused_value": ["--frame_num", "80"],
    "refused_file": ["export", "no_such_graph.json"],
}


class Ended(TypedDict):
    """How a command ended, and what it printed, line by line."""

    code: int
    out: list[str]
    err: list[str]


@dataclass(frozen=True)
class Maker:
    """Runs the old version and writes what comes out.

    Attributes:
        place: the old version, and a working folder.
        target: where the corpus goes.
    """

    place: Place
    target: Path

    def run(self, words: list[str]) -> Ended:
        """What a command prints, line by line, and how it ends."""
        done = self.place.ended(self._on_disk(words))
        return {"code": done.returncode, "out": self.neutral(done.stdout), "err": self.neutral(done.stderr)}

    def run_well(self, words: list[str]) -> Ended:
        """The same of a command that must end well.

        Raises:
            Failed: it does not.
        """
        found = self.run(words)
        if found["code"]:
            raise Failed(f"{words}: {found['err']}")
        return found

    def neutral(self, text: str) -> list[str]:
        """Lines without this machine's folders."""
        for folder, word in ((self.place.checkout, CLONE), (self.target, EARLIER), (self.place.folder, ".")):
            text = text.replace(str(folder), word)
        return text.splitlines()

    def write_json(self, name: str, content: object) -> None:
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (self.target / name).write_text(text + "\n", encoding="utf-8", newline="\n")

    def words(self, settings: dict[str, object]) -> list[str]:
        """Flags, relative to the working folder, in which the clone's assets are: so a video's settings name no
        machine."""
        return [word.replace(f"{CLONE}/", "") for word in flags(settings)]

    def _on_disk(self, words: list[str]) -> list[str]:
        return [word.replace(f"{CLONE}/", "").replace(EARLIER, str(self.target)) for word in words]


# Graphs


def graphs(checkout: Path) -> dict[str, object]:
    """Saved and queued graphs by name: those that are shipped, others' that the tests have, and variations."""
    found: dict[str, object] = {}
    for name in WORKFLOWS:
        found[name] = _read(checkout / "workflows" / f"{name}.json")
        found[f"{name}_queued"] = _read(checkout / "tests" / "data" / "workflows" / f"{name}.json")
    for file in sorted((checkout / "tests" / "data" / "graphs").glob("*.json")):
        found[file.stem] = _read(file)
    return {**found, **{name: vary(copy.deepcopy(found)) for name, vary in VARIATIONS.items()}}


def _read(file: Path) -> object:
    return json.loads(file.read_text(encoding="utf-8"))


def _of_kind(workflow: dict, kind: str) -> dict:
    return next(node for node in workflow["nodes"] if node["type"] == kind)


def _feed(workflow: dict, kind: str, slot: str, origin: dict, output: int) -> None:
    """Link an output to an input in a saved workflow, in place of what was linked there."""
    owner = _of_kind(workflow, kind)
    entry = next(entry for entry in owner["inputs"] if entry["name"] == slot)
    workflow["links"] = [link for link in workflow["links"] if link[0] != entry["link"]]
    workflow["last_link_id"] += 1
    entry["link"] = workflow["last_link_id"]
    index = owner["inputs"].index(entry)
    workflow["links"].append([entry["link"], origin["id"], output, owner["id"], index, entry["type"]])


def _remove(workflow: dict, node: dict) -> None:
    gone = {link[0] for link in workflow["links"] if node["id"] in (link[1], link[3])}
    workflow["links"] = [link for link in workflow["links"] if link[0] not in gone]
    workflow["nodes"] = [other for other in workflow["nodes"] if other is not node]
    for entry in (entry for other in workflow["nodes"] for entry in other.get("inputs", ())):
        if entry.get("link") in gone:
            entry["link"] = None


def lora_chain(found: dict) -> dict:
    """A second LoRA before the first one of a saved workflow."""
    workflow = found["infinitetalk_single_image"]
    first = _of_kind(workflow, "InfiniteTalkLoRA")
    second = {**copy.deepcopy(first), "id": workflow["last_node_id"] + 1}
    second["widgets_values"] = ["style/Wan2.1_I2V_14B_FusionX_LoRA.safetensors", -0.25]
    workflow["last_node_id"] += 1
    workflow["nodes"].append(second)  # behind the first, which _feed finds
    _feed(workflow, "InfiniteTalkLoRA", "previous", second, 0)
    return workflow


def preset_for_both(found: dict) -> dict:
    """A preset that rules loader and sampler of a saved workflow; its seed changes from run to run."""
    workflow = found["infinitetalk_single_image"]
    _remove(workflow, _of_kind(workflow, "InfiniteTalkLoRA"))
    _feed(workflow, "InfiniteTalkModelLoader", "preset", _of_kind(workflow, "InfiniteTalkPreset"), 0)
    loader, sampler = (
        _of_kind(workflow, f"InfiniteTalk{kind}")["widgets_values"] for kind in ("ModelLoader", "Sampler")
    )
    loader[loader.index(30)] = -1  # blocks to swap; the preset says what stays on the card
    sampler[sampler.index("fixed")] = "randomize"
    return workflow


def video_reference(found: dict) -> dict:
    """The small model dubs a video."""
    workflow = found["infinitetalk_demo"]
    loader = copy.deepcopy(_of_kind(found["infinitetalk_single_video"], "LoadVideo"))
    workflow["last_node_id"] += 1
    loader["id"] = workflow["last_node_id"]
    workflow["nodes"].append(loader)
    sampler = _of_kind(workflow, "InfiniteTalkSampler")
    image = next(entry for entry in sampler["inputs"] if entry["name"] == "image")
    workflow["links"] = [link for link in workflow["links"] if link[0] != image["link"]]
    image["link"] = None
    _feed(workflow, "InfiniteTalkSampler", "video", loader, 0)
    return workflow


def later_widgets_absent(found: dict) -> dict:
    """A workflow that was saved before the last two widgets of loader and sampler were there."""
    workflow = found["infinitetalk_demo"]
    for kind in ("InfiniteTalkModelLoader", "InfiniteTalkSampler"):
        del _of_kind(workflow, kind)["widgets_values"][-2:]
    return workflow


def newer_schema(found: dict) -> dict:
    """Links as dicts, as later versions of the page save them."""
    workflow = found["infinitetalk_demo"]
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {
        **workflow,
        **{"version": 1, "links": [dict(zip(keys, link, strict=True)) for link in workflow["links"]]},
    }


def from_windows(found: dict) -> dict:
    """File names with backslashes, texts that shells mind, and a name with a folder."""
    workflow = found["infinitetalk_single_image"]
    loader, sampler = (_of_kind(workflow, f"InfiniteTalk{kind}") for kind in ("ModelLoader", "Sampler"))
    loader["widgets_values"][0] = "Wan\\base Q4_K_M.gguf"
    values = sampler["widgets_values"]
    values[0] = 'Someone says "yes" & it\'s $HOME, 100 % `sure`;\nsecond line \\'
    values[values.index("video/InfiniteTalk")] = "my videos\\a name"
    return workflow


def everything_queued(found: dict) -> dict:
    """A queued graph in which no number is the default: guidance, projection, TeaCache, memory, fp8 while loading."""
    prompt = found["infinitetalk_demo_queued"]
    prompt["4"]["inputs"] |= {
        **{"quant": "fp8", "quant_matmul": "off", "lora_mode": "side", "dtype": "bf16", "attention": "sdpa"},
        **{"kernels": "plain", "offload_model": "false", "t5_cpu": True, "blocks_to_swap": 3, "vae_dtype": "fp32"},
        **{"lora": ["11", 0]},
    }
    prompt["10"] = {"class_type": "InfiniteTalkLoRA", "inputs": {"lora": "a.safetensors", "scale": 0.3}}
    prompt["11"] = {
        **{"class_type": "InfiniteTalkLoRA"},
        "inputs": {"lora": "b.safetensors", "scale": -1, "previous": ["10", 0]},
    }
    prompt["5"]["inputs"] |= {
        **{"prompt": "一个人", "negative_prompt": "", "size": "infinitetalk-720", "mode": "clip", "frame_num": 41},
        **{"motion_frame": 5, "max_frame_num": 500, "color_correction_strength": 0.25, "sample_steps": 12},
        **{"sample_shift": 3.5, "sample_solver": "unipc", "sample_text_guide_scale": 4.5},
        **{"sample_audio_guide_scale": 3.25, "base_seed": 2**40, "use_apg": True, "apg_momentum": -0.5},
        **{"apg_norm_threshold": 27, "use_teacache": True, "teacache_thresh": 0.35, "crf": 0},
        **{"filename_prefix": "talks/one", "sample_audio_guide_steps": 6, "seam_frames": 8},
    }
    return prompt


def preset_for_both_queued(found: dict) -> dict:
    """A queued graph, as a client wraps it, whose preset rules loader and sampler."""
    prompt = found["infinitetalk_single_image_queued"]
    del prompt["5"], prompt["6"]["inputs"]["lora"]
    prompt["6"]["inputs"]["preset"] = ["7", 0]
    prompt["7"]["inputs"]["preset"] = "04_high_quality"
    return {"prompt": prompt, "client_id": "0"}


def without_later_inputs_queued(found: dict) -> dict:
    """A queued graph of the time before the last two widgets of loader and sampler."""
    prompt = found["infinitetalk_demo_queued"]
    for node, names in {"4": ("vae_dtype", "vram_limit"), "5": ("sample_audio_guide_steps", "seam_frames")}.items():
        for name in names:
            del prompt[node]["inputs"][name]
    return prompt


VARIATIONS: dict[str, Callable[[dict], dict]] = {
    each.__name__: each
    for each in (lora_chain, preset_for_both, video_reference, later_widgets_absent, newer_schema, from_windows)
    + (everything_queued, preset_for_both_queued, without_later_inputs_queued)
}


# The corpus


def save_graphs(maker: Maker) -> None:
    """The graphs, and what ``export`` makes of each."""
    for name, graph in graphs(maker.place.checkout).items():
        text = json.dumps(graph, ensure_ascii=False, separators=(",", ":"))
        file = maker.target / "graphs" / f"{name}.json"
        file.write_text(text + "\n", encoding="utf-8", newline="\n")


def save_commands(maker: Maker) -> None:
    """Commands of graphs and of videos as text; beside them how ``export`` ended, and its notes or its refusal."""
    said = {}
    for file in sorted((maker.target / "graphs").glob("*.json")) + sorted(maker.target.glob("finished*.mp4")):
        for ending, form in FORMS.items():
            found = maker.run(["export", f"{EARLIER}/{file.relative_to(maker.target).as_posix()}", *form])
            said[f"{file.stem}{ending}"] = {"code": found["code"], "err": found["err"]}
            if found["code"] == 0:
                text = "".join(f"{line}\n" for line in found["out"])
                (maker.target / "commands" / f"{file.stem}{ending}").write_text(text, encoding="utf-8", newline="\n")
    maker.write_json("commands.json", said)


def save_videos(maker: Maker) -> None:
    """A finished video and what it carries."""
    (maker.place.folder / "assets").symlink_to(maker.place.checkout / "assets", target_is_directory=True)
    maker.run_well([*maker.words(FINISHED), "--save_file", "finished"])
    shutil.copy(maker.place.folder / "finished.mp4", maker.target)
    _keep_metadata(maker, "finished")


def save_comfyui_video(maker: Maker) -> None:
    """A video that was made in ComfyUI and carries its graph."""
    graph = graph_of_small_model()
    graph["sampler"]["inputs"] |= {"size": "64x64", "max_frame_num": 17, "crf": 30}
    made = queued(maker.place, graph)
    folder = str(made.parents[2])  # of output/video/NAME
    target_path = str(maker.target / "finished_in_comfyui.mp4")
    with (
        av.open(str(made)) as source,
        av.open(target_path, "w", options={"movflags": "faststart+use_metadata_tags"}) as target,
    ):
        target.metadata.update({name: text.replace(folder, COMFYUI) for name, text in source.metadata.items()})
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    _keep_metadata(maker, "finished_in_comfyui")


def _keep_metadata(maker: Maker, name: str) -> None:
    with av.open(str(maker.target / f"{name}.mp4")) as container:
        content = {key: json.loads(text) for key, text in container.metadata.items() if text.startswith("{")}
    maker.write_json(f"{name}.json", content)


def save_unfinished(maker: Maker) -> None:
    """A run that was killed after its first window, and the frames that it would have had."""
    words, folder = maker.words(UNFINISHED), maker.place.folder
    path = folder / "unfinished.mp4"
    kill_after_first_window(maker.place, [*words, "--save_file", path.name], path)
    state = path.with_name("unfinished.partial.state")
    header = state.read_bytes()
    held = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]["state"]
    if json.loads(held)["windows"] != 1:
        raise Failed("the run came further than its first window; run this again")
    for file in (state, path.with_name("unfinished.partial.mp4")):
        shutil.copy(file, maker.target)
    first = hash_of(maker.target / "unfinished.partial.mp4")
    maker.run_well([*words, "--save_file", path.name, "--resume"])
    frames, digest = hash_of(path)
    content = {"flags": flags(UNFINISHED), "first_window": first, "frames": frames, "sha256": digest}
    maker.write_json("unfinished.json", {**content, "cpu": _cpu()})


def _cpu() -> str:
    """The instructions that PyTorch computes with, which decide the last bits."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def save_printed(maker: Maker) -> None:
    """What commands print."""
    maker.write_json("printed.json", {name: {"argv": argv, **maker.run(argv)} for name, argv in PRINTED.items()})


def main() -> int:
    """Write the corpus."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True, metavar="DIR", help="the version that makes it")
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="folder of ComfyUI's main.py")
    parser.add_argument("--comfyui-python", type=Path, default=Path(sys.executable), metavar="PY", help="what runs it")
    parser.add_argument("--to", type=Path, default=root / "tests" / "data" / "earlier", metavar="DIR", help="where to")
    given = parser.parse_args()
    target = given.to.absolute()
    for name in ("graphs", "commands", "run_configs"):
        shutil.rmtree(target / name, ignore_errors=True)
        (target / name).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        comfyui = given.comfyui and given.comfyui.absolute()
        checkout, python = given.checkout.resolve(), given.comfyui_python.absolute()
        environment = process_environment(Path(temporary, "cache"))
        maker = Maker(Place(checkout, Path(temporary), environment, comfyui, python, Path(temporary)), target)
        for file in sorted((checkout / "run_configs").glob("*.sh")):
            shutil.copy(file, target / "run_configs")
        save_videos(maker)
        save_unfinished(maker)
        if comfyui is not None:
            save_comfyui_video(maker)
        save_graphs(maker)
        save_commands(maker)
        save_printed(maker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
