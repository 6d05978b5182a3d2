"""Work beside the main flow: its order, its errors, and how much of it there is at a time."""

import threading

import pytest
from infinitetalk.pipeline.run.recording import Handover

SOON = 10  # seconds, after which a test has failed


def test_the_main_flow_goes_on_and_hears_of_the_end():
    told, going_on, started = [], threading.Event(), threading.Event()

    def work():
        started.set()
        assert going_on.wait(SOON)
        told.append(threading.current_thread() is threading.main_thread())

    with Handover() as handover:
        handover.give(work, lambda: told.append(threading.current_thread() is threading.main_thread()))
        assert started.wait(SOON)
        handover.look()
        assert told == []
        going_on.set()
        handover.wait()
        assert told == [False, True]
        handover.look()
        handover.wait()
    assert told == [False, True]


def test_work_is_done_in_order_and_one_at_a_time():
    order = []
    with Handover() as handover:
        for number in range(5):
            handover.give(
                lambda number=number: order.append(("done", number)),
                lambda number=number: order.append(("told", number)),
            )
        handover.wait()
    assert order == [(what, number) for number in range(5) for what in ("done", "told")]


@pytest.mark.parametrize("call", ["look", "wait", "give"])
def test_an_error_comes_to_the_main_flow_once(call):
    def fail():
        raise OSError("the disk is full")

    told, failed = [], threading.Event()
    with Handover() as handover:
        handover.give(fail, lambda: told.append("done"))
        # nothing public tells of an error before it is asked for, so the work itself is asked
        handover._under_way[0].add_done_callback(lambda _: failed.set())
        assert failed.wait(SOON)
        with pytest.raises(OSError, match="the disk is full"):
            handover.give(lambda: told.append("next"), lambda: None) if call == "give" else getattr(handover, call)()
        handover.wait()
    assert told == []


def test_leaving_waits_for_the_work_under_way():
    done, leaving = [], threading.Event()

    def work():
        assert leaving.wait(SOON)
        done.append(True)

    with pytest.raises(KeyboardInterrupt), Handover() as handover:
        handover.give(work, lambda: done.append("told"))
        leaving.set()
        raise KeyboardInterrupt
    assert done == [True]
