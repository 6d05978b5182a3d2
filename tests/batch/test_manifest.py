"""Manifests: what lines say, whatever wrote them, and what is refused in a sentence that costs no other line."""

import argparse
import json
from pathlib import Path

import pytest
from infinitetalk.pipeline.batch.manifest import read_manifest
from infinitetalk.pipeline.batch.run import shard_of
from infinitetalk.pipeline.batch.tasks import task_of
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.settings.config import Config


@pytest.fixture
def lines(tmp_path):
    """The lines of a manifest with this text."""

    def read(text, ending=".jsonl"):
        path = tmp_path / f"jobs{ending}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_manifest(path)

    return read


def test_three_kinds_say_the_same(lines, tmp_path):
    job = {"id": "a", "image": "me.png", "sample_steps": 8, "lora_scale": [1.0, 0.5], "use_apg": True}
    table = "id,image,sample_steps,lora_scale,use_apg,prompt\r\na,me.png,8,1.0;0.5,yes,\r\n\r\n,,,,,\r\n"
    said = [
        *lines(json.dumps(job) + "\n\n"),
        *lines("\N{BOM}" + json.dumps([job]), ".json"),
        *lines(table, ".csv"),
        *lines("\N{BOM}" + table, ".CSV"),
        *lines(table.replace(",", "\t"), ".tsv"),
        *lines(table.replace(";", "/").replace(",", ";").replace("1.0/0.5", '"1.0;0.5"'), ".csv"),
    ]
    expected = {"image": tmp_path / "me.png", "sample_steps": 8, "lora_scale": (1.0, 0.5), "use_apg": True}
    assert [(line.id, line.values, line.refusal) for line in said] == [("a", expected, "")] * len(said)


def test_values_may_be_written_as_on_a_command_line_or_as_tables_have_them(lines):
    job = {"--sample-steps": "8", "sample_shift": "7", "max_frame_num": 81.0, "lora_dir": "none", "prompt": None}
    (line,) = lines(json.dumps(job))
    assert line.values == {"sample_steps": 8, "sample_shift": 7.0, "max_frame_num": 81, "lora_dir": None}
    assert line.id == "0001" and not line.refusal


def test_paths_are_beside_the_manifest_and_weights_wherever_they_are(lines, tmp_path):
    (tmp_path / "mine.safetensors").touch()
    job = {"image": "a/me.png", "audio": "/b.wav", "lora_dir": ["mine.safetensors", "guide.safetensors"]}
    (line,) = lines(json.dumps(job))
    assert line.values["image"] == tmp_path / "a/me.png" and line.values["audio"] == Path("/b.wav")
    assert line.values["lora_dir"] == (tmp_path / "mine.safetensors", Path("guide.safetensors"))


@pytest.mark.parametrize(
    "job, sentence",
    [
        ("{", "it is not JSON"),
        ("[1]", "an object such as"),
        ('{"imge": "a"}', "did you mean image?"),
        ('{"portrait": "a"}', "did you mean image?"),
        ('{"save_file": "a"}', "named by its id"),
        ('{"gpus": 2}', "for the whole batch"),
        ('{"device": "cpu"}', "for the whole batch"),
        ('{"sample_steps": "many"}', "a whole number expected"),
        ('{"sample_steps": [8]}', "a single value expected"),
        ('{"prompt": {"a": 1}}', "a single value expected"),
        (r'{"prompt": "\ud800"}', "no Unicode"),
        (r'{"image": "a\u0000b"}', "NUL"),
        ('{"id": 1.5}', "a text or a whole number expected"),
        ('{"id": true}', "a text or a whole number expected"),
        *((json.dumps({"id": id}), "cannot name a file") for id in ("../a", "/a", "a//b", ".a", "a.", " a", "a\nb")),
        *((json.dumps({"id": id}), "cannot name a file") for id in ("a:b", "CON", "nul.x", "a.partial", "a\\b", "-a")),
        *((json.dumps({"id": id}), "cannot name a file") for id in ("x" * 201, "\ud800", "a/../b", "a?", "a.TMP")),
    ],
)
def test_a_wrong_line_is_a_job_that_fails(lines, job, sentence):
    wrong, right = lines(job + '\n{"id": "b"}')
    assert sentence in wrong.refusal and wrong.id in ("line 1", "0001")
    assert right.id == "b" and not right.refusal


