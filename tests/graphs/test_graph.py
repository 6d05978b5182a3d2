"""Graphs of every format in one normal form."""

import json

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.graph import (
    BYPASSED,
    MUTED,
    Origin,
    computed,
    from_prompt,
    graph_of,
    linked,
    number,
    read_graph,
    text,
    value,
)
from infinitetalk.pipeline.graphs.orders import CONTROL, with_names
from infinitetalk.tests.support.graph_parts import (
    BYPASS,
    INNER,
    MUTE,
    PLAIN,
    PROMPT,
    SUBGRAPH,
    nested,
    node,
    schema_1,
    sink,
    source,
    subgraph,
    with_subgraphs,
    workflow,
)
from infinitetalk.tests.support.places import GRAPHS


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
