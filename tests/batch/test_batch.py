"""Whole batches by one worker: the videos of single runs, what is skipped, gone on with, remade and refused."""

import json
import shutil

import pytest
from infinitetalk.pipeline.batch.worker import Advanced, Make, Prompts
from infinitetalk.pipeline.commands import batch as command
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.job.output import partial_path
from infinitetalk.pipeline.models.speech_encoder import SpeechEncoder
from infinitetalk.pipeline.run import loaded_models
from infinitetalk.tests.conftest import SMALL
from infinitetalk.tests.support.crews import OneHere
from infinitetalk.tests.support.places import PORTRAIT

pytestmark = pytest.mark.whole

ONE_WINDOW = {"frame_num": 9, "motion_frame": 1, "max_frame_num": 9}


class Batch:
    """Calls ``infinitetalk batch`` with the small models and one worker in this process."""

    def __init__(self, folder, flags, monkeypatch):
        self.folder = folder
        self.out = folder / "out"
        self.flags = [f"--{name}={value}" for name, value in flags.items()]
        self.hear = lambda news: None
        monkeypatch.setattr(command, "LocalCrew", self._crew)

    def _crew(self, cards):
        self.crew = OneHere(lambda news: self.hear(news))
        return self.crew

    def __call__(self, *jobs, words=()):
        """The exit code, for jobs as dicts or lines of text."""
        lines = [job if isinstance(job, str) else json.dumps(job) for job in jobs]
        (self.folder / "jobs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.crew = None
        return main(["batch", "jobs.jsonl", "--out", "out", *self.flags, *words])

    @property
    def results(self):
        return [json.loads(line) for line in (self.out / "results.jsonl").read_text().splitlines()]

    @property
    def states(self):
        return {result["id"]: result["state"] for result in self.results}

    @property
    def made(self):
        """Ids in the order in which they were made."""
        orders = self.crew.orders if self.crew else []
        return [order.task.id for order in orders if isinstance(order, Make)]


@pytest.fixture
def batch(tmp_path, surroundings, model_files, speech, monkeypatch):
    shutil.copy(PORTRAIT, tmp_path / "me.png")
    shutil.copy(speech, tmp_path / "a.wav")
    return Batch(tmp_path, {**model_files, **SMALL, **ONE_WINDOW, "prompt": "p"}, monkeypatch)


def job(id, **more):
    return {"id": id, "image": "me.png", "audio": "a.wav", **more}


def test_videos_are_those_of_single_runs_and_bad_ones_cost_no_other(batch, capfd):
    bad = [job("gone", image="none.png"), job("wrong", sample_steps=0), '{"id": "torn', job("a", base_seed=5)]
    assert batch(job("a", base_seed=1), *bad, job("b/2", base_seed=2, frame_num=13)) == 3
    out, err = capfd.readouterr()
    assert out == "out/results.jsonl\n" and "2 made, 0 there already, 4 failed" in err
    failed = {result["id"]: result["error"] for result in batch.results if result["state"] == "failed"}
    assert failed.keys() == {"gone", "wrong", "line 4", "line 5"}
    assert "none.png does not exist" in failed["gone"] and "--sample_steps" in failed["wrong"]
    done = [result for result in batch.results if result["state"] == "done"]
    assert sorted((each["id"], each["frames"], each["path"]) for each in done) == [
        ("a", 9, "out/a.mp4"),
        ("b/2", 9, "out/b/2.mp4"),
    ]
    assert all(each["seconds"] > 0 for each in done)
    videos = {"a": ["--base_seed=1"], "b/2": ["--base_seed=2", "--frame_num=13"]}
    for id, words in videos.items():
        path = batch.out / f"{id}.mp4"
        bytes_of_batch = path.read_bytes()
        path.unlink()
        single = [f"--image={'me.png'}", "--audio=a.wav", *batch.flags, *words, f"--save_file=out/{id}.mp4"]
        assert main([*single, "--quiet"]) == 0
        assert path.read_bytes() == bytes_of_batch


def test_the_same_command_makes_nothing_again(batch):
    jobs = job("a"), job("any", base_seed=-1), job("gone", image="none.png")
    assert batch(*jobs) == 3
    before = {path: path.stat().st_mtime_ns for path in batch.out.glob("*.mp4")}
    results = batch.results
    assert batch(*jobs) == 3 and batch.made == []
    assert sorted(batch.results, key=str) == sorted(results, key=str)
    (batch.out / "results.jsonl").unlink()
    assert batch(*jobs[:2]) == 0 and batch.made == []
    assert [(each["state"], each["seconds"], each["frames"]) for each in batch.results] == [("done", None, 9)] * 2
    assert {path: path.stat().st_mtime_ns for path in batch.out.glob("*.mp4")} == before


def test_a_changed_job_is_remade_with_overwrite_alone(batch):
    assert batch(job("a"), job("b")) == 0
    changes = [job("a", prompt="q")], [job("a", sample_steps=2)], [job("a", negative_prompt="n")]
    for jobs in changes:
        assert batch(*jobs) == 3 and batch.made == []
        assert "made from something else" in batch.results[0]["error"]
    before = (batch.out / "b.mp4").read_bytes()
    with (batch.folder / "me.png").open("ab") as file:
        file.write(b"more")  # the same picture to all who read it, but another file
    assert batch(job("a")) == 3 and "the reference changed" in batch.results[0]["error"]
    shutil.copy(PORTRAIT, batch.folder / "me.png")
    assert batch(job("a", prompt="q"), job("b"), words=["--overwrite"]) == 0
    assert batch.made == ["a"] and batch.states == {"a": "done", "b": "done"}
    assert (batch.out / "b.mp4").read_bytes() == before
    assert batch(job("a", prompt="q"), job("b")) == 0 and batch.made == []


def test_a_file_of_somebody_else_stays(batch):
    batch.out.mkdir()
    (batch.out / "a.mp4").write_bytes(b"mine")
    (batch.out / "b.mp4").mkdir()
    assert batch(job("a"), job("b"), job("c")) == 3
    assert (batch.out / "a.mp4").read_bytes() == b"mine" and batch.states["c"] == "done"
    assert all("not made here" in each["error"] for each in batch.results if each["state"] == "failed")


@pytest.mark.parametrize("seed", [7, -1])
def test_an_unfinished_video_goes_on(batch, seed):
    jobs = job("a", max_frame_num=20, base_seed=seed), job("b", base_seed=3)

    def stop(news):
        if isinstance(news, Advanced) and (news.id, news.done) == ("a", 2):
            raise KeyboardInterrupt

    batch.hear = stop
    assert batch(*jobs) == 130
    partial = partial_path(batch.out / "a.mp4")
    kept = partial.read_bytes()
    assert len(kept) > 0 and not (batch.out / "a.mp4").exists()
    starts = []
    batch.hear = lambda news: starts.append(news.done) if isinstance(news, Advanced) and news.id == "a" else None
    assert batch(*jobs) == 0 and starts[0] >= 2 and not partial.exists()
    if seed >= 0:
        whole = (batch.out / "a.mp4").read_bytes()
        (batch.out / "a.mp4").unlink()
        batch.hear = lambda news: None
        assert batch(*jobs) == 0 and (batch.out / "a.mp4").read_bytes() == whole


def test_an_unfinished_video_of_another_job_is_begun_anew_with_overwrite_alone(batch):
    def stop(news):
        if isinstance(news, Advanced) and news.done == 1:
            raise KeyboardInterrupt

    batch.hear = stop
    assert batch(job("a", max_frame_num=20)) == 130
    batch.hear = lambda news: None
    changed = job("a", max_frame_num=20, prompt="q")
    assert batch(changed) == 3 and "not the run that was interrupted" in batch.results[0]["error"]
    assert batch(changed, words=["--overwrite"]) == 0


def test_models_prompts_and_speech_are_loaded_and_encoded_once(batch, monkeypatch):
    calls = []

    def counted(place, name):
        original = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *args, **more: calls.append(name) or original(*args, **more))

    for name in ("load_text_encoder", "load_transformer", "load_vae", "load_speech_encoder"):
        counted(loaded_models, name)
    counted(SpeechEncoder, "encode")
    jobs = [job(f"{number}", prompt=f"prompt {number}", sample_text_guide_scale=2 - number % 2) for number in range(4)]
    assert batch(*jobs) == 0
    assert sorted(calls) == ["encode", "load_speech_encoder", "load_text_encoder", "load_transformer", "load_vae"]
    (order,) = (each for each in batch.crew.orders if isinstance(each, Prompts))
    assert set(order.prompts) >= {f"prompt {number}" for number in range(4)} and len(order.prompts) == 5