def test_ids_differ_in_more_than_capitals(lines):
    first, second, third = lines('{"id": "Anna"}\n{"id": "anna"}\n{"id": 7}')
    assert not first.refusal and third.id == "7"
    assert second.id == "line 2" and "is the id of line 1 already" in second.refusal


def test_separators_of_unicode_are_text(lines):
    (line,) = lines('{"prompt": "a\u2028b\u0085c"}')
    assert line.values["prompt"] == "a\u2028b\u0085c"


@pytest.mark.parametrize(
    "text, ending, sentence",
    [
        ("", ".jsonl", "has no jobs in it"),
        ("id,image\n", ".csv", "has no jobs in it"),
        ("[]", ".json", "has no jobs in it"),
        ("{}", ".json", "holds no list"),
        ('{"id": 1}\n{"id": 2}', ".json", "end its name in .jsonl"),
        ("a", ".txt", "is no manifest"),
        ("imge\na\n", ".csv", "did you mean image?"),
        ("image,image\na,b\n", ".csv", "is there twice"),
        ('image\n"a\n', ".csv", "is not CSV"),
        ("image\n你.png\n".encode("gbk"), ".csv", "save it as UTF-8"),
        ('{"image": "a"}'.encode("utf-16"), ".jsonl", "save it as UTF-8"),
    ],
)
def test_a_file_that_says_nothing_is_refused_whole(lines, text, ending, sentence):
    with pytest.raises(InputError, match=sentence.replace("?", r"\?")):
        lines(text, ending)


def test_a_row_with_too_many_cells_fails_alone(lines):
    wrong, right = lines("id,image\na,b.png,c\nb,b.png\n", ".csv")
    assert "3 cells under 2 names" in wrong.refusal and right.id == "b"


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")


def test_a_line_wins_over_flags_and_takes_with_it_what_belongs_to_them(lines, tmp_path):
    flags = argparse.Namespace(image=tmp_path / "me.png", lora_dir=[Path("a")], lora_scale=[0.5], sample_steps=3)
    (tmp_path / "v.mp4").touch()
    (tmp_path / "a.wav").touch()
    (line,) = lines('{"video": "v.mp4", "audio": "a.wav", "prompt": "p", "lora_dir": "none", "sample_steps": 4}')
    task = task_of(line, flags, Config(), tmp_path / "out")
    settings = task.settings
    assert (settings.image, settings.video, settings.sample_steps) == (None, tmp_path / "v.mp4", 4)
    assert settings.lora_dir is None and settings.lora_scale == (1.2,)
    assert settings.save_file == tmp_path / "out" / "0001.mp4"


ARRAY = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_COUNT": "8"}


@pytest.mark.parametrize(
    "word, environment, expected",
    [
        ("2/8", ARRAY | {"SLURM_ARRAY_TASK_ID": "5"}, (1, 8)),
        (None, {}, (0, 1)),
        (None, ARRAY | {"SLURM_ARRAY_TASK_ID": "5"}, (5, 8)),
        (
            None,
            ARRAY | {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4"},
            (2, 4),
        ),
        (None, {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, (3, 4)),
        (None, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (0, 1)),  # a script of sbatch, which starts none
        (None, ARRAY | {"SLURM_ARRAY_TASK_ID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, (3, 16)),
    ],
)
def test_the_shard(word, environment, expected):
    assert shard_of(word, environment) == expected


@pytest.mark.parametrize("word", ["0/8", "9/8", "a/8", "1", "1/0", "-1/8", "1/8/2", "²/3"])
def test_a_wrong_shard(word):
    with pytest.raises(InputError, match="--shard"):
        shard_of(word, {})


def test_an_array_with_gaps_is_no_shard():
    gaps = {"SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_COUNT": "2"}
    with pytest.raises(InputError, match="left out"):
        shard_of(None, gaps | {"SLURM_ARRAY_TASK_ID": "7"})
