"""A graph or a video with other pictures and sounds, as a manifest: what batch reads is what was exported."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
from infinitetalk.pipeline.batch.manifest import read_manifest
from infinitetalk.pipeline.batch.tasks import task_of
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.manifest import manifest
from infinitetalk.pipeline.settings.config import Config
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.presets import settings_with_preset
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.support.places import PORTRAIT, ROOT, SPEECH

OWN = {"image": Path("own.png"), "audio": Path("own.wav"), "prompt": 'It\'s "quoted"\n你好'}
ODD = {"sample_steps": 8, "resize": ("lanczos,crop",), "use_apg": True, "base_seed": 2**63, "seam_frames": 4}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("anna.png", "ben.mp4", "own.png"):
        shutil.copy(PORTRAIT, name)
    for name in ("one.wav", "two.wav", "own.wav"):
        shutil.copy(SPEECH, name)


def read(text):
    Path("jobs.jsonl").write_text(text, encoding="utf-8")
    return [task_of(line, argparse.Namespace(), Config(), Path()) for line in read_manifest(Path("jobs.jsonl"))]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        Settings.of({**OWN, **ODD}),
        settings_with_preset("02_comfyui_equivalent", **OWN, lora_dir=None, blocks_to_swap=None),
        settings_with_preset("05_low_vram", **OWN, **ODD),
    ],
)
def test_what_batch_reads_is_what_was_exported(files, settings, full):
    (task,) = read(manifest(settings, [], [Path("one.wav")], full))
    expected = resolve(settings.replace(audio=Path("one.wav"), save_file=Path("own.mp4")))
    assert task.settings == expected.replace(**{name: getattr(task.settings, name) for name in WHERE})


WHERE = ("ckpt_dir", "infinitetalk_dir", "wav2vec_dir")  # looked up where the models are


def test_pictures_and_sounds_are_paired(files):
    settings = Settings.of(OWN)
    pictures, sounds = [Path("anna.png"), Path("ben.mp4")], [Path("one.wav"), Path("two.wav")]

    def pairs(*given):
        jobs = map(json.loads, manifest(settings, *given).splitlines())
        return [(job["id"], job.get("image") or job["video"], job["audio"]) for job in jobs]

    assert pairs(pictures, sounds) == [("anna_one", "anna.png", "one.wav"), ("ben_two", "ben.mp4", "two.wav")]
    assert pairs(pictures, []) == [("anna", "anna.png", "own.wav"), ("ben", "ben.mp4", "own.wav")]
    assert pairs(pictures[:1], sounds) == [("one", "anna.png", "one.wav"), ("two", "anna.png", "two.wav")]
    assert [id for id, *_ in pairs([pictures[0]] * 2, [sounds[0]] * 2)] == ["anna", "anna_2"]
    with pytest.raises(InputError, match="2 pictures and 3 sounds"):
        manifest(settings, pictures, [*sounds, sounds[0]])
    with pytest.raises(InputError, match="none.png is not a file"):
        manifest(settings, [Path("none.png")], [])


def test_export_prints_it(files, capsys):
    graph = str(ROOT / "workflows/infinitetalk_demo.json")
    assert main(["export", graph, "--pictures", "anna.png", "ben.mp4", "--sounds", "one.wav"]) == 0
    tasks = read(capsys.readouterr().out)
    assert [(task.id, task.job.reference.name, task.job.speech.name) for task in tasks] == [
        ("anna", "anna.png", "one.wav"),
        ("ben", "ben.mp4", "one.wav"),
    ]
    assert main(["export", graph, "--pictures", "anna.png", "--target", "upstream"]) == 2
