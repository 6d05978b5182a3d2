"""Graphs of our own nodes as commands: the same settings, whatever the file's format, and never a wrong command."""

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.command import command
from infinitetalk.pipeline.graphs import widgets
from infinitetalk.pipeline.graphs.graph import read_graph
from infinitetalk.pipeline.graphs.orders import CONTROL
from infinitetalk.pipeline.graphs.places import PortableFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.pipeline.settings.definition import NEGATIVE_PROMPT, Settings, setting_infos, setting_types
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.presets import preset_names
from infinitetalk.pipeline.settings.validation import validate
from infinitetalk.tests.support.our_graphs import exported, graph, node
from infinitetalk.tests.support.places import DATA, QUEUED, ROOT

PINNED = DATA / "comfy_nodes.json"
WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
KINDS = {"INT": int, "FLOAT": float, "BOOLEAN": bool, "STRING": str, "COMBO": str}


# One source of widgets


def test_saved_orders_are_those_of_the_nodes():
    """The server's own list (pinned) has the widgets of every node in the order that we read them in."""
    pinned = json.loads(PINNED.read_text())
    for kind, (order,) in widgets.saved_orders().items():
        theirs = [(name, KINDS[type]) for name, type in pinned[kind]["inputs"] if type in KINDS]
        assert [(name, type) for name, type in order.items() if name != CONTROL] == theirs
    names = list(widgets.saved_orders()["InfiniteTalkSampler"][0])
    assert names[names.index(CONTROL) - 1] == "base_seed"


# The same settings


@pytest.mark.parametrize("name", WORKFLOWS)
def test_saved_and_queued_form_of_a_workflow_give_the_same_command(name):
    saved = settings_of(read_graph(ROOT / "workflows" / f"{name}.json"), PortableFiles())
    queued = settings_of(read_graph(QUEUED / f"{name}.json"), PortableFiles())
    assert (saved.settings, saved.take) == (queued.settings, queued.take)
    with_titles, without = (re.sub(r" '[^']*' \(", " (", " ".join(each.notes)) for each in (saved, queued))
    assert with_titles == without
    assert saved.settings.prompt and (saved.settings.image or saved.settings.video) and saved.settings.audio


NUMBERS = [name for name in widgets.NUMBERS if name != "mode"]
FILES = ("infinitetalk_dir", "text_encoder", "clip_vision", "vae", "tokenizer", "quant_dir")


def _drawn(name):
    info, expected = setting_infos()[name], setting_types()[name]
    if info.choices:
        single = st.sampled_from(info.choices)
    elif expected.kind is Path:
        single = st.sampled_from(["a.safetensors", "sub/ b'c.safetensors", "文件.gguf"]).map(
            lambda p: Path("weights", p)
        )
    elif expected.kind is str:
        single = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(lambda t: t != "--")
    elif expected.kind is bool:
        single = st.booleans()
    elif expected.kind is int:
        least, most = (0 if info.min is None else int(info.min)), (10_000 if info.max is None else int(info.max))
        single = st.integers(least, most)
    else:
        single = st.floats(-9 if info.min is None else info.min, 99 if info.max is None else info.max)
    return st.none() | single if expected.optional else single


DRAWN = {name: _drawn(name) for name in (*widgets.LOADER, *widgets.SAMPLER) if name not in ("size", "dit_path")}
DRAWN |= {
    "size": st.sampled_from(["infinitetalk-720", "96x64"]),
    "frame_num": st.integers(1, 30).map(lambda n: 4 * n + 1),
}
DRAWN |= {"prompt": _drawn("negative_prompt").filter(lambda text: text is not None)}


def possible(values):
    settings = Settings(**values)
    try:
        validate(settings)
    except InputError:
        return False
    return values.get("negative_prompt") != NEGATIVE_PROMPT


@hypothesis.settings(deadline=None, max_examples=150, suppress_health_check=list(hypothesis.HealthCheck))
@given(st.fixed_dictionaries({}, optional=DRAWN).filter(possible), st.booleans())
def test_a_graph_made_from_settings_gives_these_settings(values, full):
    """And its command, through a real sh, gives them again."""
    shown = {name: widgets.widget_value(name, value) for name, value in values.items()}
    shown |= {name: str(Path(shown[name]).relative_to("weights")) for name in FILES if values.get(name) is not None}
    wanted = Settings(
        **{
            "dit_path": "weights/base.safetensors",
            "infinitetalk_dir": "weights/talk.safetensors",
            "prompt": "p",
            **values,
        },
        image="portrait.png",
        audio="speech.wav",
        wav2vec_dir="weights/wav2vec",
        save_file="InfiniteTalk",
    )
    found = exported(graph(**shown))
    assert found.settings == wanted
    text = command(found, "sh", full, ("printf", r"%s\0", "begin")).text
    shell = "bash" if "$'" in text else "sh"  # not every sh knows $'…', which carries control characters
    if shutil.which(shell):
        done = subprocess.run([shell, "-c", text], capture_output=True, check=True)
        assert parse(done.stdout.decode().split("\0")[1:-1]) == wanted


