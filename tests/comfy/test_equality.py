"""A graph and its exported command make the same video: frames, and packets, bit for bit."""

import os
import random
import shutil
import subprocess

import av
import pytest
from infinitetalk.pipeline.settings.presets import load_preset, preset_names
from infinitetalk.tests.support.comfy_graphs import FUSIONX, LIGHTX2V, PACK, VOICE, node
from infinitetalk.tests.support.shell import SCRIPT

SAMPLED = ("sample_steps", "sample_shift", "sample_solver", "sample_text_guide_scale", "sample_audio_guide_scale")
MOST_STEPS = 8  # enough to see that both take the same
SAMPLED += ("base_seed", "use_apg", "apg_momentum", "apg_norm_threshold", "use_teacache", "teacache_thresh")
PROMPTS = (
    'Someone says "yes" & it\'s $HOME, 100 % `sure`; \\ ',
    "一个人对着镜头激情唱歌",
    "two\nlines\tand a tab",
    "-x --y",
)


def preset_case(name):
    """The preset rules the loader; the sampler has its values, but for the size."""
    values = load_preset(name).settings
    widgets = {widget: values[widget] for widget in SAMPLED if widget in values}
    widgets |= {"sample_steps": min(widgets["sample_steps"], MOST_STEPS)}
    nodes = {"preset": node("InfiniteTalkPreset", preset=name)}
    return {**widgets, "size": "96x64" if values["size"].endswith("720") else "64x64"}, nodes, {"preset": ["preset", 0]}


def random_case(number):
    r = random.Random(number)
    solver = r.choice(["euler", "flowmatch_distill"])
    widgets = {
        "sample_solver": solver,
        "sample_steps": 4 if solver == "flowmatch_distill" else r.choice([1, 2, 7]),
        "sample_shift": r.choice([0.0, 3.5, 11.0]),
        "sample_text_guide_scale": r.choice([1.0, 5.0]),
        "sample_audio_guide_scale": r.choice([1.0, 2.5]),
        "sample_audio_guide_steps": r.choice([0, 1]),
        "use_apg": r.random() < 0.5,
        "use_teacache": r.random() < 0.5,
        "teacache_thresh": r.choice([0.1, 0.5]),
        "frame_num": r.choice([13, 17, 21]),
        "motion_frame": r.choice([1, 5, 9]),
        "max_frame_num": r.choice([0, 20]),
        "color_correction_strength": r.choice([0.0, 0.5, 1.0]),
        "size": r.choice(["64x64", "80x64", "64x96"]),
        "base_seed": r.choice([0, 7, 2**63]),
        "crf": r.choice([0, 18, 30]),
        "prompt": PROMPTS[number % len(PROMPTS)],
        "negative_prompt": r.choice(["", "ugly"]),
        "dtype": r.choice(["auto", "fp32", "bf16"]),
        "quant": r.choice(["none", "fp8", "int8"]),
        "lora_mode": r.choice(["auto", "side"]),
        "t5_cpu": r.random() < 0.5,
        "offload_model": r.choice(["auto", "true", "false"]),
        "blocks_to_swap": r.choice([-1, 1]),
        "seam_frames": r.choice([0, 4, 32]),
    }
    nodes, links = {}, {}
    if number % 2:
        nodes["first"] = node("InfiniteTalkLoRA", lora=LIGHTX2V, scale=0.8)
        nodes["second"] = node("InfiniteTalkLoRA", lora=FUSIONX, scale=-0.3, previous=["first", 0])
        links["lora"] = ["second", 0]
    return widgets, nodes, links


CASES = {
    **{name: preset_case(name) for name in preset_names()},
    "a voice out of music": ({}, {}, {}),
    "a voice alone": ({}, {}, {}),
    **{f"random {number}": random_case(number) for number in range(12)},
}
LONG = ["a voice alone", "random 0", *list(CASES)[-9:]]
DUBS = "random 2", "random 5", "random 8", "random 11"


@pytest.fixture(scope="module")
def clip(base):
    """A short video at 30 frames a second, to dub."""
    path = base / "input" / "person.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(20):
            frame = av.VideoFrame(96, 64, "rgb24")
            frame.planes[0].update(bytes((index * 12 + x // 3) % 256 for x in range(frame.planes[0].buffer_size)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.name


def exported(host, graph):
    """The command of a graph, as the export node tells it."""
    graph = {**graph, "export": node("InfiniteTalkExport", shell="sh", full=False, save_file="")}
    entry = host.run(graph)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (text,) = entry["outputs"]["export"]["text"]
    return "\n".join(line for line in text.splitlines() if not line.startswith("# ")), entry


def packets(path, kind):
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(**{kind: 0})]


def frames(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0)]


@pytest.fixture(scope="module")
def graph_of(graph, clip):
    """The graph of a case."""

    def make(name):
        widgets, nodes, links = CASES[name]
        made = graph(nodes=nodes, **widgets)
        made["model"]["inputs"].update(links)
        if "voice" in name:
            speech = made["speech"]["inputs"]
            made["voice"] = node("InfiniteTalkVoice", audio=speech["audio"], separate_voice=VOICE)
            whole = {} if name.endswith("alone") else {"soundtrack": speech["audio"]}
            speech.update({"audio": ["voice", 0], **whole})
        if name in DUBS:
            made["image"] = node("LoadVideo", file=clip)
            made["sampler"]["inputs"]["video"] = made["sampler"]["inputs"].pop("image")
        return made

    return make


@pytest.mark.skipif(shutil.which("sh") is None, reason="no sh to run the commands with")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in CASES])
def test_graph_and_command_make_the_same_video(host, graph_of, commands, environment, tmp_path, name):
    """The first command as a user would run it, the others without its start."""
    line, entry = exported(host, graph_of(name))
    if name == next(iter(CASES)):
        given = {"cwd": tmp_path, "env": {**os.environ, **environment}}
        done = subprocess.run(["sh", "-c", line], **given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    else:
        commands.run(host.base / "custom_nodes" / PACK / SCRIPT, line, tmp_path)
    (saved,) = entry["outputs"]["sampler"]["images"]
    ours, theirs = host.base / "output" / saved["subfolder"] / saved["filename"], next(tmp_path.glob("*.mp4"))
    assert frames(ours) == frames(theirs) != []
    assert packets(ours, "video") == packets(theirs, "video")
    assert packets(ours, "audio") == packets(theirs, "audio")
