"""Saves the bundled workflows from ComfyUI's own page, with a thumbnail each.

``python -m infinitetalk.scripts.save_workflows COMFYUI PYTHON`` builds the graphs below in a headless browser and
writes ``workflows/NAME.json`` and ``NAME.jpg``, and what the page would queue into ``tests/data/workflows/NAME.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..pipeline.facts.published import PARTS
from ..pipeline.graphs.widgets import SAMPLER, size_widgets
from ..pipeline.settings.presets import DEMO, load_preset
from ..tests.support import browser, comfy_host
from . import node_texts

ROOT = Path(__file__).parent.parent
URLS = {  # file -> its folder in models, where it is published
    file.name: (part.comfy.partition("/")[0], part.url(file).rpartition("/")[0])
    for part in PARTS.values()
    if part.comfy is not None
    for file in part.files
}
ENCODERS = {
    "text_encoder": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "clip_vision": "clip_vision_h.safetensors",
    "vae": "wan_2.1_vae.safetensors",
}
CHINESE = node_texts.texts()["zh"]["workflows"]
SINGING = {"en": "A person is singing to the camera with passion.", "zh": CHINESE["prompt"]}  # by the page's language
LOADER_SIZE, SAMPLER_SIZE = (360, 330), (440, 840)  # with what is advanced folded away
WAV2VEC = {"wav2vec_dir": "wav2vec2-chinese-base_fp16.safetensors"}
LIGHTX2V = "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors"


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Attributes:
        links: input -> (node, output's number).
        models: files that the user has to download for it.
        properties: of the node, as the page saves them.
    """

    type: str
    pos: tuple[int, int]
    widgets: Mapping[str, object] = field(default_factory=dict)
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    properties: Mapping[str, object] = field(default_factory=dict)


def note(text: str, pos: tuple[int, int], size: tuple[int, int]) -> Node:
    return Node("MarkdownNote", pos, {"": text}, size=size)


def downloads(*names: str) -> str:
    rows = "\n".join(f"| [{name}]({URLS[name][1]}/{name}) | models/{URLS[name][0]} |" for name in names)
    return f"| file | folder |\n|---|---|\n{rows}"


IMAGE_MODELS = (
    "Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors",
    "Wan2_1-InfiniTetalk-Single_fp16.safetensors",
    *ENCODERS.values(),
)
VIDEO_MODELS = ("infinitetalk_single_fp8.safetensors", *ENCODERS.values(), "Wan2.1_I2V_14B_FusionX_LoRA.safetensors")

