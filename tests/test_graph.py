"""Graphs of every format in one normal form, and a clear sentence for every graph that is none."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.graph import (
    BYPASSED,
    MUTED,
    Origin,
    computed,
    from_prompt,
    graph_of,
    linked,
    number,
    only,
    read_graph,
    text,
    value,
)
from infinitetalk.pipeline.export.orders import CONTROL, with_names

MUTE, BYPASS = 2, 4
SUBGRAPH, INNER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
GRAPHS = Path(__file__).parent / "data" / "graphs"


def node(identity, kind, inputs=(), outputs=(), values=None, mode=0, **more):
    """A node as the UI saves it. Inputs are (name, type, link) or (name, type, link, True) for a widget's."""
    entries = [
        {"name": name, "type": kind_, "link": link, **({"widget": {"name": name}} if widget else {})}
        for name, kind_, link, *widget in inputs
    ]
    return {
        **{"id": identity, "type": kind, "mode": mode, "inputs": entries},
        **{"outputs": [{"name": kind_, "type": kind_} for kind_ in outputs], "widgets_values": values, **more},
    }


def workflow(nodes, links, **more):
    return {"nodes": nodes, "links": links, "version": 0.4, **more}


def schema_1(data):
    """The same workflow in the newer schema, where links are dicts."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {**data, "version": 1, "links": [dict(zip(keys, link, strict=True)) for link in data["links"]]}


def subgraph(identity, nodes, links, inputs=(), outputs=(), name="Inside"):
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {
        **{"id": identity, "name": name, "version": 1, "nodes": nodes},
        "links": [dict(zip(keys, link, strict=True)) for link in links],
        "inputs": [{"name": name_, "type": kind} for name_, kind in inputs],
        "outputs": [{"name": name_, "type": kind} for name_, kind in outputs],
    }


def with_subgraphs(nodes, links, *subgraphs):
    return workflow(nodes, links, definitions={"subgraphs": list(subgraphs)})


def sink(link, kind="IMAGE", **more):
    return node(9, "Sink", [("x", kind, link)], **more)


def source(identity=1, kind="IMAGE"):
    return node(identity, "Source", [], [kind])


PLAIN = workflow([source(), sink(1)], [[1, 1, 0, 9, 0, "IMAGE"]])
PROMPT = {"1": {"class_type": "Source", "inputs": {}}, "9": {"class_type": "Sink", "inputs": {"x": ["1", 0]}}}


@pytest.mark.parametrize(
    "data",
    [PLAIN, schema_1(PLAIN), PROMPT, {"prompt": PROMPT}, {"output": PROMPT, "workflow": PLAIN}, {"workflow": PLAIN}],
    ids=["0.4", "1", "api", "queued", "graphToPrompt", "wrapped"],
)
def test_every_format_gives_the_same_graph(data, tmp_path):
    path = tmp_path / "graph.json"
    path.write_text("\ufeff" + json.dumps(data), encoding="utf-8")
    graph = read_graph(path)
    assert [(n.id, n.kind, n.links) for n in graph.nodes.values()] == [
        ("1", "Source", {}),
        ("9", "Sink", {"x": Origin("1", 0)}),
    ]
    assert linked(graph, graph.nodes["9"], "x") is graph.nodes["1"]


def links_of(data, identity="9"):
    return graph_of(data).nodes[identity].links


def test_reroutes_and_set_and_get_nodes_pass_through():
    nodes = [
        source(),
        node(2, "Reroute", [("", "*", 1)], ["*"]),
        node(3, "SetNode", [("IMAGE", "IMAGE", 2)], ["*"], ["face"]),
        node(4, "GetNode", [], ["IMAGE"], ["face"]),
        node(5, "Note", values=["a note"]),
        sink(3),
    ]
    links = [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"], [3, 4, 0, 9, 0, "IMAGE"]]
    assert links_of(workflow(nodes, links)) == {"x": Origin("1", 0)}
    assert graph_of(workflow(nodes, links)).nodes.keys() == {"1", "9"}


def test_a_bypassed_node_passes_on_the_input_of_its_type():
    filter_ = node(2, "Filter", [("m", "MASK", 5), ("a", "IMAGE", 1)], ["IMAGE", "MASK"], ["w"], BYPASS)
    nodes = [source(), source(4, "MASK"), filter_, sink(2)]
    links = [[1, 1, 0, 2, 1, "IMAGE"], [5, 4, 0, 2, 0, "MASK"], [2, 2, 0, 9, 0, "IMAGE"]]
    graph = graph_of(workflow(nodes, links))
    assert graph.nodes["9"].links == {"x": Origin("1", 0)}
    (skipped,) = graph.skipped
    assert (skipped.node.id, skipped.node.positional, skipped.why) == ("2", ("w",), BYPASSED)


def test_a_bypassed_node_prefers_the_input_at_the_same_place():
    pair = node(2, "Pair", [("a", "IMAGE", 1), ("b", "IMAGE", 2)], ["IMAGE", "IMAGE"], mode=BYPASS)
    nodes = [source(), source(4), pair, sink(3)]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 4, 0, 2, 1, "IMAGE"], [3, 2, 1, 9, 0, "IMAGE"]]
    assert links_of(workflow(nodes, links)) == {"x": Origin("4", 0)}


def test_a_bypassed_node_without_such_an_input_passes_nothing():
    nodes = [source(), node(2, "Encode", [("a", "IMAGE", 1)], ["LATENT"], mode=BYPASS), sink(2, "LATENT")]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 9, 0, "LATENT"]]
    assert links_of(workflow(nodes, links)) == {}


def test_a_muted_node_is_not_there():
    nodes = [node(1, "Source", [], ["IMAGE"], mode=MUTE), sink(1)]
    graph = graph_of(workflow(nodes, PLAIN["links"]))
    assert graph.nodes.keys() == {"9"} and graph.skipped[0].why == MUTED
    with pytest.raises(InputError, match=r"node 9 \(Sink\): nothing is linked to its input x \(muted: node 1"):
        linked(graph, graph.nodes["9"], "x")


# ---- subgraphs


def nested(values=(), inner_values=(), **more):
    """Source -> 10 [ -> 3 [ -> Blur (2) -> ] -> ] -> Sink, the blur's strength promoted twice."""
    blur = node(2, "Blur", [("a", "IMAGE", 1), ("strength", "FLOAT", 2, True)], ["IMAGE"], [0.25])
    inner = subgraph(
        INNER,
        [blur],
        [[1, -10, 0, 2, 0, "IMAGE"], [2, -10, 1, 2, 1, "FLOAT"], [3, 2, 0, -20, 0, "IMAGE"]],
        [("a", "IMAGE"), ("strength", "FLOAT")],
        [("out", "IMAGE")],
    )
    holder = [("a", "IMAGE", 1), ("strength", "FLOAT", 2, True)]
    outer = subgraph(
        SUBGRAPH,
        [node(3, INNER, holder, ["IMAGE"], list(inner_values))],
        [[1, -10, 0, 3, 0, "IMAGE"], [2, -10, 1, 3, 1, "FLOAT"], [3, 3, 0, -20, 0, "IMAGE"]],
        [("a", "IMAGE"), ("strength", "FLOAT")],
        [("out", "IMAGE")],
    )
    instance = node(
        10, SUBGRAPH, [("a", "IMAGE", 1), ("strength", "FLOAT", None, True)], ["IMAGE"], list(values), **more
    )
    links = [[1, 1, 0, 10, 0, "IMAGE"], [2, 10, 0, 9, 0, "IMAGE"]]
    return with_subgraphs([source(), instance, sink(2)], links, outer, inner)