def test_a_chain_of_loras_is_applied_from_its_beginning():
    chain = {
        "6": node("InfiniteTalkLoRA", lora="a.safetensors", scale=0.8),
        "7": node("InfiniteTalkLoRA", lora="sub\\b.safetensors", scale=-1, previous=["6", 0]),
    }
    made = graph(chain)
    made["4"]["inputs"]["lora"] = ["7", 0]
    settings = exported(made).settings
    assert settings.lora_dir == (Path("weights/a.safetensors"), Path("weights/sub/b.safetensors"))
    assert settings.lora_scale == (0.8, -1.0)


def test_the_seed_is_the_one_of_the_next_run_where_the_workflow_changes_it():
    saved = json.loads((ROOT / "workflows" / "infinitetalk_demo.json").read_text())
    (sampler,) = (each for each in saved["nodes"] if each["type"] == "InfiniteTalkSampler")
    position = sampler["widgets_values"].index("fixed")
    sampler["widgets_values"][position - 1 : position + 1] = [2**63 + 1, "randomize"]
    found = ours_of_ui(saved)
    assert found.settings.base_seed == 2**63 + 1 and "randomize" in found.notes[0]


def ours_of_ui(saved, tmp=None):
    from infinitetalk.pipeline.graphs.graph import graph_of

    return settings_of(graph_of(json.loads(json.dumps(saved))), PortableFiles())


def test_widgets_that_were_added_later_have_their_defaults():
    saved = json.loads((ROOT / "workflows" / "infinitetalk_demo.json").read_text())
    (sampler,) = (each for each in saved["nodes"] if each["type"] == "InfiniteTalkSampler")
    del sampler["widgets_values"][-4:]
    older = ours_of_ui(saved).settings
    assert (older.sample_audio_guide_steps, older.seam_frames) == (None, 0)
    sampler["widgets_values"] += [0, 4, 832, 480, "more"]
    with pytest.raises(InputError, match="more widgets than in this version; update InfiniteTalk"):
        ours_of_ui(saved)


# Bad graphs


def spoilt(change):
    def make():
        made = graph()
        change(made)
        return made

    return make


def two_samplers(made):
    made["6"] = copy.deepcopy(made["5"])


def setter(id, name, value):
    return lambda made: made[id]["inputs"].__setitem__(name, value)


def remover(id, name):
    return lambda made: made[id]["inputs"].pop(name)


def through(id, name, kind):
    def change(made):
        made["9"] = node(kind, image=["1", 0])
        made[id]["inputs"][name] = ["9", 0]

    return change


def picked_file(made):
    made["9"] = node("PickFile")
    made["1"]["inputs"]["image"] = ["9", 0]


def lora_circle(made):
    made["8"] = node("InfiniteTalkLoRA", lora="a.safetensors", scale=1, previous=["9", 0])
    made["9"] = node("InfiniteTalkLoRA", lora="a.safetensors", scale=1, previous=["8", 0])
    made["4"]["inputs"]["lora"] = ["8", 0]


def other_presets(made):
    made["8"], made["9"] = (node("InfiniteTalkPreset", preset=name) for name in preset_names()[:2])
    made["4"]["inputs"]["preset"], made["5"]["inputs"]["preset"] = ["8", 0], ["9", 0]


def preset_and_lora(made):
    made["8"] = node("InfiniteTalkLoRA", lora="a.safetensors", scale=1)
    made["9"] = node("InfiniteTalkPreset", preset="01_ultra_fast")
    made["4"]["inputs"] |= {"preset": ["9", 0], "lora": ["8", 0]}