WORKFLOWS: dict[str, dict[str, Node]] = {
    "infinitetalk_single_image": {
        "note": note(
            "# A portrait and speech become a talking video\n\n"
            "Choose a picture and a sound file, say what is to be seen, and run. The video is as long as the speech, "
            "and lies under `output/video` from its first window on.\n\n"
            + downloads(*IMAGE_MODELS, *WAV2VEC.values(), LIGHTX2V)
            + "\n\nSpeech with music: put `MelBandRoformer_fp16.safetensors` (from Kijai/MelBandRoFormer_comfy) or "
            "torchaudio's `hdemucs_high_trained.pt` into `models/diffusion_models` and choose it in *Separate Voice*; "
            "with none the sound goes through as it is. The video carries the whole sound either way."
            + f"\n\n{CHINESE['single_image']}",
            (-600, 0),
            (560, 480),
        ),
        "image": Node("LoadImage", (0, 0), {"image": "portrait.png"}, size=(320, 330)),
        "audio": Node("LoadAudio", (0, 400), {"audio": "speech.wav"}, size=(320, 140)),
        "voice": Node(
            "InfiniteTalkVoice", (0, 760), {"separate_voice": "none"}, {"audio": ("audio", 0)}, size=(320, 90)
        ),
        "speech": Node(
            "InfiniteTalkAudioEncoder",
            (360, 400),
            WAV2VEC,
            {"audio": ("voice", 0), "soundtrack": ("audio", 0)},
            tuple(WAV2VEC.values()),
        ),
        "lora": Node(
            "InfiniteTalkLoRA", (0, 600), {"lora": LIGHTX2V, "scale": 0.8}, models=(LIGHTX2V,), size=(320, 110)
        ),
        "model": Node(
            "InfiniteTalkModelLoader",
            (360, 600),
            {
                "dit_path": IMAGE_MODELS[0],
                "infinitetalk_dir": IMAGE_MODELS[1],
                **ENCODERS,
                "offload_model": "true",
                "blocks_to_swap": 30,
            },
            {"lora": ("lora", 0)},
            IMAGE_MODELS,
            LOADER_SIZE,
        ),
        "preset": Node("InfiniteTalkPreset", (360, 240), {"preset": "02_comfyui_equivalent"}, size=(320, 80)),
        "sampler": Node(
            "InfiniteTalkSampler",
            (780, 0),
            {"prompt": SINGING["en"]},
            {"model": ("model", 0), "speech": ("speech", 0), "image": ("image", 0), "preset": ("preset", 0)},
            size=SAMPLER_SIZE,
            properties={"prompts": SINGING},
        ),
        "export": Node("InfiniteTalkExport", (1260, 0), {}, size=(460, 420)),
    },
    "infinitetalk_single_video": {
        "note": note(
            "# A video of a person is dubbed\n\n"
            "Choose a video and the new speech. The preset rules the settings that it names in loader and sampler; "
            "unlink it to change them.\n\n"
            + downloads(*VIDEO_MODELS, *WAV2VEC.values())
            + f"\n\n{CHINESE['single_video']}",
            (-600, 0),
            (560, 480),
        ),
        "video": Node("LoadVideo", (0, 0), {"file": "person.mp4"}, size=(320, 330)),
        "audio": Node("LoadAudio", (0, 400), {"audio": "speech.wav"}, size=(320, 140)),
        "speech": Node(
            "InfiniteTalkAudioEncoder", (360, 400), WAV2VEC, {"audio": ("audio", 0)}, tuple(WAV2VEC.values())
        ),
        "preset": Node("InfiniteTalkPreset", (0, 600), {"preset": "03_balanced"}, size=(320, 80)),
        "model": Node(
            "InfiniteTalkModelLoader",
            (360, 600),
            {"dit_path": "none", "infinitetalk_dir": "none", **ENCODERS},
            {"preset": ("preset", 0)},
            VIDEO_MODELS,
            LOADER_SIZE,
        ),
        "sampler": Node(
            "InfiniteTalkSampler",
            (780, 0),
            {"prompt": "A person is talking to the camera."},
            {"model": ("model", 0), "speech": ("speech", 0), "video": ("video", 0), "preset": ("preset", 0)},
            size=SAMPLER_SIZE,
        ),
    },
    "infinitetalk_demo": {
        "note": note(
            "# Runs at once, without downloads\n\n"
            "A small model trained on drawn faces: it shows how everything works, not how the real one looks. With "
            "real weights only the loader and the size change.\n\n" + CHINESE["demo"],
            (-420, 0),
            (380, 260),
        ),
        "demo": Node("InfiniteTalkDemo", (0, 0), size=(280, 60)),
        "speech": Node("InfiniteTalkAudioEncoder", (320, 0), {"wav2vec_dir": "demo (bundled)"}, {"audio": ("demo", 1)}),
        "model": Node(
            "InfiniteTalkModelLoader",
            (320, 180),
            {"dit_path": "demo (bundled)", "infinitetalk_dir": "demo (bundled)"},
            size=LOADER_SIZE,
        ),
        "sampler": Node(
            "InfiniteTalkSampler",
            (720, 0),
            {name: value for name, value in load_preset(DEMO).settings.items() if name in SAMPLER}
            | size_widgets(load_preset(DEMO).as_settings().size),
            {"model": ("model", 0), "speech": ("speech", 0), "image": ("demo", 0)},
            size=SAMPLER_SIZE,
        ),
        "export": Node("InfiniteTalkExport", (1200, 0), {}, size=(460, 420)),
    },
}