def test_each_models_are_used_for_all_their_videos_before_the_next(batch):
    jobs = [job(f"{number}", kernels=("auto", "plain")[number % 2]) for number in range(4)]
    assert batch(*jobs) == 0
    assert batch.made == ["0", "2", "1", "3"]


def test_what_is_wrong_for_all_is_said_once(batch, capsys):
    assert batch(job("a"), words=["--frame_num", "80"]) == 2
    assert "--frame_num: 80 found" in capsys.readouterr().err
    assert batch(job("a"), job("b"), words=["--infinitetalk_dir", "none.safetensors"]) == 2
    assert "none.safetensors" in capsys.readouterr().err and not batch.out.exists()
    assert batch(job("a"), words=["--workers", "0"]) == 2
    assert batch(job("a"), words=["--shard", "3/2"]) == 2
    (batch.folder / "mine").write_text("")
    assert main(["batch", "jobs.jsonl", "--out", "mine", *batch.flags]) == 2
    assert "mine" in capsys.readouterr().err


def test_shards_divide_the_jobs(batch):
    jobs = [job(f"{number}") for number in range(3)]
    assert batch(*jobs, words=["--shard", "2/2"]) == 0 and batch.made == ["1"]
    assert batch(*jobs, words=["--shard", "1/2"]) == 0 and batch.made == ["0", "2"]
    assert sorted(path.name for path in batch.out.glob("*.jsonl")) == ["results-1-of-2.jsonl", "results-2-of-2.jsonl"]
    assert batch(*jobs) == 0 and batch.made == []


def test_a_dry_run_makes_nothing_and_sums_up(batch, capsys):
    assert batch(job("a"), job("b", image="none.png"), job("c"), words=["--dry_run"]) == 3
    out = capsys.readouterr().out
    assert "3: 2 to make, 0 there already, 1 refused" in out and "18 frames in 2 windows" in out
    assert "GB of videos" in out and "GiB on the device" in out and "b: --image: none.png does not exist" in out
    assert not batch.out.exists()
    assert batch(job("a")) == 0
    capsys.readouterr()
    assert batch(job("a"), job("c"), words=["--dry_run"]) == 0
    assert "hours of one worker, by the videos that were made here" in capsys.readouterr().out


def test_what_nobody_thought_of_costs_no_other_job(batch, monkeypatch, capsys):
    log = batch.folder / "log"
    monkeypatch.setattr("infinitetalk.pipeline.batch.tasks.open_reference", lambda path: 1 / 0)
    assert batch(job("a"), words=["--log_file", str(log)]) == 3
    assert "a fault of the program ended it (ZeroDivisionError" in batch.results[0]["error"]
    assert "open_reference" in log.read_text()
