"""The pack in a real page, in a headless Chromium: template browser, presets, a run, the export command, Chinese."""

import json
import os
import time
import urllib.parse
from pathlib import Path

import pytest
from infinitetalk.tests.support import browser
from infinitetalk.tests.support.comfy_graphs import PACK as NAME
from infinitetalk.tests.support.places import QUEUED, WORKFLOWS

PICTURES = os.environ.get("SAVE_PICTURES")  # a folder, to keep pictures for the README
LOSES_TEXTS = (1, 28), (1, 36)  # these pages forget a node pack's translations (ComfyUI_frontend, pull request 7214)
READY = "!!(window.app?.graph && app.extensionManager && LiteGraph.registered_node_types.InfiniteTalkSampler)"
NODE = "(type => app.graph.nodes.find((node) => node.type === type))"
CENTRE = """
(text) => {
  const found = [...document.querySelectorAll('*')].filter(
    (each) =>
      each.textContent.trim() === text && each.getBoundingClientRect().width && !each.querySelector(':scope > *')
  )
  if (!found.length) return null
  found.at(-1).scrollIntoView({ block: 'nearest' })
  const box = found.at(-1).getBoundingClientRect()
  return [box.x + box.width / 2, box.y + box.height / 2]
}
"""

pytestmark = pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium or Chrome on the path")


@pytest.fixture(scope="module")
def page(host):
    """These tests come before those that need models, so the server has but the pack, as after an installation."""
    with browser.browser() as page:
        open_page(page, host)
        yield page


def open_page(page, host):
    page.open(host.url)
    page.wait(READY, 120)
    page.run("app.extensionManager.setting.set('Comfy.Workflow.ShowMissingModelsWarning', false)")
    page.run("app.extensionManager.setting.set('LiteGraph.Canvas.MinFontSizeForLOD', 0)")
    page.run("app.extensionManager.setting.set('Comfy.NodeBadge.NodeSourceBadgeMode', 'None')")
    time.sleep(2)


def click_text(page, text):
    page.click(*point_at(page, text))


def point_at(page, text):
    x, y = page.wait(f"({CENTRE})({json.dumps(text)})", 20)
    page.move(x, y)
    return x, y


def click(page, selector):
    x, y = page.run(
        f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2] })()"
    )
    page.move(x, y)
    page.click(x, y)


def picture(page, name):
    if PICTURES:
        time.sleep(1)
        page.picture(Path(PICTURES) / name)


