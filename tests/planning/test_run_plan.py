"""One plan for all: what a dry run prints is what a run does, says and refuses."""

import numpy as np
import pytest
from infinitetalk.pipeline import Generator, Job, Settings
from infinitetalk.pipeline.planning.machine import choose_machine, computes
from infinitetalk.pipeline.planning.memory import VaePlan
from infinitetalk.pipeline.planning.notices import Notice
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.golden.speech import save_wav
from infinitetalk.tests.support import lora_files, random_checkpoint
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def worrying(tmp_path_factory):
    """Inputs and settings with something to say about each: a dot, silence, a LoRA, fp8, TeaCache in vain, a cut."""
    folder = tmp_path_factory.mktemp("worrying")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    save_wav(folder / "silence.wav", np.zeros((12_800, 1), np.int16), 16_000)
    save_file(lora_files.lightx2v_i2v(random_checkpoint.TINY), folder / "lora.safetensors")
    return {
        **{"image": folder / "dot.png", "audio": folder / "silence.wav", "lora_dir": folder / "lora.safetensors"},
        **{"quant": "fp8", "use_teacache": True, "max_frame_num": 17},
    }


def test_a_dry_run_says_what_a_run_says(command, capsys, worrying, tmp_path):
    """All of it, word for word, and nothing is said that the dry run does not know."""
    assert command(**worrying, dry_run=True) == 0
    planned = capsys.readouterr().out.splitlines()
    planned = {(line[:10].strip(), line[10:]) for line in planned if line.startswith(("note", "warning"))}
    assert command(**worrying, quiet=None) == 0
    said = capsys.readouterr().err.splitlines()
    said = {tuple(line.split(": ", 1)) for line in said if line.startswith(("note: ", "warning: "))}
    facts = {line for line in said if line[1].startswith("transformer: ")}  # where it computes; told by the plan itself
    assert said - facts == planned and len(facts) == 1
    for words in ("cannot speed up", "dot.png is only 1x1", "silence.wav is silent", "ends the video after 0.68 s"):
        assert any(kind == "warning" and words in text for kind, text in planned), words
    for words in ("in fp8", "lora.safetensors"):
        assert any(kind == "note" and words in text for kind, text in planned), words


def test_what_is_said_of_loading_is_said_once(model_files, worrying):
    flags = {**model_files, "device": "cpu", "size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 1}
    settings = parse([f"--{name}={value}" for name, value in {**flags, **worrying}.items()])
    job, heard = Job(worrying["image"], worrying["audio"], "p"), []
    generator = Generator(Settings(**{name: getattr(settings, name) for name in vars(settings)}), heard.append)
    plan = generator.plan(job)
    for _ in range(2):
        for _ in generator.windows(job):
            pass
    notices = [event for event in heard if isinstance(event, Notice)]
    warnings = [notice for notice in plan.notices if notice.warning]
    assert notices == [*plan.notices, *warnings]


def test_the_number_of_threads_belongs_to_the_identity_where_the_cpu_computes():
    machine = choose_machine(resolve(Settings(device="cpu")))
    first, second, card = (computes(machine, VaePlan(), "floats", number) for number in (1, 2, None))
    assert dict(first.items() ^ second.items()).keys() == {"the number of threads (--threads)"}
    assert first.keys() - card.keys() == {"the number of threads (--threads)"}
