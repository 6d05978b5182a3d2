"""Graphs that were made to be heavy end in a sentence after bounded work."""

import contextlib
import json

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs import workflow_file
from infinitetalk.pipeline.graphs.foreign.prompts import core_prompt, queued_prompt, wrapper_prompt
from infinitetalk.pipeline.graphs.graph import MOST_NODES, after, before, from_prompt, graph_of
from infinitetalk.pipeline.graphs.native import reader as native
from infinitetalk.tests.support import hostile_graphs
from infinitetalk.tests.support.graph_parts import sink, source, workflow
from infinitetalk.tests.support.hostile_graphs import dense, many, nested, reroutes, windows

sources = native._sources


def test_subgraphs_that_double_twenty_times(monkeypatch):
    scopes = []
    made = workflow_file._Scope._inside
    monkeypatch.setattr(workflow_file._Scope, "_inside", lambda *args: scopes.append(1) or made(*args))
    with pytest.raises(InputError, match=f"graph has more than {MOST_NODES} nodes; export the part"):
        graph_of(nested(20, 2), "graph")
    assert len(scopes) <= MOST_NODES


def test_three_thousand_subgraphs_in_each_other():
    with pytest.raises(InputError, match="graph: it has more than 40 subgraphs in each other; unpack some"):
        graph_of(nested(3000, 1), "graph")


def test_five_thousand_reroutes():
    with pytest.raises(InputError, match=r"node \d+ \(Reroute\) passes more than 200 nodes that only pass it on"):
        graph_of(reroutes(5000), "graph")


@pytest.mark.parametrize("slot", ["NaN", "-5", "Infinity", "0.5", "-Infinity"])
def test_outputs_that_no_node_has(slot):
    with pytest.raises(InputError, match="graph: node 2: its input x is linked to output .*; no node has that"):
        from_prompt(hostile_graphs.slot(slot), "graph")
    data = workflow([source(), sink(3)], [[3, 1, json.loads(slot), 9, 0, "*"]])
    with pytest.raises(InputError, match="which no node has|an entry of links is no link"):
        graph_of(data, "graph")


def test_a_prompt_of_too_many_nodes():
    with pytest.raises(InputError, match=f"graph has more than {MOST_NODES} nodes"):
        from_prompt(many(MOST_NODES + 1), "graph")


def test_walks_look_at_each_node_once():
    """A chain of thousands: what grew with the square of it would not end."""
    count = 5000
    inputs = {n: {"x": [str(n - 1), 0]} if n else {} for n in range(count)}
    graph = from_prompt({str(n): {"class_type": "A", "inputs": inputs[n]} for n in range(count)}, "graph")
    assert list(after(graph, graph.nodes["0"])) == [str(n) for n in range(1, count)]
    assert len(before(graph, *graph.nodes.values())) == count


def test_a_chain_of_windows_is_walked_once(monkeypatch):
    """Each window takes the frames of all before it: looked at again and again, they would be looked at n^3 times."""
    read, steps = from_prompt(windows(100), "graph"), []
    monkeypatch.setattr(native, "_sources", lambda *args: steps.append(1) or sources(*args))
    assert [window.id for window in native._chain(read, read.nodes["w99"])] == [f"w{n}" for n in range(100)]
    assert len(steps) <= 100 * 100 * 2
    assert native.earlier_windows(read) == {f"w{n}" for n in range(99)}


def test_a_prompt_of_too_many_links():
    with pytest.raises(InputError, match="graph has more than 100000 links"):
        from_prompt(dense(1100, 101), "graph")


@pytest.mark.parametrize("text", ["(", "/*", "(:1", "{", "(x\n(", "\\(", "(" * 50 + "x:1.0)"])
def test_prompts_are_read_in_time_that_grows_with_them(text):
    """What looked ahead from every parenthesis took hours; no assertion here, but this would not end."""
    prompt = text * (100_000 // len(text))
    for read in (queued_prompt, wrapper_prompt, core_prompt):
        with contextlib.suppress(InputError):
            read(prompt)
        with pytest.raises(InputError, match="its prompt has .* characters"):
            read(prompt + " " * 100_000)