BAD = {
    "no sampler": (lambda made: made.pop("5"), "has no sampler"),
    "two samplers": (two_samplers, r"2 samplers; choose one with --node ID: node 5 .*, node 6"),
    "an unknown model loader": (through("5", "model", "SomeLoader"), "node 5 .* comes from node 9 .*SomeLoader"),
    "an unknown picture": (through("5", "image", "ImageBlur"), "node 9 .*ImageBlur.* no equivalent .* LoadImage"),
    "an unknown sound": (through("3", "audio", "AudioCrop"), "node 9 .*AudioCrop.* no equivalent .* LoadAudio"),
    "an unknown LoRA": (through("4", "lora", "LoraLoader"), "InfiniteTalkLoRA expected"),
    "no model": (remover("5", "model"), "nothing is linked to its input model"),
    "no speech": (remover("5", "speech"), "nothing is linked to its input speech"),
    "no sound": (remover("3", "audio"), "nothing is linked to its input audio"),
    "no picture": (remover("5", "image"), "neither is linked"),
    "picture and video": (through("5", "video", "LoadVideo"), "both are linked"),
    "a link to nowhere": (setter("5", "model", ["77", 0]), "node 77, which is not in the file"),
    "a computed widget": (through("5", "sample_steps", "MathExpression"), "sample_steps is computed by node 9"),
    "a computed prompt": (through("5", "prompt", "SomeLLM"), "prompt is computed by node 9"),
    "a computed file": (picked_file, "image is computed by node 9"),
    "a lacking widget": (remover("5", "size"), "its value size is not in the file"),
    "a circle": (lora_circle, "circle: node [89]"),
    "different presets": (other_presets, "linked to different presets"),
    "a preset with its own LoRA": (preset_and_lora, "brings its own LoRA"),
    "a preset that is not there": (through("5", "preset", "InfiniteTalkPreset"), "preset"),
    "steps out of range": (setter("5", "sample_steps", 1001), "--sample_steps: 1001"),
    "a text for a number": (setter("5", "crf", "low"), "crf: 'low' found, a whole number expected"),
    "no number": (setter("5", "sample_shift", 10**400), "sample_shift: .* a number expected"),
    "infinite steps": (setter("5", "sample_steps", float("inf")), "a whole number expected"),
    "an infinite strength": (setter("5", "apg_norm_threshold", float("inf")), "a finite number expected"),
    "half a step": (setter("5", "sample_steps", 4.5), "a whole number expected"),
    "a number for a text": (setter("5", "size", 480), "--size: 480 found, a text expected"),
    "an unknown solver": (setter("5", "sample_solver", "dpm"), "--sample_solver: 'dpm' found"),
    "an unknown word of a switch": (setter("4", "offload_model", "maybe"), "offload_model: 'maybe' found"),
    "a file out of its folder": (setter("4", "vae", "../../secret.safetensors"), "is not a name in one of ComfyUI's"),
    "a file by its path": (setter("1", "image", "C:\\secret.png"), "is not a name in one of ComfyUI's folders"),
    "a number for a file": (setter("4", "vae", 3), "vae: 3 found, the name of a file expected"),
    "no name of a picture": (setter("1", "image", ""), "names no file; choose one"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_graphs_are_one_sentence_and_no_command(tmp_path, capsys, name):
    change, words = BAD[name]
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(spoilt(change)()))
    assert main(["export", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    with pytest.raises(InputError, match=words):
        exported(spoilt(change)())


BAD_FILES = {
    "invalid JSON": ("{", "not valid JSON"),
    "no graph": ('{"a": 1}', "not a ComfyUI graph"),
    "a list": ("[]", "not a ComfyUI graph"),
    "empty": ("", "not valid JSON"),
    "an unknown version": ('{"version": 99, "nodes": [], "links": []}', "version"),
    "no nodes": ('{"version": 0.4, "nodes": [], "links": []}', "has no sampler"),
    "a node without a class": ('{"1": {"inputs": {}}}', "graph"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_sentence(tmp_path, capsys, name):
    content, words = BAD_FILES[name]
    path = tmp_path / "graph.json"
    path.write_text(content)
    assert main(["export", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err and str(path) in err


@pytest.mark.parametrize(
    "argv", [["none.json"], ["picture.png"], [], ["a.json", "--shell", "cmd"], ["a.json", "--fast"]]
)
def test_bad_calls_are_one_sentence(tmp_path, monkeypatch, capsys, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").touch()
    assert main(["export", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_one_of_several_samplers_is_chosen(tmp_path, capsys):
    made = graph()
    two_samplers(made)
    made["6"]["inputs"] |= {"size": "96x64"}
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"prompt": made}))
    assert main(["export", str(path), "--node", "6"]) == 0
    out, err = capsys.readouterr()
    assert "--size 96x64" in out and "note: Paths are" in err
    assert main(["export", str(path), "--node", "4"]) == 2
    assert "no sampler" in capsys.readouterr().err


# The voice out of a mix


def with_voice(file, **links):
    return graph(
        {
            "3": node("InfiniteTalkAudioEncoder", audio=["6", 0], wav2vec_dir="wav2vec", **links),
            "6": node("InfiniteTalkVoice", audio=["2", 0], separate_voice=file),
        }
    )


@pytest.mark.parametrize(
    ("links", "carried"), [({"soundtrack": ["2", 0]}, "original"), ({}, "voice"), ({"soundtrack": ["6", 0]}, "voice")]
)
def test_a_separated_voice_becomes_a_flag_and_the_soundtrack_another(links, carried):
    settings = exported(with_voice("voice.safetensors", **links)).settings
    assert settings.separate_voice == Path("weights/voice.safetensors") and settings.output_sound == carried
    assert settings.audio == Path("speech.wav")


def test_a_voice_node_without_a_file_is_no_part_of_the_command():
    assert exported(with_voice("none")) == exported(graph())


def test_a_soundtrack_that_is_another_sound_is_refused():
    other = {"7": node("LoadAudio", audio="music.wav")}
    with pytest.raises(InputError, match="soundtrack is neither the mix nor the voice"):
        exported({**with_voice("voice.safetensors", soundtrack=["7", 0]), **other})
    with pytest.raises(InputError, match="soundtrack is another sound"):
        encoder = node("InfiniteTalkAudioEncoder", audio=["2", 0], wav2vec_dir="wav2vec", soundtrack=["7", 0])
        exported(graph({"3": encoder, **other}))