def load(page, name):
    workflow = (WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")
    page.run(f"app.loadGraphData({workflow})")
    page.run("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    time.sleep(1)


def make_small(page):
    """What the demo's graph would make, in little."""
    for name, value in (("size", "96x96"), ("frame_num", 17), ("max_frame_num", 17)):
        found = widget("InfiniteTalkSampler", name)
        page.run(f"(() => {{ const w = {found}; w.value = {json.dumps(value)}; w.callback?.(w.value) }})()")


def widget(node, name):
    return f"{NODE}('{node}').widgets.find((each) => each.name === '{name}')"


def ours(console):
    return [
        line for line in console if NAME in line or "nfinite" in line.replace("api.comfy.org", "").split(" http")[0]
    ]


def test_template_browser_offers_the_demo_and_it_runs(page, host):
    page.run("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    click_text(page, NAME)
    page.wait("!!document.querySelector('[data-testid=\"template-workflow-infinitetalk_demo\"] img')?.naturalWidth")
    picture(page, "templates.png")
    click(page, '[data-testid="template-workflow-infinitetalk_demo"] img')
    page.wait(f"!!{NODE}('InfiniteTalkSampler')")
    assert page.run("app.graph.nodes.filter((node) => !(node.type in LiteGraph.registered_node_types)).length") == 0
    assert "missing" not in page.run("document.body.innerText").lower()

    sampler = page.run(f"{NODE}('InfiniteTalkSampler').id")
    make_small(page)
    page.run("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    with host.hold("step 3/4"):
        click(page, "[data-testid=queue-button]")
        page.wait(f"app.nodePreviewImages['{sampler}']?.length > 0", 120)
        picture(page, "preview.png")
    saved = page.wait(f"({{...app.nodeOutputs['{sampler}']?.images?.[0]}})", 120)  # newer pages give a view of it
    assert (host.base / "output" / saved["subfolder"] / saved["filename"]).is_file()
    page.wait("[...document.querySelectorAll('video')].some((video) => video.videoWidth === 96)", 60)
    shown = "[...document.querySelectorAll('textarea')].find((area) => area.readOnly)?.value"
    assert "generate_infinitetalk.py" in page.wait(shown, 60)
    picture(page, "finished.png")
    export = page.run(f"{NODE}('InfiniteTalkExport').id")
    graph = page.run("app.graphToPrompt()")  # what is shown is neither queued nor saved
    assert sorted(graph["output"][str(export)]["inputs"]) == ["full", "save_file", "shell"]
    (kept,) = (node for node in graph["workflow"]["nodes"] if node["type"] == "InfiniteTalkExport")
    assert kept["widgets_values"] == ["sh", False, ""]
    assert ours(page.console) == []


def test_export_command_is_in_the_file_menu_and_fills_the_clipboard(page):
    page.call("Page.bringToFront")
    click(page, ".comfyui-logo")
    time.sleep(1)  # the menu follows the mouse only when it has opened
    point_at(page, "File")
    page.wait(f"({CENTRE})('Export InfiniteTalk command')", 20)
    picture(page, "menu.png")
    click_text(page, "Export InfiniteTalk command")
    page.wait("document.body.innerText.includes('Command copied')", 30)
    command = page.run("navigator.clipboard.readText()")
    assert "generate_infinitetalk.py" in command and "--size 96x96" in command and "portrait.png" in command
    picture(page, "exported.png")
    until = time.monotonic() + 20
    while not list(page.downloads.glob("infinitetalk_command.*")) and time.monotonic() < until:
        time.sleep(0.2)
    assert next(page.downloads.glob("infinitetalk_command.sh")).read_text().strip() == command
    assert ours(page.console) == []


def test_linked_preset_rules_widgets_and_unlinking_gives_them_back(page):
    load(page, "infinitetalk_demo")
    state = (
        f"['sample_steps', 'sample_shift', 'crf'].map((name) => {NODE}('InfiniteTalkSampler').widgets"
        ".find((each) => each.name === name)).map((each) => [each.value, Boolean(each.disabled)])"
    )
    before = page.run(state)
    assert [ruled for _, ruled in before] == [False] * 3
    page.run("""
      (() => {
        const preset = LiteGraph.createNode('InfiniteTalkPreset')
        app.graph.add(preset)
        preset.widgets[0].value = '03_balanced'
        const sampler = app.graph.nodes.find((node) => node.type === 'InfiniteTalkSampler')
        preset.connect(0, sampler, sampler.inputs.findIndex((input) => input.name === 'preset'))
      })()
    """)
    page.wait(f"{state}[0][0] === 8")
    assert page.run(state) == [[8, True], [7, True], [before[2][0], False]]
    page.run(
        f"(() => {{ const w = {widget('InfiniteTalkPreset', 'preset')}; "
        "w.value = '01_ultra_fast'; w.callback(w.value) })()"
    )
    page.wait(f"{state}[0][0] === 4")
    assert page.run(state)[1] == [2, True]
    picture(page, "preset.png")
    assert page.run(f"{widget('InfiniteTalkSampler', 'sample_shift')}.label") == "shift: 2"
    page.run(
        f"(() => {{ const n = {NODE}('InfiniteTalkSampler'); "
        "n.disconnectInput(n.inputs.findIndex((i) => i.name === 'preset')) })()"
    )
    page.wait(f"!{state}[0][1]")
    assert page.run(state) == before
    assert page.run(f"{widget('InfiniteTalkSampler', 'sample_shift')}.label") == "shift"
    assert ours(page.console) == []


def test_subgraphs_reroutes_and_muted_nodes_make_the_same_prompt(page, host):
    """The same values by the time it is queued, so the finished video is found again."""
    load(page, "infinitetalk_demo")
    make_small(page)
    page.run("""
      (() => {
        const of = (type) => app.graph.nodes.find((node) => node.type === type)
        const link = app.graph.getLink(of('InfiniteTalkSampler').inputs.find((input) => input.name === 'image').link)
        app.graph.createReroute([600, -60], link)
        of('InfiniteTalkExport').mode = 2
        app.graph.convertToSubgraph(new Set([of('InfiniteTalkModelLoader'), of('InfiniteTalkAudioEncoder')]))
      })()
    """)
    prompt = page.run("app.graphToPrompt().then((made) => made.output)")
    kinds = {node["class_type"]: key for key, node in prompt.items()}
    assert "InfiniteTalkExport" not in kinds and ":" in kinds["InfiniteTalkModelLoader"]
    videos = set((host.base / "output" / "video").glob("*.mp4"))
    entry = host.run(prompt)
    assert entry["status"]["status_str"] == "success"
    assert set((host.base / "output" / "video").glob("*.mp4")) == videos


def test_a_bypassed_lora_is_left_out_of_its_chain(page):
    load(page, "infinitetalk_single_image")
    first, second = page.run("""
      (() => {
        const first = app.graph.nodes.find((node) => node.type === 'InfiniteTalkLoRA')
        const loader = app.graph.nodes.find((node) => node.type === 'InfiniteTalkModelLoader')
        const second = LiteGraph.createNode('InfiniteTalkLoRA')
        app.graph.add(second)
        first.connect(0, second, second.inputs.findIndex((input) => input.name === 'previous'))
        second.connect(0, loader, loader.inputs.findIndex((input) => input.name === 'lora'))
        return [first, second].map((node) => String(node.id))
      })()
    """)
    for bypassed, linked, before in (
        ([], second, [first, 0]),
        ([second], first, None),
        ([first], second, None),
        ([first, second], None, None),
    ):
        page.run(f"app.graph.nodes.forEach((node) => node.mode = {bypassed}.includes(String(node.id)) ? 4 : 0)")
        prompt = page.run("app.graphToPrompt().then((made) => made.output)")
        (loader,) = (node for node in prompt.values() if node["class_type"] == "InfiniteTalkModelLoader")
        assert loader["inputs"].get("lora") == (linked and [linked, 0])
        assert not set(bypassed) & set(prompt)
        if linked:
            assert prompt[linked]["inputs"].get("previous") == before


@pytest.mark.parametrize("name", ["infinitetalk_single_image", "infinitetalk_single_video", "infinitetalk_demo"])
def test_saved_workflows_are_what_the_page_would_queue(page, name):
    load(page, name)
    prompt = page.run("app.graphToPrompt().then((made) => made.output)")
    saved = json.loads((QUEUED / f"{name}.json").read_text(encoding="utf-8"))
    for node in (*prompt.values(), *saved.values()):
        node["inputs"].pop("audioUI", None)  # the player of older pages' LoadAudio
    assert prompt == saved
    if name == "infinitetalk_single_image":
        picture(page, "graph.png")


def test_help_opens_in_both_languages_and_nodes_speak_chinese(page, host):
    page.run("app.extensionManager.setting.set('Comfy.Locale', 'zh')")
    open_page(page, host)
    title = page.wait("LiteGraph.registered_node_types.InfiniteTalkSampler.title")
    version = page.run("window.__COMFYUI_FRONTEND_VERSION__ ?? ''")
    load(page, "infinitetalk_demo")
    if not LOSES_TEXTS[0] <= tuple(map(int, version.split(".")[:2])) < LOSES_TEXTS[1]:
        assert title == "流式采样器 (InfiniteTalk)"
        assert page.run(f"{widget('InfiniteTalkSampler', 'sample_steps')}.label") == "步数"
    picture(page, "chinese.png")
    for language, word in (("zh", "流式采样器"), ("en", "Streaming Sampler")):
        page.open(f"{host.url}/extensions/{urllib.parse.quote(NAME)}/help.html?lang={language}")
        page.wait("document.querySelectorAll('section').length === 7", 30)
        assert word in page.run("document.body.innerText")
        assert page.run("document.querySelectorAll('table').length") >= 10
    picture(page, "help.png")
