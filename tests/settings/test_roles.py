"""Roles of settings: what resume, the generator, info, the exporters and the nodes make of each, by name.

``EXPECTED`` is written by hand and knows no roles, so a wrong role differs from it. ``LISTS`` are those that were kept
by hand before roles were.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from infinitetalk.pipeline.checkpoints.locate import find_model_files
from infinitetalk.pipeline.commands.info import describe
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.command import command, flags
from infinitetalk.pipeline.export.exported import Exported
from infinitetalk.pipeline.export.upstream import upstream_command
from infinitetalk.pipeline.graphs import widgets
from infinitetalk.pipeline.graphs.places import PortableFiles
from infinitetalk.pipeline.graphs.video import read_video
from infinitetalk.pipeline.job.identity import run_identity
from infinitetalk.pipeline.job.job import load_job
from infinitetalk.pipeline.job.record import record_of
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.run.generator import Generator
from infinitetalk.pipeline.settings.definition import Settings, names_on, names_with, setting_infos, setting_types
from infinitetalk.pipeline.settings.roles import EFFECTS, OWNERS, Node, Role, setting
from infinitetalk.pipeline.settings.validation import resolve, validate

# The words


def test_a_setting_without_roles_is_none():
    with pytest.raises(TypeError, match="roles"):
        setting(None, "what it does", group="Video")


@pytest.mark.parametrize("name", setting_infos())
def test_a_setting_says_whose_it_is_and_what_it_does_to_frames(name):
    info = setting_infos()[name]
    assert len(info.roles & OWNERS) == len(info.roles & EFFECTS) == 1, info.roles
    assert Role.UPSTREAM not in info.roles or Role.UNSAID not in info.roles
    assert info.landed or info.refusal
    assert Role.FOLLOWS not in info.roles or setting_types()[name].optional


@pytest.mark.parametrize("node", Node)
def test_places_of_widgets_are_taken_once_and_without_gaps(node):
    (order,) = widgets.saved_orders()[node]
    theirs = {widgets.PREFIX, widgets.CONTROL, *widgets.USUAL_SIDES} if node is Node.SAMPLER else set()
    assert len(order) == len(names_on(node)) + len(theirs)
    places = sorted(setting_infos()[name].widgets[node] for name in names_on(node))
    words = list(order)
    assert sorted([*places, *(words.index(word) for word in theirs)]) == list(range(len(order)))


# The lists that were kept by hand

MODEL_FILES = """ckpt_dir infinitetalk_dir wav2vec_dir dit_path text_encoder clip_vision vae tokenizer
separate_voice silence"""
TOGETHER = "gpus ulysses_size ring_size t5_fsdp dit_fsdp"
OWNED = f"""{MODEL_FILES} lora_dir lora_scale lora_mode lora_ignore_unmatched quant quant_dir quant_matmul device
threads dtype attention kernels t5_cpu offload_model blocks_to_swap num_persistent_param_in_dit"""
FREE = f"""save_file overwrite resume quiet dry_run {TOGETHER} preset audio_save_dir input_json image video audio
speaker audio_type timeline prompt negative_prompt {MODEL_FILES} lora_dir lora_ignore_unmatched quant_dir quant_matmul
offload_model num_persistent_param_in_dit blocks_to_swap device threads dtype attention kernels
vae_dtype vae_tiles vram_limit"""
SPEAKERS = "speaker audio_type timeline"
UNTOLD = f"""image video audio {SPEAKERS} input_json prompt negative_prompt save_file overwrite resume quiet dry_run
{TOGETHER}"""
PASSING = f"overwrite resume quiet dry_run {TOGETHER}"
UNWRITTEN = "audio_mode scene_seg input_json audio_save_dir"
UPSTREAM = """task size frame_num max_frame_num ckpt_dir infinitetalk_dir quant_dir wav2vec_dir lora_dir lora_scale
offload_model ulysses_size ring_size t5_fsdp t5_cpu dit_fsdp save_file base_seed input_json motion_frame mode
sample_steps sample_shift sample_text_guide_scale sample_audio_guide_scale num_persistent_param_in_dit use_teacache
teacache_thresh use_apg apg_momentum apg_norm_threshold color_correction_strength scene_seg quant"""
SILENT = f"""{SPEAKERS} gpus image video audio prompt negative_prompt input_json preset save_file crf overwrite resume
quiet dry_run audio_mode audio_save_dir device threads dtype attention kernels quant_matmul lora_ignore_unmatched
blocks_to_swap sample_solver vae_dtype vae_tiles"""
NOT_TAKEN = f"input_json image video audio {SPEAKERS} prompt negative_prompt"
FOLLOWING = "sample_steps sample_shift max_frame_num"
LOADER = """dit_path infinitetalk_dir text_encoder clip_vision vae tokenizer quant quant_dir quant_matmul lora_mode
lora_ignore_unmatched dtype attention kernels offload_model t5_cpu blocks_to_swap num_persistent_param_in_dit vae_dtype
vram_limit vae_tiles gpus dit_fsdp"""
SAMPLER = """prompt negative_prompt size mode frame_num motion_frame max_frame_num color_correction_strength
sample_steps sample_shift sample_solver sample_text_guide_scale sample_audio_guide_scale base_seed
control_after_generate use_apg apg_momentum apg_norm_threshold use_teacache teacache_thresh crf filename_prefix
sample_audio_guide_steps seam_frames width height"""


def names_without(roles):
    return [name for name, info in setting_infos().items() if not info.roles & roles]


def test_roles_give_the_lists_that_were_kept_by_hand():
    told_upstream = set(setting_infos()) - set(UPSTREAM.split()) - set(SILENT.split())
    assert set(names_with(Role.MODELS)) == set(OWNED.split())
    assert set(names_without(Role.FRAMES)) == set(FREE.split())
    assert {*names_with(Role.JOB), *names_with(Role.RUN)} == set(UNTOLD.split())
    assert set(names_with(Role.RUN)) == set(PASSING.split())
    written = set(re.findall(r"--(\w+)", " ".join(flags(resolve(Settings()), full=True))))
    unset = {name for name in setting_infos() if getattr(resolve(Settings()), name) is None}
    assert set(setting_infos()) - written - unset == {*UNWRITTEN.split(), *PASSING.split()} - set(widgets.OPTIONAL)
    assert set(names_with(Role.UPSTREAM)) == set(UPSTREAM.split())
    needless = Role.JOB | Role.RUN | Role.MACHINE | Role.UNREAD | Role.LATER | Role.UNSAID
    assert set(names_without(Role.UPSTREAM | needless)) == told_upstream
    assert set(names_with(Role.JOB | Role.CONTENT)) == set(NOT_TAKEN.split())
    assert set(names_with(Role.FOLLOWS)) == set(FOLLOWING.split())


def test_saved_widgets_have_the_order_that_they_always_had():
    orders = {kind: list(order) for kind, (order,) in widgets.saved_orders().items()}
    assert orders == {
        "InfiniteTalkPreset": ["preset"],
        "InfiniteTalkModelLoader": LOADER.split(),
        "InfiniteTalkLoRA": ["lora", "scale"],
        "InfiniteTalkAudioEncoder": ["wav2vec_dir"],
        "InfiniteTalkVoice": ["separate_voice"],
        "InfiniteTalkSampler": SAMPLER.split(),
    }
    assert widgets.TEXTS == ("prompt", "negative_prompt")


# Each setting in turn

# setting: what resume compares (its value; the content that it names; what is chosen by it; nothing) | whether it
# belongs to the generator | whether info tells it | whether our own command has it | what upstream's script is told of
# it (by a flag, in its JSON, in a comment) | whether a video's settings, exported, have it again
EXPECTED = """
input_json                  | content | -   | -   | yes | json      | -
image                       | content | -   | -   | yes | json      | yes
video                       | content | -   | -   | yes | json      | yes
audio                       | content | -   | -   | yes | json      | yes
speaker                     | content | -   | -   | yes | said      | yes
audio_type                  | -       | -   | -   | yes | -         | -
timeline                    | content | -   | -   | yes | said      | yes
bind                        | value   | -   | yes | yes | said      | yes
prompt                      | content | -   | -   | yes | json      | yes
negative_prompt             | content | -   | -   | yes | said      | yes
audio_mode                  | refused
scene_seg                   | refused
task                        | refused
ckpt_dir                    | content | yes | yes | yes | flag      | yes
infinitetalk_dir            | content | yes | yes | yes | flag      | yes
wav2vec_dir                 | content | yes | yes | yes | flag      | yes
separate_voice              | content | yes | yes | yes | said      | yes
silence                     | content | yes | yes | yes | said      | yes
dit_path                    | content | yes | yes | yes | said      | yes
text_encoder                | content | yes | yes | yes | said      | yes
clip_vision                 | content | yes | yes | yes | said      | yes
vae                         | content | yes | yes | yes | said      | yes
tokenizer                   | content | yes | yes | yes | said      | yes
lora_dir                    | content | yes | yes | yes | flag      | yes
lora_scale                  | value   | yes | yes | yes | flag      | yes
lora_mode                   | value   | yes | yes | yes | said      | yes
lora_ignore_unmatched       | -       | yes | yes | yes | -         | yes
quant                       | value   | yes | yes | yes | said      | yes
quant_dir                   | content | yes | yes | yes | flag+said | yes
quant_matmul                | choice  | yes | yes | yes | -         | yes
size                        | value   | -   | yes | yes | said      | yes
mode                        | value   | -   | yes | yes | flag      | yes
frame_num                   | value   | -   | yes | yes | flag      | yes
motion_frame                | value   | -   | yes | yes | flag      | yes
max_frame_num               | value   | -   | yes | yes | flag      | yes
color_correction_strength   | value   | -   | yes | yes | flag      | yes
whole_windows               | value   | -   | yes | yes | said      | yes
pack                        | value   | -   | yes | yes | said      | yes
resize                      | value   | -   | yes | yes | said      | yes
clip_crop                   | value   | -   | yes | yes | said      | yes
color_method                | value   | -   | yes | yes | said      | yes
seam_frames                 | value   | -   | yes | yes | said      | yes
preset                      | -       | -   | yes | yes | -         | yes
sample_steps                | value   | -   | yes | yes | flag      | yes
sample_shift                | value   | -   | yes | yes | flag      | yes
sample_solver               | value   | -   | yes | yes | said      | yes
sample_schedule             | value   | -   | yes | yes | said      | yes
sample_text_guide_scale     | value   | -   | yes | yes | flag      | yes
text_guide_schedule         | value   | -   | yes | yes | said      | yes
sample_audio_guide_scale    | value   | -   | yes | yes | flag      | yes
sample_audio_guide_steps    | value   | -   | yes | yes | said      | yes
speech_strength             | value   | -   | yes | yes | said      | yes
image_strength              | value   | -   | yes | yes | said      | yes
base_seed                   | value   | -   | yes | yes | flag      | yes
noise                       | value   | -   | yes | yes | said      | yes
window_seeds                | value   | -   | yes | yes | said      | yes
sample_start_step           | value   | -   | yes | yes | said      | yes
sample_end_step             | value   | -   | yes | yes | said      | yes
use_apg                     | value   | -   | yes | yes | flag      | yes
apg_momentum                | value   | -   | yes | yes | flag      | yes
apg_norm_threshold          | value   | -   | yes | yes | flag      | yes
use_teacache                | value   | -   | yes | yes | flag      | yes
teacache_thresh             | value   | -   | yes | yes | flag      | yes
offload_model               | -       | yes | yes | yes | flag      | yes
t5_cpu                      | value   | yes | yes | yes | flag      | yes
num_persistent_param_in_dit | -       | yes | yes | yes | flag      | yes
blocks_to_swap              | -       | yes | yes | yes | said      | yes
device                      | choice  | yes | yes | yes | -         | yes
threads                     | choice  | yes | yes | yes | -         | yes
dtype                       | choice  | yes | yes | yes | -         | yes
vae_dtype                   | choice  | -   | yes | yes | -         | yes
vae_tiles                   | choice  | -   | yes | yes | -         | yes
vram_limit                  | -       | -   | yes | yes | said      | yes
attention                   | choice  | yes | yes | yes | -         | yes
kernels                     | choice  | yes | yes | yes | -         | yes
gpus                        | -       | -   | -   | yes | -         | -
ulysses_size                | -       | -   | -   | -   | flag      | -
ring_size                   | -       | -   | -   | -   | flag      | -
t5_fsdp                     | -       | -   | -   | -   | flag      | -
dit_fsdp                    | -       | -   | -   | yes | flag      | -
save_file                   | -       | -   | -   | yes | flag      | -
audio_save_dir              | refused
crf                         | value   | -   | yes | yes | -         | yes
output_sound                | value   | -   | yes | yes | said      | yes
overwrite                   | -       | -   | -   | -   | -         | -
resume                      | -       | -   | -   | -   | -         | -
quiet                       | -       | -   | -   | -   | -         | -
dry_run                     | -       | -   | -   | -   | -         | -
"""
ROWS = {
    row[0]: row[1:] for row in ([word.strip() for word in line.split("|")] for line in EXPECTED.split("\n") if line)
}
SPECIAL = {
    "size": "96x64",
    "output_sound": "speech",
    "speaker": ("region=left",),
    "timeline": "channels",
    "resize": ("lanczos,crop",),
    "window_seeds": (3, 4),
    "device": "cuda:1",
    "vae_dtype": "bf16",
    "preset": "04_high_quality",
    "prompt": "q",
    "negative_prompt": "r",
}
NEEDS = {"quant_dir": {"quant": "fp8"}, "lora_scale": {"lora_dir": ("a.safetensors",)}}
NEEDS |= {"video": {"image": None}, "input_json": {"prompt": None}}
NEEDS |= {"sample_schedule": {"sample_solver": "comfy:euler"}, "window_seeds": {"noise": "comfy"}}


def another(name):
    """A valid value that is not the default."""
    info, expected, default = setting_infos()[name], setting_types()[name], getattr(Settings(), name)
    if name in SPECIAL:
        return SPECIAL[name]
    if info.choices:
        return next(choice for choice in info.choices if choice != default)
    if expected.kind is bool:
        return not default
    if expected.kind is int:
        return max(int(info.min or 0), default or 0) + 4
    if expected.kind is float:
        number = 2.5 if info.max is None or info.max > 2.5 else (info.min + info.max) / 2 + 0.25
    else:
        number = expected.kind(f"another_{name}")
    return (number,) if expected.several else number


def paths(name):
    """The files that a setting names, if it does."""
    value = another(name)
    return [] if setting_types()[name].kind is not Path else list(value) if isinstance(value, tuple) else [value]


@pytest.fixture(scope="module")
def base(weights, tmp_path_factory):
    """Settings of a job, with other files beside those it names; paths are relative to their folder."""
    folder = tmp_path_factory.mktemp("job")
    for name in ("image", "audio", *(path for each in setting_infos() for path in paths(each))):
        (folder / name).write_text(str(name))
    texts = {"prompt": "of the JSON", "cond_video": "image", "cond_audio": {"person1": "audio"}}
    (folder / "another_input_json").write_text(json.dumps(texts))
    files = {"ckpt_dir": weights.ckpt_dir, "infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    for name in ("ckpt_dir", "wav2vec_dir"):
        (folder / f"another_{name}").unlink()
        (folder / f"another_{name}").symlink_to(files[name])
    return Settings(**files, image=folder / "image", audio=folder / "audio", prompt="p", device="cpu")


@pytest.fixture(scope="module")
def generator(base):
    return Generator(base)


def changed(base, name):
    """The settings with another value of one, and those they are to be compared with."""
    needs, value, folder = NEEDS.get(name, {}), another(name), base.image.parent
    if paths(name):
        value = tuple(folder / path for path in value) if isinstance(value, tuple) else folder / value
    before = base.replace(**{key: other for key, other in needs.items() if other is not None})
    return base.replace(**needs, **{name: value}), before


def differing(old, new):
    return {name for name in {**old, **new} if old.get(name) != new.get(name)}


def of_resume(generator, settings, before, name):
    """What resume compares."""
    pair, jobs = (before, settings), (load_job(before), load_job(settings))
    if belongs(generator, settings):  # another generator's, so what it chooses is not known here
        found = [{key: str(path) for key, path in files(each).items()} for each in pair]
        different = differing(*(run_identity(resolve(s), jobs[0], w, {}) for s, w in zip(pair, found, strict=True)))
    else:
        different = differing(*(generator.identity(job, s) for job, s in zip(jobs, pair, strict=True)))
    if name in different:
        return "value"
    if any(each.startswith("the ") for each in different):
        return "content"
    return "choice" if different or Role.MACHINE in setting_infos()[name].roles else "-"


def files(settings):
    try:
        return find_model_files(settings).by_name()
    except InputError:  # of the LoRA that only the strength is for
        return {}


def belongs(generator, settings):
    try:
        generator.identity(load_job(settings), settings)
    except InputError as error:
        assert "belongs to the generator" in str(error)
        return True
    return False


def of_info(settings, name):
    record = record_of(resolve(settings), load_job(settings))
    return any(line.startswith(f"--{name} ") for line in describe(record).splitlines())


def of_command(settings, name):
    return f"--{name}" in re.split(r"[ =]", command(Exported(settings), "sh").text.replace("\n", " "))


def of_upstream(settings, before, name):
    """Where upstream's command has it: a flag, its JSON, a comment, or nowhere."""
    (flag, inputs, said), old = (
        parts(upstream_command(Exported(each), "sh").text, name) for each in (settings, before)
    )
    found = {"flag": flag != old[0], "json": inputs != old[1], "said": said != old[2]}
    return "+".join(word for word, differs in found.items() if differs) or "-"


