"""A clear sentence for every file that is no graph, and for every graph that cannot be followed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.graph import from_prompt, graph_of, linked, only, read_graph
from infinitetalk.tests.support.graph_parts import PLAIN, PROMPT, SUBGRAPH, nested, node, sink, source, workflow


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{'nodes': []}", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not a text in UTF-8"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1, 2]", "is not a ComfyUI graph"),
        (b"{}", "is not a ComfyUI graph"),
        (b'{"nodes": 3, "links": []}', "is not a ComfyUI graph"),
        (b'{"a": {"class_type": "K", "inputs": {}}, "b": 1}', "is not a ComfyUI graph"),
        (b'{"a": {"class_type": "K", "inputs": 1}}', "node a has no class_type or no inputs"),
        (b'{"nodes": [], "links": [], "version": 7}', "is a workflow of version 7; 0.4 and 1 are known"),
        (b'{"nodes": [{"type": "K"}], "links": []}', "an entry of nodes has no id or no type"),
        (
            b'{"nodes": [{"id": 1, "type": "K", "inputs": [{"name": "x", "link": 1}]}], "links": [[1, 2]]}',
            "an entry of links is no link",
        ),
    ],
)
def test_files_that_are_no_graph(content, sentence, tmp_path):
    path = tmp_path / "graph.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as refused:
        read_graph(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_graph(tmp_path / "none.json")


def test_links_that_come_from_nowhere():
    for data in (workflow([sink(1)], []), workflow([sink(1)], [[1, 5, 0, 9, 0, "IMAGE"]])):
        graph = graph_of(data, "graph.json")
        with pytest.raises(
            InputError,
            match=r"graph.json: node 9 \(Sink\): its input x comes from (link 1|node 5), which is not in the file",
        ):
            linked(graph, graph.nodes["9"], "x")
    graph = from_prompt({"9": {"class_type": "Sink", "inputs": {"x": ["5", 0]}}})
    with pytest.raises(InputError, match="comes from node 5, which is not in the file"):
        linked(graph, graph.nodes["9"], "x")


def test_circles_are_refused():
    prompt = {str(n): {"class_type": "K", "inputs": {"x": [str(n % 3 + 1), 0]}} for n in (1, 2, 3)}
    with pytest.raises(InputError, match="graph: links run in a circle: node 1"):
        from_prompt(prompt, "graph")
    reroutes = [node(n, "Reroute", [("", "*", n)], ["*"]) for n in (1, 2)]
    data = workflow([*reroutes, sink(3)], [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"], [3, 1, 0, 9, 0, "*"]])
    with pytest.raises(InputError, match=r"links run in a circle through node 1 \(Reroute\)"):
        graph_of(data)


def test_links_that_are_only_in_the_frontends_memory_are_refused():
    with pytest.raises(InputError, match=r"node 3 \(Anything Everywhere\) makes links that are not in the file"):
        graph_of(workflow([node(3, "Anything Everywhere"), sink(None)], []))


def test_group_nodes_are_refused():
    with pytest.raises(InputError, match=r"node 3 \(workflow>mine\) is a group node of old"):
        graph_of(workflow([node(3, "workflow>mine")], []))


def test_one_node_is_chosen_or_named():
    graph = graph_of(workflow([source(), sink(None), node(8, "Sink", title="mine")], []), "graph.json")
    assert only(graph, ("Source",), "sampler").id == "1"
    assert only(graph, ("Sink",), "sampler", "8").title == "mine"
    with pytest.raises(
        InputError, match=r"has 2 samplers; choose one with --node ID: node 9 .Sink., node 8 'mine' .Sink."
    ):
        only(graph, ("Sink",), "sampler")
    with pytest.raises(InputError, match=r"graph.json has no sampler \(A or B\)"):
        only(graph, ("A", "B"), "sampler")
    with pytest.raises(InputError, match="node 1 is Source, no sampler; choose one of: node 9"):
        only(graph, ("Sink",), "sampler", "1")
    with pytest.raises(InputError, match="node 77 is not there"):
        only(graph, ("Sink",), "sampler", "77")


JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-20, 20), st.floats(), st.sampled_from(["", "*", "IMAGE", "9", SUBGRAPH])
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "nodes"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def places(data, path=()):
    """Every place in parsed JSON."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def spoilt(data, path, junk):
    if not path:
        return junk
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = spoilt(data[path[0]], path[1:], junk)
    return copy


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_spoilt_in_a_graph_no_other_error_comes(data):
    """Any part of a workflow replaced by any value: a graph, or one sentence."""
    good = data.draw(st.sampled_from([nested(values=[0.5]), PLAIN, PROMPT]))
    path = data.draw(st.sampled_from(list(places(good))))
    try:
        graph_of(spoilt(good, path, data.draw(JUNK)), "graph.json")
    except InputError as error:
        assert "graph.json" in str(error) and "\n" not in str(error)
