"""Presets in a real page: whatever was done before, a node shows its own values overlaid by the preset's.

``PRESET_SEQUENCES`` says how many random sequences are played (``make test-browser`` plays fifty).
"""

import json
import os
import time
from pathlib import Path

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.graph import from_prompt, graph_of
from infinitetalk.pipeline.graphs.places import FolderFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.pipeline.graphs.widgets import saved_orders, setting_values
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.presets import preset_names
from infinitetalk.tests.support import browser
from infinitetalk.tests.support.places import WORKFLOWS
from infinitetalk.tests.support.preset_moves import Play
from infinitetalk.tests.support.shell import words_of

SEQUENCES = int(os.environ.get("PRESET_SEQUENCES", "4"))
MOVES = 14
SIDES = {"width": 192, "height": 192}  # of the demo's own size, which no move changes
READY = "!!(window.app?.graph && app.extensionManager && LiteGraph.registered_node_types.InfiniteTalkSampler)"
DEMO = (WORKFLOWS / "infinitetalk_demo.json").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium or Chrome on the path")


@pytest.fixture(scope="module")
def page(host, base):
    with browser.browser() as page:
        page.open(host.url)
        page.wait(READY, 120)
        page.run("app.extensionManager.setting.set('Comfy.Workflow.ShowMissingModelsWarning', false)")
        time.sleep(2)
        yield page


@pytest.fixture
def play(page):
    return Play(page, DEMO, 0, two=True)


def link_all(play):
    for node in play.nodes:
        play.do(f"play.link('preset', 0, '{node}', 'preset')")
        play.state.ruled[node] = "preset"


def choose(play, name):
    play.do(f"play.set('preset', 'preset', '{name}')")
    play.state.presets["preset"] = name


def expect(play):
    for node in play.nodes:
        assert play.read(node) == play.state.shown(node), node


@pytest.mark.parametrize("names", ["02 01 04", "04 03", "05 02", "01 06 02 05 03"])
def test_a_preset_leaves_nothing_behind(play, names):
    by_number = {name[:2]: name for name in preset_names()}
    play.do("play.set('first', 'sample_steps', 33)")
    play.state.own["first"]["sample_steps"] = 33
    link_all(play)
    for number in names.split():
        choose(play, by_number[number])
        expect(play)
    play.do("play.reload()")
    expect(play)
    made = play.page.run("app.graphToPrompt()")["output"]
    held = {entry["_meta"]["title"]: entry["inputs"] for entry in made.values()}
    for node, own in play.state.own.items():  # by which another preset may be set in the prompt itself
        assert {name: held[node][name] for name in own} == own
    for node in play.nodes:
        play.do(f"play.unlink('{node}', 'preset')")
        play.state.ruled[node] = None
    expect(play)
    assert play.read("first")["sample_steps"] == (33, False)


def test_a_graph_that_was_saved_with_a_presets_values_goes_back_to_defaults(play):
    """As earlier versions saved it: what the widgets held before is not in the file."""
    link_all(play)
    choose(play, "02_comfyui_equivalent")
    play.do(
        """(async () => {
      const saved = JSON.parse(JSON.stringify(app.graph.serialize()))
      for (const node of saved.nodes) {
        if (!["loader", "first"].includes(node.title)) continue
        delete node.properties.widgets_hold
        const shown = Object.fromEntries(play.of(node.title).widgets.map((each) => [each.name, each.value]))
        node.widgets_values = ORDERS[node.type].map((name) => shown[name])
      }
      await app.loadGraphData(saved)
    })()""".replace("ORDERS", json.dumps({kind: list(order) for kind, (order,) in saved_orders().items()}))
    )
    expect(play)
    choose(play, "04_high_quality")
    shown = {**play.read("loader"), **play.read("first")}
    assert shown["quant"] == ("none", False) and shown["max_frame_num"] == (0, False)
    assert shown["sample_steps"] == (40, True)


