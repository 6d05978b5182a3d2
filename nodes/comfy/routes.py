"""What the browser asks for: the presets as values of widgets, and a graph as a command.

And our own files where ComfyUI cannot serve them: aiohttp finds no static folder whose name an address has to
quote, such as one with a space. No route reads a file that is not in this pack.
"""

from __future__ import annotations

import asyncio
import logging
import re
import urllib.parse
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ...pipeline.errors import InputError, in_short
from ...pipeline.graphs.widgets import LOADER, SAMPLER, SEED, SIDE_PLACES, size_widgets, widget_value
from ...pipeline.settings.presets import load_preset, preset_names
from ...pipeline.settings.roles import Values
from . import commands, files, requests, videos
from .words import in_comfyui

PACK = Path(__file__).parents[2]
SERVED = {"/extensions": PACK / "web", "/api/workflow_templates": PACK / "workflows"}
routes = PromptServer.instance.routes


@routes.get("/infinitetalk/presets")
async def presets(request: web.Request) -> web.Response:
    try:
        requests.check_origin(request.headers)
    except InputError as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response({name: preset_widgets(name) for name in preset_names()})


@routes.post("/infinitetalk/export")
async def export(request: web.Request) -> web.Response:
    try:
        asked = requests.of_export(request.content_type, request.headers, await request.read(), commands.SHELLS)
    except InputError as error:
        return web.json_response({"error": str(error)}, status=400)
    try:
        shell = asked.shell or commands.default_shell()
        command = commands.of_graph(asked.prompt, shell, workflow=asked.workflow)
    except InputError as error:
        return web.json_response({"error": in_comfyui(str(error))})
    except Exception as error:  # a fault of ours, which the page has to tell as well
        logging.exception("InfiniteTalk: no command could be made of the graph")
        return web.json_response({"error": f"{type(error).__name__}: {in_short(error)}."}, status=500)
    return web.json_response({"command": command.text, "notes": command.notes, "file": command.file})


@routes.get("/infinitetalk/unfinished")
async def unfinished(request: web.Request) -> web.Response:
    try:
        requests.check_origin(request.headers)
    except InputError as error:
        return web.json_response({"error": str(error)}, status=400)
    output = Path(folder_paths.get_output_directory())
    found = await asyncio.to_thread(videos.unfinished, output)
    return web.json_response({"videos": [{"name": each.name(output), "line": each.line(output)} for each in found]})


@routes.post("/infinitetalk/unfinished/clear")
async def clear(request: web.Request) -> web.Response:
    """Remove unfinished videos of ours, by the names that were listed; nothing else in the folder can be named."""
    try:
        names = requests.of_clearing(request.content_type, request.headers, await request.read())
    except InputError as error:
        return web.json_response({"error": str(error)}, status=400)
    gone, kept = await asyncio.to_thread(videos.clear, Path(folder_paths.get_output_directory()), names)
    return web.json_response({"gone": gone, "kept": kept})


def preset_widgets(name: str) -> dict[str, Values]:
    """What the widgets show that a preset rules, by node."""
    preset = load_preset(name)
    settings, wanted = dict(preset.settings), preset.as_settings()
    if wanted.quant_dir is not None:
        file = wanted.quant_dir.as_posix()
        settings["quant_dir"] = files.find("quant_dir", file) or file
    shown = {setting: widget_value(setting, value) for setting, value in settings.items()}
    if "size" in settings:
        shown |= size_widgets(wanted.size)
    nodes = {"InfiniteTalkModelLoader": LOADER, "InfiniteTalkSampler": (*SAMPLER, *SIDE_PLACES)}
    return {node: {w: shown[w] for w in widgets if w in shown and w != SEED} for node, widgets in nodes.items()}


def _serve(address: str, folder: Path) -> None:
    @routes.get(f"{address}/{{pack:{re.escape(PACK.name)}}}/{{path:.+}}")
    async def file(request: web.Request) -> web.StreamResponse:
        path = (folder / request.match_info["path"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)


if urllib.parse.quote(PACK.name) != PACK.name and not {"{", "}"} & set(PACK.name):
    for address, folder in SERVED.items():
        _serve(address, folder)
