"""What the page may ask, without a ComfyUI."""

import json

import pytest
from infinitetalk.nodes.comfy.requests import ExportRequest, of_export
from infinitetalk.pipeline.errors import InputError

JSON = "application/json"
HERE = {"Host": "127.0.0.1:8188", "Origin": "http://127.0.0.1:8188"}
SHELLS = ("sh", "PowerShell")
GRAPH = {"1": {"class_type": "A", "inputs": {}}}


def asked(content, kind=JSON, headers=HERE):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return of_export(kind, headers, body, SHELLS)


@pytest.mark.parametrize(
    ("content", "kind", "headers", "words"),
    [
        ([], JSON, HERE, "is a list, an object"),
        (None, JSON, HERE, "is a NoneType"),
        (b"{", JSON, HERE, "is not JSON"),
        (b"\xff", JSON, HERE, "is not JSON"),
        (b"[" * 100_000, JSON, HERE, "is not JSON"),
        (b"9" * 10_000, JSON, HERE, "is not JSON"),
        ({"prompt": [1]}, JSON, HERE, "not a graph in API format"),
        ({"prompt": {"1": 2}}, JSON, HERE, "not a graph in API format"),
        ({"prompt": GRAPH, "shell": "fish\x1b"}, JSON, HERE, r"shell is 'fish\\x1b'"),
        ({"prompt": GRAPH, "shell": ["sh"]}, JSON, HERE, "one of sh, PowerShell"),
        ({"prompt": GRAPH}, "text/plain", HERE, "content type"),
        ({"prompt": GRAPH}, JSON, {**HERE, "Origin": "http://elsewhere.example"}, "Only pages of this ComfyUI"),
        ({"prompt": GRAPH}, JSON, {**HERE, "Origin": "null"}, "Only pages of this ComfyUI"),
        ({"prompt": GRAPH}, JSON, {**HERE, "Origin": "http://[::1"}, "Only pages of this ComfyUI"),
        ({"prompt": {"1": {"class_type": 5}}}, JSON, HERE, "not a graph in API format"),
        ({"prompt": {"1": {"class_type": "A", "inputs": []}}}, JSON, HERE, "not a graph in API format"),
    ],
)
def test_a_wrong_request_gets_a_sentence(content, kind, headers, words):
    with pytest.raises(InputError, match=words):
        asked(content, kind, headers)


def test_what_the_page_sends_is_taken():
    sent = {"prompt": GRAPH, "workflow": {"nodes": []}}
    assert asked(sent) == ExportRequest(GRAPH, None, {"nodes": []})
    assert asked({**sent, "shell": "sh"}, headers={"Host": "x"}).shell == "sh"
    proxied = {"Host": "inner:8188", "X-Forwarded-Host": "outer", "Origin": "https://outer"}
    assert asked(sent, headers=proxied).prompt == GRAPH
