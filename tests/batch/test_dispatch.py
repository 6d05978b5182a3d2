"""Who makes what next: nobody waits, workers keep to their models, and what a lost one had is done by another."""

from pathlib import Path

import pytest
from infinitetalk.pipeline.batch.dispatch import ATTEMPTS, Dispatch, Ended, Lost
from infinitetalk.pipeline.batch.results import Result
from infinitetalk.pipeline.batch.tasks import Task, in_order
from infinitetalk.pipeline.batch.worker import Make, Outcome, Prompts
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.job.job import Job
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.support.crews import Scripted


def task(id, dtype="fp32", work=1.0, pixels=1):
    job = Job(Path("me.png"), Path("a.wav"), f"prompt of {id}")
    return Task(id, "", Settings(dtype=dtype, save_file=Path(f"{id}.mp4")), job, windows=1, pixels=pixels, work=work)


class Heard:
    def __init__(self):
        self.begun_by, self.results, self.lost_ones = [], {}, []

    def begun(self, worker, task):
        self.begun_by.append((worker, task.id))

    def told(self, worker, news):
        pass

    def ended(self, task, outcome):
        assert task.id not in self.results
        self.results[task.id] = outcome.result.state

    def lost(self, task, reason, again):
        self.lost_ones.append((task and task.id, reason, again))


def done(worker, order):
    result = None if isinstance(order, Prompts) else Result(order.task.id, "done", 1.0)
    return [Ended(worker, Outcome(result))]


def run(tasks, workers, act=done):
    heard, crew = Heard(), Scripted(workers, act)
    Dispatch(tasks, False, heard).run(crew)
    return heard, crew


def test_prompts_of_all_are_encoded_before_the_first_video_and_then_looked_for_by_each_worker():
    heard, crew = run([task("a"), task("b"), task("c")], "xy")
    kinds = [(worker, type(order)) for worker, order in crew.orders]
    assert kinds[0] == ("x", Prompts) and kinds.count(("y", Prompts)) == 1
    assert all(len(order.prompts) == 4 for _, order in crew.orders if isinstance(order, Prompts))
    assert heard.results == dict.fromkeys("abc", "done")


def test_workers_keep_their_models_and_share_what_is_left():
    tasks = [task(f"{dtype} {number}", dtype) for dtype in ("fp32", "bf16") for number in range(3)]
    heard, crew = run(tasks, "xy")
    models = [{order.task.settings.dtype for name, order in crew.orders if name == worker} for worker in "xy"]
    assert {"fp32"} in models and {"bf16"} in models and len(heard.results) == 6


def test_a_lost_worker_s_task_is_done_by_the_next():
    lost = iter([True, True])

    def act(worker, order):
        if isinstance(order, Make) and order.task.id == "a" and next(lost, False):
            return [Lost(worker, "it was ended")]
        return done(worker, order)

    heard, crew = run([task("a"), task("b")], "xy", act)
    assert heard.results == {"a": "done", "b": "done"}
    assert [(id, again) for id, _, again in heard.lost_ones] == [("a", True)] * 2


def test_a_task_that_ends_every_worker_fails_and_costs_no_other():
    def act(worker, order):
        ends = isinstance(order, Make) and order.task.id == "a"
        return [Lost(worker, "it was ended")] if ends else done(worker, order)

    heard, crew = run([task("a"), task("b")], "x", act)
    assert heard.results == {"a": "failed", "b": "done"} and len(heard.lost_ones) == ATTEMPTS


def test_a_fault_costs_the_worker_and_no_other_task():
    def act(worker, order):
        if isinstance(order, Make) and order.task.id == "a":
            return [Ended(worker, Outcome(Result("a", "failed", error="a fault"), fault="Traceback"))]
        return done(worker, order)

    heard, crew = run([task("a"), task("b")], "x", act)
    assert heard.results == {"a": "failed", "b": "done"} and crew.replaced == ["x"]


def test_workers_that_cannot_begin_end_the_batch():
    crew = Scripted("", done)
    crew._happened = [Lost("x", "no torch")]
    crew.replace = lambda worker: crew._happened.append(Lost("x", "no torch"))
    with pytest.raises(InputError, match="no torch"):
        Dispatch([task("a")], False, Heard()).run(crew)


def test_the_order():
    tasks = [task("big", pixels=9), task("short"), task("other", "bf16"), task("long", work=5), task("small too")]
    assert [each.id for each in in_order(tasks)] == ["long", "short", "small too", "big", "other"]
