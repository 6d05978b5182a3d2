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
from infinitetalk.pipeline.graphs.widgets import setting_values
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.tests.support import browser
from infinitetalk.tests.support.places import WORKFLOWS
from infinitetalk.tests.support.preset_moves import Play
from infinitetalk.tests.support.shell import words_of

SEQUENCES = int(os.environ.get("PRESET_SEQUENCES", "4"))
MOVES = 14
READY = "!!(window.app?.graph && app.extensionManager && LiteGraph.registered_node_types.InfiniteTalkSampler)"
DEMO = (WORKFLOWS / "infinitetalk_demo.json").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium or Chrome on the path")


@pytest.fixture(scope="module")
def page(host):
    with browser.browser() as page:
        page.open(host.url)
        page.wait(READY, 120)
        page.run("app.extensionManager.setting.set('Comfy.Workflow.ShowMissingModelsWarning', false)")
        time.sleep(2)
        yield page


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
        expected = setting_values(play.state.counting("loader") | play.state.counting(sampler), FolderFiles(base))
        found = [
            settings_of(graph, FolderFiles(base), ids[sampler]).settings
            for graph in (from_prompt(made["output"]), graph_of(made["workflow"]))
        ]
        if not play.two:  # which is all that the menu exports without a link
            answer = json.loads(host.post("/infinitetalk/export", {"prompt": made["output"], "shell": "sh"}))
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