def parts(text, name):
    """A command for upstream: its flag of this name with its values, the JSON, and the comments."""
    said = [line for line in text.split("\n") if line.startswith("# ")]
    inputs, line = re.fullmatch(r".*?\ncat > .*?\n({.*?)\nEOF\n(.*)", text, re.DOTALL).groups()
    return re.search(rf"--{name}\b.*?(?=\s--|\Z)|$", line, re.DOTALL)[0], inputs, said


def of_video(settings, name, path):
    """Whether a video's settings have it again, without its default being written."""
    metadata = record_of(resolve(settings), load_job(settings))
    with VideoWriter(path, VideoFormat(64, 64), metadata=vars(metadata)) as writer:
        writer.write_window(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
        writer.finish()
    return getattr(read_video(path, PortableFiles()).settings, name) == getattr(settings, name)


def test_every_setting_is_expected_to_be_something():
    assert list(ROWS) == list(setting_infos())


@pytest.mark.parametrize("name", ROWS)
def test_each_setting_in_turn(generator, base, tmp_path, name):
    settings, before = changed(base, name)
    if ROWS[name] == ["refused"]:
        with pytest.raises(InputError, match=f"^--{name}: "):
            validate(settings)
        return
    found = [
        of_resume(generator, settings, before, name),
        belongs(generator, settings),
        of_info(settings, name),
        of_command(settings, name),
        of_upstream(settings, before, name),
        of_video(settings, name, tmp_path / "video.mp4"),
    ]
    assert [{True: "yes", False: "-"}.get(each, each) for each in found] == ROWS[name]


def test_what_is_chosen_is_compared(generator, base):
    """By the name of what was chosen: the value alone is "auto" on any machine."""
    keys = {"device": "device", "dtype": "dtype", "vae_dtype": "VAE's dtype", "attention": "attention"}
    keys["vae_tiles"] = "VAE's tiles"
    keys |= {"kernels": "kernels", "quant_matmul": "products", "threads": "the number of threads (--threads)"}
    assert keys.keys() == set(names_with(Role.MACHINE))
    compared = generator.identity(load_job(base), base)
    assert "auto" not in [compared[key] for key in keys.values()]