BUILD = """
async (specification) => {
  const graph = app.graph
  graph.clear()
  const made = {}
  for (const [name, node] of Object.entries(specification)) {
    const each = LiteGraph.createNode(node.type)
    if (!each) throw new Error(`no node ${node.type}`)
    each.pos = node.pos
    graph.add(each)
    if (node.size) each.setSize(node.size)
    for (const [widget, value] of Object.entries(node.widgets)) {
      const found = widget ? each.widgets.find((w) => w.name === widget) : each.widgets[0]
      if (!found) throw new Error(`no widget ${widget} in ${node.type}`)
      found.value = value
    }
    for (const widget of each.widgets ?? []) if (widget.name === 'control_after_generate') widget.value = 'fixed'
    Object.assign(each.properties, node.properties)
    if (node.models.length) each.properties.models = node.models
    made[name] = each
  }
  for (const [name, node] of Object.entries(specification)) {
    for (const [input, [origin, slot]] of Object.entries(node.links)) {
      const index = made[name].inputs.findIndex((each) => each.name === input)
      if (index < 0 || !made[origin].connect(slot, made[name], index)) throw new Error(`cannot link ${name}.${input}`)
    }
  }
  await new Promise((done) => setTimeout(done, 500))
  const { workflow, output } = await app.graphToPrompt()
  return { workflow, output }
}
"""
READY = "!!(window.app?.graph && window.app.extensionManager && LiteGraph.registered_node_types.InfiniteTalkSampler)"


def save(source: Path, python: Path, workflows: Mapping[str, dict[str, Node]] = WORKFLOWS) -> None:
    """Write workflows.

    Args:
        source, python: of a ComfyUI.
        workflows: their nodes by name, by the workflow's name.
    """
    data = ROOT / "tests" / "data" / "workflows"
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        comfy_host.prepare(base, ROOT, "infinitetalk")
        with comfy_host.running(source, python, base) as host, browser.browser() as page:
            page.open(host.url)
            page.wait(READY)
            for name, nodes in workflows.items():
                built = page.entries(f"({BUILD})({json.dumps({key: _plain(node) for key, node in nodes.items()})})")
                _write(ROOT / "workflows" / f"{name}.json", _without_machine(built["workflow"]))
                _write(data / f"{name}.json", built["output"])
                thumbnail(name, ROOT / "workflows" / f"{name}.jpg")


def _plain(node: Node) -> dict:
    models = [{"name": name, "url": f"{URLS[name][1]}/{name}", "directory": URLS[name][0]} for name in node.models]
    return {**node.__dict__, "models": models}


def _without_machine(workflow: dict) -> dict:
    """What says nothing about the machine and the moment of saving."""
    extra = {name: value for name, value in workflow.get("extra", {}).items() if name != "frontendVersion"}
    return {**workflow, "id": str(_stable_id(workflow)), "extra": extra}


def _stable_id(workflow: dict) -> object:
    import uuid

    return uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(workflow["nodes"], sort_keys=True))


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def thumbnail(name: str, path: Path) -> None:
    """The bundled portrait, its speech as a wave, and what it comes from, 480x480."""
    import av
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    portrait = "drawn_portrait.png" if name.endswith("demo") else "portrait.png"
    picture = Image.open(ROOT / "assets" / portrait).convert("RGB").resize((480, 480), Image.Resampling.LANCZOS)
    if name.endswith("video"):
        strip = [picture.resize((150, 150)) for _ in range(3)]
        picture = picture.filter(ImageFilter.GaussianBlur(6))
        for index, frame in enumerate(strip):
            picture.paste(frame, (8 + 157 * index, 70))
    with av.open(str(ROOT / "assets" / "speech.wav")) as sound:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in sound.decode(audio=0)]).astype(np.float32)
    levels = np.abs(samples[: samples.size // 96 * 96].reshape(96, -1)).max(axis=1) / 32768
    draw = ImageDraw.Draw(picture, "RGBA")
    draw.rectangle((0, 370, 480, 480), fill=(0, 0, 0, 150))
    for index, level in enumerate(levels):
        height = 4 + 44 * float(level)
        draw.rectangle((index * 5 + 1, 425 - height, index * 5 + 3, 425 + height), fill=(90, 200, 250, 255))
    if name.endswith("demo"):
        draw.polygon([(205, 190), (205, 290), (290, 240)], fill=(255, 255, 255, 200))
    picture.save(path, quality=82)


if __name__ == "__main__":
    save(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
