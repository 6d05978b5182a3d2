"""A batch on two nodes of Ray on this machine, one killed in mid-run; and a data set's rows. Needs the extra ray."""

import json
import pickle
import shutil
import threading
import time

import numpy as np
import pytest
from infinitetalk.pipeline.batch.cluster import RayCrew
from infinitetalk.pipeline.batch.dataset import TalkingVideos
from infinitetalk.pipeline.batch.dispatch import Ended
from infinitetalk.pipeline.batch.worker import Make
from infinitetalk.pipeline.commands.board import Board
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.job.output import windows_done
from infinitetalk.tests.conftest import SMALL
from infinitetalk.tests.support.places import PORTRAIT

FEW = {"frame_num": 9, "motion_frame": 1}
COUNT = 4


@pytest.fixture
def folder(tmp_path, surroundings, speech):
    shutil.copy(PORTRAIT, tmp_path / "me.png")
    shutil.copy(speech, tmp_path / "a.wav")
    return tmp_path


def manifest(folder):
    jobs = [{"id": f"{seed}", "image": "me.png", "audio": "a.wav", "base_seed": seed} for seed in range(COUNT)]
    bad = {"id": "bad", "image": "none.png", "audio": "a.wav"}
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, [*jobs, bad])))


def flags(model_files):
    return [f"--{name}={value}" for name, value in {**model_files, **SMALL, **FEW, "prompt": "p"}.items()]


@pytest.fixture
def nodes(monkeypatch):
    """A cluster of two nodes, of one processor each; the first is the one that hands out tasks."""
    pytest.importorskip("ray", reason="needs the package ray (the extra ray)")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # handed on: as many as compute here, since they decide last bits
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # a busy machine begins slowly
    small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    small.pop("include_dashboard")
    second = cluster.add_node(**small)
    cluster.wait_for_nodes()
    yield cluster, second
    cluster.shutdown()


def test_one_of_two_nodes_is_killed_and_nothing_is_lost_or_made_twice(nodes, folder, model_files, monkeypatch, capsys):
    cluster, second = nodes
    manifest(folder)
    begun, told, lost, ended = {}, [], [], []
    for name, hear in {
        "begun": lambda worker, task: begun.update({worker: task.path}),
        "told": lambda worker, news: told.append((time.monotonic(), news)),
        "lost": lambda id, reason, again: lost.append((time.monotonic(), id, reason)),
        "ended": lambda id, outcome: ended.append(id),
    }.items():
        before = getattr(Board, name)
        monkeypatch.setattr(Board, name, lambda self, *a, _b=before, _h=hear: (_h(*a), _b(self, *a))[1])

    happenings, give, held, ready = RayCrew.happenings, RayCrew.give, [], set()

    def hold(crew, worker, order):
        """No video begins before both workers can make one, however busy the machine is."""
        held.append((worker, order)) if isinstance(order, Make) and len(ready) < 2 else give(crew, worker, order)

    def hear(crew):
        found = happenings(crew)
        ready.update(each.worker for each in found if isinstance(each, Ended))
        while held and len(ready) == 2:
            give(crew, *held.pop())
        return found

    monkeypatch.setattr(RayCrew, "give", hold)
    monkeypatch.setattr(RayCrew, "happenings", hear)

    def kill():
        while len(begun) < 2 or not all(windows_done(path) for path in begun.values()):
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()
    words = ["batch", "jobs.jsonl", "--out", "out", *flags(model_files)]
    assert main([*words, "--ray", cluster.address]) == 3, capsys.readouterr().err
    results = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted((each["id"], each["state"]) for each in results) == [
        *((f"{seed}", "done") for seed in range(COUNT)),
        ("bad", "failed"),
    ]
    assert len(ended) == len(set(ended)) == COUNT + 1
    assert len(begun) == 2, begun
    ((when, id, _),) = [each for each in lost if each[1] is not None]
    again = [news.done for at, news in told if at > when and news.id == id]
    assert again[0] >= 1  # it goes on after the windows that the lost node made
    videos = {path.name: path.read_bytes() for path in (folder / "out").glob("*.mp4")}
    assert sorted(path.name for path in (folder / "out").iterdir()) == [*sorted(videos), "results.jsonl"]
    for seed in range(COUNT):
        path = folder / "out" / f"{seed}.mp4"
        path.unlink()
        single = ["--image=me.png", "--audio=a.wav", f"--base_seed={seed}", f"--save_file={path.relative_to(folder)}"]
        assert main([*single, *flags(model_files), "--quiet"]) == 0
        assert path.read_bytes() == videos[path.name]


def test_rows_of_a_data_set(folder, model_files):
    videos = TalkingVideos("out", folder, **{**model_files, **SMALL, **FEW}, max_frame_num=9, prompt="p")
    videos = pickle.loads(pickle.dumps(videos))
    batch = {
        "id": np.array(["a", "b", "", "a"]),
        "image": np.array(["me.png", "none.png", "me.png", "me.png"], object),
        "audio": np.array(["a.wav"] * 4),
        "sample_steps": np.array([1.0, np.nan, 1.0, 1.0]),
    }
    found = videos(batch)
    assert found["state"] == ["done", "failed", "failed", "done"] and found["frames"] == [9, 0, 0, 9]
    assert "none.png" in found["error"][1] and "id" in found["error"][2] and found["seconds"][3] == 0
    pickle.loads(pickle.dumps(videos))
    assert [path.name for path in (folder / "out").iterdir()] == ["a.mp4"]


def test_a_data_set_of_ray(folder, model_files, nodes):
    import ray

    pytest.importorskip("pyarrow", reason="needs Ray Data (pip install 'ray[data]')")
    pytest.importorskip("pandas", reason="needs Ray Data (pip install 'ray[data]')")

    cluster, _ = nodes
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        rows = [{"id": f"{seed}", "image": "me.png", "audio": "a.wav", "base_seed": seed} for seed in range(3)]
        given = {**model_files, **SMALL, **FEW, "max_frame_num": 9, "out": folder / "out", "folder": folder}
        mapped = ray.data.from_items(rows, override_num_blocks=3).map_batches(
            TalkingVideos, fn_constructor_kwargs={**given, "prompt": "p"}, concurrency=2, num_cpus=1, batch_size=1
        )
        found = mapped.take_all()
    finally:
        ray.shutdown()
    assert sorted((row["id"], row["state"], row["frames"]) for row in found) == [(f"{n}", "done", 9) for n in range(3)]


def test_without_ray_or_a_cluster_there_is_a_sentence(folder, model_files, monkeypatch, capsys):
    manifest(folder)
    words = ["batch", "jobs.jsonl", "--out", "out", *flags(model_files), "--ray"]
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(words) == 2
    assert 'pip install "infinitetalk[ray]"' in capsys.readouterr().err