def test_subgraphs_take_their_place_under_ids_of_comfyui():
    graph = graph_of(nested())
    assert graph.nodes["9"].links == {"x": Origin("10:3:2", 0)}
    assert graph.nodes["10:3:2"].links == {"a": Origin("1", 0)}
    assert str(graph.nodes["10:3:2"]) == "node 10:3:2 (Blur)"


def test_what_comfyuis_page_saves_and_queues_is_the_same_graph():
    """Subgraphs in each other with promoted widgets, Set and Get nodes, a reroute: both files are from one page."""
    saved, queued = (read_graph(GRAPHS / f"kijai_nested{end}.json") for end in ("", "_api"))
    assert {name: (n.kind, n.links) for name, n in queued.nodes.items()} == {
        name: (n.kind, {slot: origin for slot, origin in n.links.items() if origin.node in queued.nodes})
        for name, n in saved.nodes.items()
        if n.kind != "PrimitiveNode"
    }


def strength(data, identity="10:3:2"):
    graph = with_names(graph_of(data), {"Blur": ({"strength": float},)})
    return value(graph, graph.nodes[identity], "strength")


def test_the_value_of_a_promoted_widget_is_the_outermost():
    assert strength(nested()) == 0.25
    assert strength(nested(inner_values=[0.5])) == 0.5
    assert strength(nested(values=[0.75], inner_values=[0.5])) == 0.75