def prompt_of(page):
    made = page.run("app.graphToPrompt()")["output"]
    return {entry["_meta"]["title"]: entry["inputs"] for entry in made.values()}, made


def test_values_that_come_by_a_link_win_over_a_preset(play, page, host):
    link_all(play)
    choose(play, "03_balanced")
    play.do("play.feed('PrimitiveNode', 12, 'first', 'sample_steps')")
    play.do("play.feed('PrimitiveFloat', 2.5, 'first', 'sample_shift')")
    assert play.read("first")["sample_steps"] == (12, False) and not play.read("first")["sample_shift"][1]
    held, made = prompt_of(page)
    assert held["first"]["linked_widgets"] == "sample_steps" and "linked_widgets" not in held["second"]
    made = {name: entry for name, entry in made.items() if entry["_meta"]["title"] != "second"}
    answer = json.loads(host.post("/infinitetalk/export", {"prompt": made, "shell": "sh"}))
    assert "command" in answer, answer
    found = parse(words_of(answer["command"]))
    assert (found.preset, found.sample_steps, found.sample_shift) == ("03_balanced", 12, 2.5)
    play.do("play.remove('first sample_steps')")
    assert play.read("first")["sample_steps"] == (8, True)


TWICE = """(async () => {
  play.fold("first")
  const [node] = app.graph.nodes.filter((each) => each.subgraph)
  const input = (name) => play.of("first").inputs.find((each) => each.name === name)
  node.subgraph.addInput("preset", "INFINITETALK_PRESET").connect(input("preset"), play.of("first"))
  const copy = node.clone()
  app.graph.add(copy)
  for (const [index, { link }] of node.inputs.entries()) {
    const found = app.graph.getLink(link)
    if (found) app.graph.getNodeById(found.origin_id).connect(found.origin_slot, copy, index)
  }
  for (const [title, each] of [["preset", node], ["other", copy]]) {
    play.of(title).connect(0, each, each.inputs.findIndex((one) => one.name === "preset"))
  }
})()"""


def test_a_subgraph_that_stands_twice_has_a_preset_in_each_place(play, page):
    choose(play, "03_balanced")
    play.do("play.set('other', 'preset', '03_balanced')")
    play.do(TWICE)
    assert play.read("first")["sample_steps"] == (8, True)
    play.do("play.set('other', 'preset', '04_high_quality')")
    shown = play.read("first")
    assert shown["sample_steps"] == (4, False) and shown["sample_shift"] == (7, True)
    assert "8 / 40" in page.run("play.widget('first', 'sample_steps').label")
    own = {name: play.state.own["first"][name] for name in ("sample_steps", "sample_shift", "use_apg")}
    inner = [each["inputs"] for each in prompt_of(page)[1].values() if each["_meta"]["title"] == "first"]
    assert len(inner) == 2 and all({name: each[name] for name in own} == own for each in inner)
    page.run("""(() => {
      const { subgraph } = app.graph.nodes.find((each) => each.subgraph)
      const first = play.of("first")
      subgraph.addInput("steps", "INT").connect(first.inputs.find((each) => each.name === "sample_steps"), first)
      for (const [index, node] of app.graph.nodes.filter((each) => each.subgraph).entries()) {
        node.widgets.find((each) => each.name === "steps").value = 17 + index
      }
    })()""")
    inner = [each["inputs"] for each in prompt_of(page)[1].values() if each["_meta"]["title"] == "first"]
    assert [(each["sample_steps"], each["linked_widgets"]) for each in inner] == [
        (17, "sample_steps"),
        (18, "sample_steps"),
    ]


QUEUED_SEEDS = """(async () => {
  const { api } = window.comfyAPI.api
  const { queuePrompt } = api
  const seeds = []
  api.queuePrompt = async (number, { output }) => {
    seeds.push(Object.values(output).find((each) => each._meta.title === "first").inputs.base_seed)
    return { node_errors: {} }
  }
  try {
    await app.queuePrompt(0, 3)
  } finally {
    api.queuePrompt = queuePrompt
  }
  return seeds
})()"""


