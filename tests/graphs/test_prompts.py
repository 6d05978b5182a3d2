"""Prompts of other packs' nodes: what comes to a plain text is that text, all else is refused."""

import json

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.foreign.prompts import core_prompt, queued_prompt, wrapper_prompt
from infinitetalk.tests.graphs.test_native import TWO_WINDOWS, as_ui
from infinitetalk.tests.support.kijai_graphs import export


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ("A woman talks.", "A woman talks."),
        (r"A man \(from Paris\) talks.", "A man (from Paris) talks."),
        ("(A woman:1.0) talks", "A woman talks"),
        ("((A woman:1)) talks", "A woman talks"),  # the inner number rules
        ("a :) smile", "a :) smile"),
        ("a ( b", "a ( b"),
        (r"5\'10 \\n", r"5\'10 \\n"),
        ("", ""),
    ],
)
def test_what_is_a_text_for_comfyui(prompt, meant):
    assert core_prompt(prompt) == meant


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("A woman (smiling) talks.", "'smiling' counts 1.1 times"),
        ("A woman ((smiling)) talks.", "'smiling' counts 1.21 times"),
        ("A (woman:-1.2) talks.", "'woman' counts -1.2 times"),
        ("A (woman: 1.2 ) talks.", "'woman' counts 1.2 times"),
        ("A woman (wide shot, 16:9) talks.", "'wide shot, 16' counts 9 times"),
        ("(a (b:1.0) c)", "'a ' counts 1.1 times"),
        ("embedding:bright, a woman", "names an embedding"),
        ("(" * 2000 + "x" + ")" * 2000, "more than 100 parentheses"),
    ],
)
def test_what_is_more_than_a_text_for_comfyui(prompt, said):
    with pytest.raises(InputError) as error:
        core_prompt(prompt)
    assert said in str(error.value)


def test_prompts_of_the_wrapper():
    assert wrapper_prompt(r"A woman (smiling) \(x\) ((talks))") == r"A woman (smiling) \(x\) ((talks))"
    assert wrapper_prompt("A (woman:1.0) talks") == "A woman talks"
    for prompt in ("A (woman:1.2) talks", "(wide shot, 16:9)", "(a:1.2.3)"):
        with pytest.raises(InputError, match="its prompt has weights, which have no equivalent here"):
            wrapper_prompt(prompt)


def test_what_the_page_makes_of_a_prompt():
    assert queued_prompt("A woman. // light?\nShe smiles. /* no\nt sure */!") == "A woman. \nShe smiles. !"
    assert queued_prompt(r"{one} \{x|y\} a|b") == "one {x|y} a|b"
    with pytest.raises(InputError, match="leaves a choice"):
        queued_prompt("A {young|old} woman")


def test_only_a_saved_workflow_has_choices_and_comments():
    """In the API format the page has made them, and what is left is text."""
    data = json.loads(TWO_WINDOWS.read_text(encoding="utf-8"))
    data["5"]["inputs"]["text"] = "A {young|old} woman // talks"
    assert export(data).settings.prompt == "A {young|old} woman // talks"
    with pytest.raises(InputError, match=r"node 5 \(CLIPTextEncode\): its prompt leaves a choice"):
        export(as_ui(data))
    data["5"]["inputs"]["text"] = "A woman // talks"
    assert export(as_ui(data)).settings.prompt == "A woman"
