"""Several cards in ComfyUI: helpers make the same video, and none is left of a run that ends in any other way."""

import contextlib
import os
import signal

import psutil
import pytest
from infinitetalk.tests.support import comfy_host
from infinitetalk.tests.support.comfy_graphs import texts

PATIENCE = 20  # seconds in which nothing of a run may be left
TWO = {"gpus": 2, "dit_fsdp": True, "vae_tiles": 2}


def helpers(pid):
    return [process for process in psutil.Process(pid).children() if "pipeline.run.helping" in str(process.cmdline())]


def gone(processes):
    return psutil.wait_procs(processes, PATIENCE)[1] == []


def test_helpers_make_the_same_video(host, run, graph, video_of):
    entry, _ = run(graph(base_seed=60, filename_prefix="cards/video", **TWO))
    together = video_of(entry).read_bytes()
    assert len(helpers(host.pid)) == 2
    video_of(entry).unlink()
    alone, _ = run(graph(base_seed=60, filename_prefix="cards/video", vae_tiles=2))
    assert video_of(alone).read_bytes() == without_graph(together, video_of(alone).read_bytes())
    assert gone(helpers(host.pid))  # the other generator has taken their place


@pytest.mark.long
def test_a_cancel_or_a_killed_helper_leaves_none_and_the_next_run_goes_on(host, run, graph, video_of):
    made = graph(base_seed=62, filename_prefix="cards/ended", **TWO)
    with host.listen() as listener, host.hold("window 2/2, step 1/2"):
        prompt = host.queue(made, listener.client)
        listener.until_said("window 2/2, step 1/2")
        working = helpers(host.pid)
        host.post("/interrupt")
        host.go_on()
        seen = listener.until_end(prompt)
    assert len(working) == 2 and gone(working) and seen[-1].type == "execution_interrupted"

    with host.listen() as listener, host.hold("window 2/2, step 1/2"):
        prompt = host.queue(made, listener.client)
        listener.until_said("going on after window 1/2")
        listener.until_said("window 2/2, step 1/2")
        working = helpers(host.pid)
        os.kill(working[1].pid, signal.SIGKILL)
        host.go_on()
        seen = listener.until_end(prompt)
    assert gone(working) and seen[-1].type == "execution_error"
    assert "The process of card 2 of 2 was ended from outside (SIGKILL)" in seen[-1].data["exception_message"]

    entry, seen = run(made)
    assert any("going on after window 1/2" in text for text in texts(seen))
    resumed = video_of(entry).read_bytes()
    video_of(entry).unlink()
    alone, _ = run(graph(base_seed=62, filename_prefix="cards/ended", vae_tiles=2))
    assert video_of(alone).read_bytes() == without_graph(resumed, video_of(alone).read_bytes())
    assert gone(helpers(host.pid))


def without_graph(video, other):
    """The first, if it differs from the other at most in the graph that it carries."""
    start = video.index(b"mdat")
    return other if video[start:] == other[other.index(b"mdat") :] else video


@pytest.mark.long
def test_helpers_end_with_a_server_that_is_killed(installed, base, environment, graph):
    made = graph(base_seed=61, filename_prefix="cards/killed", **TWO)
    with comfy_host.running(installed.source, installed.python, base, environment) as doomed:
        with doomed.listen() as listener, contextlib.suppress(OSError), doomed.hold("window 1/2, step 1/2"):
            doomed.queue(made, listener.client)
            listener.until_said("window 1/2, step 1/2")
            working = helpers(doomed.pid)
            os.kill(doomed.pid, signal.SIGKILL)
    assert len(working) == 2 and gone(working)
