"""Graphs that were made to be heavy end in a sentence after bounded work."""

import json

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs import workflow_file
from infinitetalk.pipeline.graphs.graph import MOST_NODES, after, before, from_prompt, graph_of
from infinitetalk.pipeline.graphs.native import reader as native
from infinitetalk.tests.support.graph_parts import node, sink, source, workflow

sources = native._sources


def nested(definitions, each):
    """``definitions`` subgraphs that each hold ``each`` of the next."""
    subgraphs = [
        {"id": f"g{n}", "name": f"g{n}", "links": [], "nodes": [node(i, f"g{n + 1}") for i in range(each)]}
        for n in range(definitions)
    ]
    return {**workflow([node(1, "g0")], []), "definitions": {"subgraphs": subgraphs}}


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
    reroutes = [node(n, "Reroute", [("", "*", n)], ["*"]) for n in range(10, 5010)]
    links = [[n, n - 1 if n > 10 else 1, 0, n, 0, "*"] for n in range(10, 5010)]
    data = workflow([source(), *reroutes, sink(5010)], [*links, [5010, 5009, 0, 9, 0, "*"]])
    with pytest.raises(InputError, match=r"node \d+ \(Reroute\) passes more than 200 nodes that only pass it on"):
        graph_of(data, "graph")


@pytest.mark.parametrize("slot", ["NaN", "-5", "Infinity", "0.5", "-Infinity"])
def test_outputs_that_no_node_has(slot):
    link = json.loads(f'["1", {slot}]')
    prompt = {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "inputs": {"x": link}}}
    with pytest.raises(InputError, match="graph: node 2: its input x is linked to output .*; no node has that"):
        from_prompt(prompt, "graph")
    data = workflow([source(), sink(3)], [[3, 1, json.loads(slot), 9, 0, "*"]])
    with pytest.raises(InputError, match="which no node has|an entry of links is no link"):
        graph_of(data, "graph")


def test_a_prompt_of_too_many_nodes():
    with pytest.raises(InputError, match=f"graph has more than {MOST_NODES} nodes"):
        from_prompt({str(n): {"class_type": "A", "inputs": {}} for n in range(MOST_NODES + 1)}, "graph")


def test_walks_look_at_each_node_once():
    """A chain of thousands: what grew with the square of it would not end."""
    count = 5000
    inputs = {n: {"x": [str(n - 1), 0]} if n else {} for n in range(count)}
    graph = from_prompt({str(n): {"class_type": "A", "inputs": inputs[n]} for n in range(count)}, "graph")
    assert list(after(graph, graph.nodes["0"])) == [str(n) for n in range(1, count)]
    assert len(before(graph, *graph.nodes.values())) == count


def test_a_chain_of_windows_is_walked_once(monkeypatch):
    """Each window takes the frames of all before it: looked at again and again, they would be looked at n^3 times."""
    graph, last = {}, None
    for n in range(100):
        frames = {} if last is None else {"previous_frames": [f"b{n - 1}", 0]}
        graph[f"w{n}"] = {"class_type": "WanInfiniteTalkToVideo", "inputs": frames}
        joined = {"images": [f"w{n}", 3]} if last is None else {"images": [f"w{n}", 3], "more": [f"b{n - 1}", 0]}
        graph[f"b{n}"] = {"class_type": "ImageBatch", "inputs": joined}
        last = n
    read, steps = from_prompt(graph, "graph"), []
    monkeypatch.setattr(native, "_sources", lambda *args: steps.append(1) or sources(*args))
    assert [window.id for window in native._chain(read, read.nodes["w99"])] == [f"w{n}" for n in range(100)]
    assert len(steps) <= 100 * 100 * 2
    assert native.earlier_windows(read) == {f"w{n}" for n in range(99)}
