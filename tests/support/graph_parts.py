"""Parts of workflows, as ComfyUI's page saves them."""

MUTE, BYPASS = 2, 4
SUBGRAPH, INNER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


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
