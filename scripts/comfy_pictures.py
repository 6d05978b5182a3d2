"""The README's pictures of the demo workflow in ComfyUI: run in a real page, in English and in Chinese.

``python -m infinitetalk.scripts.comfy_pictures COMFYUI PYTHON [FRONTEND]``: sources and interpreter of a ComfyUI, and
the folder of a frontend's static files, where another one is wanted than it has. Needs a browser and a Chinese font.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from ..tests.support import browser, comfy_host
from .save_workflows import READY, ROOT

PICTURES = {"en": "comfyui.jpg", "zh": "comfyui.zh-CN.jpg"}
SETTINGS = {
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # text, however small
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
}
SHOWN = 2.36  # seconds; where the mouth is open
MARGIN = 12  # pixels around the nodes
SEEK = f"""
new Promise((done) => {{
  const video = [...document.querySelectorAll('video')].find((each) => each.videoWidth)
  video.autoplay = video.loop = video.controls = false
  video.pause()
  video.addEventListener('seeked', () => done(true), {{ once: true }})
  video.currentTime = {SHOWN}
}})
"""
BOX = """
(() => {
  const nodes = app.graph.nodes.filter((node) => node.type !== 'InfiniteTalkExport')
  const { scale, offset } = app.canvas.ds
  const canvas = app.canvas.canvas.getBoundingClientRect()
  const [left, top] = [0, 1].map((axis) => Math.min(...nodes.map((node) => node.pos[axis])))
  const [right, bottom] = [0, 1].map((axis) => Math.max(...nodes.map((node) => node.pos[axis] + node.size[axis])))
  return {
    x: canvas.x + (left + offset[0]) * scale,
    y: canvas.y + (top - LiteGraph.NODE_TITLE_HEIGHT + offset[1]) * scale,
    width: (right - left) * scale,
    height: (bottom - top + LiteGraph.NODE_TITLE_HEIGHT) * scale,
  }
})()
"""


def save(source: Path, python: Path, frontend: Path | None = None) -> None:
    """Write both pictures."""
    flags = () if frontend is None else ("--front-end-root", str(frontend))
    workflow = (ROOT / "workflows" / "infinitetalk_demo.json").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        comfy_host.prepare(base, ROOT, "infinitetalk")
        with comfy_host.running(source, python, base, flags=flags) as host, browser.browser(2400, 1500) as page:
            for language, name in PICTURES.items():
                _open(page, host.url)
                for setting, value in {**SETTINGS, "Comfy.Locale": language}.items():
                    page.run(f"app.extensionManager.setting.set({json.dumps(setting)}, {json.dumps(value)})")
                time.sleep(2)  # until they are saved
                _open(page, host.url)
                page.run(f"app.loadGraphData({workflow})")
                host.run(page.entries("app.graphToPrompt().then((made) => made.output)"), 900)
                page.run("app.extensionManager.command.execute('Comfy.QueuePrompt')")  # which finds the video made
                page.wait("[...document.querySelectorAll('video')].some((video) => video.videoWidth)")
                page.run("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
                time.sleep(2)
                page.run(SEEK)
                time.sleep(2)
                box = page.entries(BOX)
                clip = {"x": box["x"] - MARGIN, "y": box["y"] - MARGIN}
                clip |= {side: box[side] + 2 * MARGIN for side in ("width", "height")}
                page.picture(ROOT / "docs" / "pictures" / name, clip)


def _open(page: browser.Page, url: str) -> None:
    page.open(url)
    page.wait(READY, 120)


if __name__ == "__main__":
    save(*(Path(word).absolute() for word in sys.argv[1:]))