def test_the_seed_is_free_and_counts_in_batches(play, page):
    link_all(play)
    play.do("play.set('first', 'base_seed', 7)")
    play.do("play.set('first', 'control_after_generate', 'increment')")
    assert page.run(QUEUED_SEEDS) == [7, 8, 9]
    play.do("play.set('first', 'control_after_generate', 'randomize')")
    assert len(set(page.run(QUEUED_SEEDS))) == 3
    play.do("play.feed('PrimitiveNode', 50, 'first', 'base_seed')")
    play.do("play.of('first base_seed').widgets[1].value = 'decrement'")
    assert page.run(QUEUED_SEEDS) == [50, 49, 48]


def test_the_export_nodes_text_survives_tabs_and_undo(play, page):
    page.run("""(async () => {
      for (const title of ["second", "preset", "other"]) play.remove(title)
      app.graph.convertToSubgraph(new Set(app.graph.nodes.filter((node) => node.type === "InfiniteTalkExport")))
      play.widget("first", "size").value = "64x64"
      play.set("first", "max_frame_num", 5)
      play.set("first", "sample_steps", 1)
      await play.done(true)
      await app.queuePrompt(0)
    })()""")
    shown = """(() => {
      const all = (graph) => graph.nodes.flatMap((node) => [node, ...(node.subgraph ? all(node.subgraph) : [])])
      const node = all(app.graph).find((each) => each.type === "InfiniteTalkExport")
      return node.widgets.find((each) => each.name === "infinitetalk-command")?.value
    })()"""
    text = page.wait(shown, 120)
    assert "generate_infinitetalk.py" in text
    page.wait("Object.values(app.nodeOutputs).some((each) => each.images?.length)", 120)  # the end of the run
    play.do("play.tabs()", check=False)
    assert page.run(shown) == text
    play.do("play.set('first', 'crf', 30)")
    play.do("play.undo()", check=False)
    assert page.run(shown) == text


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_after_any_moves_widgets_show_and_export_says_what_follows(page, host, base, seed):
    play = Play(page, DEMO, seed)
    for _ in range(MOVES):
        play.move()
        for node in play.nodes:
            assert play.read(node) == play.state.shown(node), f"{node} after\n{play.told()}"
    made = page.run("app.graphToPrompt()")
    ids = {entry["_meta"]["title"]: name for name, entry in made["output"].items()}
    for sampler in play.nodes[1:]:
        names = {play.state.preset(node) for node in ("loader", sampler)} - {None}
        if len(names) > 1:
            with pytest.raises(InputError, match="different presets"):
                settings_of(from_prompt(made["output"]), FolderFiles(base), ids[sampler])
            continue
        counting = play.state.counting("loader") | play.state.counting(sampler) | SIDES
        expected = setting_values(counting, FolderFiles(base))
        found = [
            settings_of(graph, FolderFiles(base), ids[sampler]).settings
            for graph in (from_prompt(made["output"]), graph_of(made["workflow"]))
        ]
        if not play.two:  # which is all that the menu exports without a link
            answer = json.loads(host.post("/infinitetalk/export", {"prompt": made["output"], "shell": "sh"}))
            assert "command" in answer, answer
            found.append(parse(words_of(answer["command"])))
        for settings in found:
            differs = differing(settings, expected)
            assert not differs, f"{differs} after\n{play.told()}"
            assert bool(settings.lora_dir) == (play.state.preset("loader") not in (None, "04_high_quality"))


def differing(found, expected):
    """Settings that are not as expected: what they are, and what was expected."""
    pairs = {name: (getattr(found, name), value) for name, value in expected.items()}
    return {name: pair for name, pair in pairs.items() if len({*map(real, pair)}) == 2}


def real(value):
    return value.resolve() if isinstance(value, Path) else value