def test_widgets_promoted_without_an_input_reach_the_node_inside():
    seeds = node(2, "Blur", [("a", "IMAGE", None)], ["IMAGE"], [0.25])
    inside = subgraph(SUBGRAPH, [seeds], [[3, 2, 0, -20, 0, "IMAGE"]], (), [("out", "IMAGE")])

    def instance(identity, values, entry):
        return node(identity, SUBGRAPH, [], ["IMAGE"], values, properties={"proxyWidgets": [entry]})

    nodes = [
        instance(10, [], ["2", "strength"]),
        instance(11, [0.5], ["2", "strength"]),
        instance(12, [], ["2", "strength", None, {"value": 0.75}]),
    ]
    data = with_subgraphs(nodes, [], inside)
    assert [strength(data, f"{number_}:2") for number_ in (10, 11, 12)] == [0.25, 0.5, 0.75]


def test_a_widget_promoted_through_two_subgraphs_has_the_outermost_value():
    inner = subgraph(INNER, [node(2, "Blur", [("a", "IMAGE", None)], ["IMAGE"], [0.25])], [])
    holder = node(3, INNER, [], [], [0.5], properties={"proxyWidgets": [["2", "strength"]]})
    outer = subgraph(SUBGRAPH, [holder], [])

    def instance(identity, values):
        return node(identity, SUBGRAPH, [], [], values, properties={"proxyWidgets": [["3", "strength"]]})

    data = with_subgraphs([instance(10, []), instance(11, [0.75])], [], outer, inner)
    assert [strength(data, f"{number_}:3:2") for number_ in (10, 11)] == [0.5, 0.75]


def test_a_subgraph_may_pass_an_input_straight_on():
    inside = subgraph(SUBGRAPH, [], [[1, -10, 0, -20, 0, "IMAGE"]], [("a", "IMAGE")], [("out", "IMAGE")])
    nodes = [source(), node(10, SUBGRAPH, [("a", "IMAGE", 1)], ["IMAGE"]), sink(2)]
    links = [[1, 1, 0, 10, 0, "IMAGE"], [2, 10, 0, 9, 0, "IMAGE"]]
    assert links_of(with_subgraphs(nodes, links, inside)) == {"x": Origin("1", 0)}


def test_a_bypassed_or_muted_subgraph():
    assert links_of(nested(mode=BYPASS)) == {"x": Origin("1", 0)}
    muted = graph_of(nested(mode=MUTE))
    assert muted.nodes["9"].links == {} and muted.nodes.keys() == {"1", "9"}


def test_a_get_node_in_a_subgraph_sees_the_set_nodes_outside():
    inside = subgraph(
        SUBGRAPH, [node(4, "GetNode", [], ["IMAGE"], ["face"])], [[1, 4, 0, -20, 0, "IMAGE"]], (), [("out", "IMAGE")]
    )
    nodes = [
        source(),
        node(3, "SetNode", [("i", "IMAGE", 1)], ["*"], ["face"]),
        node(10, SUBGRAPH, [], ["IMAGE"]),
        sink(2),
    ]
    links = [[1, 1, 0, 3, 0, "IMAGE"], [2, 10, 0, 9, 0, "IMAGE"]]
    assert links_of(with_subgraphs(nodes, links, inside)) == {"x": Origin("1", 0)}


def test_a_subgraph_that_contains_itself_is_refused():
    inside = subgraph(SUBGRAPH, [node(3, SUBGRAPH)], [], name="Snake")
    with pytest.raises(InputError, match="subgraph Snake contains itself"):
        graph_of(with_subgraphs([node(10, SUBGRAPH)], [], inside))


# ---- values


def test_widgets_by_the_names_of_inputs():
    inputs = [("model", "MODEL", None), ("seed", "INT", None, True), ("steps", "INT", None, True)]
    graph = graph_of(workflow([node(1, "K", inputs, values=[7, "fixed", 4]), node(2, "K", inputs, values=[7, 4])], []))
    assert [n.values for n in graph.nodes.values()] == [{"seed": 7, "steps": 4}] * 2


def test_a_list_that_the_inputs_do_not_explain_stays_a_list():
    """Inputs that an old version saved are no key to the widgets of a newer one."""
    inputs = [("a", "INT", None, True), ("c", "INT", None, True)]
    (found,) = graph_of(workflow([node(1, "K", inputs, values=[1, 2, 3])], [])).nodes.values()
    assert found.values == {} and found.positional == (1, 2, 3)


def test_widgets_that_are_stored_by_name():
    nodes = [node(1, "VHS", values={"crf": 19}), node(2, "K", values=[1], widgets_values_named={"steps": 4})]
    assert [n.values for n in graph_of(workflow(nodes, [])).nodes.values()] == [{"crf": 19}, {"steps": 4}]


@pytest.mark.parametrize(
    "constant",
    [
        node(1, "PrimitiveNode", [], ["INT"], [12, "randomize"]),
        node(1, "PrimitiveInt", [], ["INT"], [12, "fixed"]),
        node(1, "INTConstant", [], ["INT"], [12]),
        node(1, "Int", [], ["INT"], ["12"]),
    ],
    ids=lambda entry: entry["type"],
)
def test_nodes_that_hold_a_constant_give_its_value(constant):
    nodes = [constant, node(2, "K", [("steps", "INT", 1, True)], values=[99])]
    graph = graph_of(workflow(nodes, [[1, 1, 0, 2, 0, "INT"]]))
    assert value(graph, graph.nodes["2"], "steps") == 12
    assert computed(graph, graph.nodes["2"], "steps") is None


def test_a_value_that_a_node_computes_is_refused():
    prompt = {
        "1": {"class_type": "Sum", "inputs": {"a": 1}},
        "2": {"class_type": "K", "inputs": {"steps": ["1", 0], "cfg": 1.0000000000000002, "name": "x", "off": None}},
    }
    graph = from_prompt(prompt, "graph.json")
    sampler = graph.nodes["2"]
    with pytest.raises(
        InputError, match=r"graph.json: node 2 \(K\): steps is computed by node 1 \(Sum\), which is not run here; type"
    ):
        value(graph, sampler, "steps")
    assert computed(graph, sampler, "steps") is graph.nodes["1"]
    assert number(graph, sampler, "cfg") == 1.0 and text(graph, sampler, "name") == "x"
    for wrong in ("name", "off"):
        with pytest.raises(InputError, match=f"node 2 .K.: {wrong} is .*, where a number was expected"):
            number(graph, sampler, wrong)
    with pytest.raises(InputError, match="its value shift is not in the file"):
        value(graph, sampler, "shift")
    assert value(graph, sampler, "shift", 5) == 5


ORDERS = {"K": ({"seed": int, CONTROL: str, "steps": int, "cfg": float}, {"seed": int, "steps": int, "cfg": float})}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, "fixed", 4, 1], {"seed": 1, CONTROL: "fixed", "steps": 4, "cfg": 1}),
        ([1, 4, 1.5], {"seed": 1, "steps": 4, "cfg": 1.5}),
        ([1, 4, 1], {"seed": 1, "steps": 4, "cfg": 1}),
        ([1, "fixed", 4], {"seed": 1, CONTROL: "fixed", "steps": 4}),
        ([1, 4, 1.5, "of a later version"], {"seed": 1, "steps": 4, "cfg": 1.5}),
    ],
)
def test_an_order_is_chosen_by_length_and_types(values, expected):
    graph = with_names(graph_of(workflow([node(1, "K", values=values)], [])), ORDERS)
    assert graph.nodes["1"].values == expected


def test_a_list_in_no_known_order_has_no_values():
    graph = with_names(graph_of(workflow([node(1, "K", values=[True, "x", 4])], [])), ORDERS)
    with pytest.raises(InputError, match=r"node 1 \(K\): its 3 widgets are in an order that no known version"):
        value(graph, graph.nodes["1"], "steps", 4)


# ---- bad graphs


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
