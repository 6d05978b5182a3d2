"""A custom node file for ComfyUI that holds a run where it says something, until it is told to let it go on.

A test that acts in the middle of a run need not be in time then. ``comfy_host.Host.hold`` is the other end. It has no
nodes.
"""

import re
import threading

from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}  # without it the server takes the file for no pack
SECONDS = 600  # an end for what would never go on

server = PromptServer.instance
say = server.send_progress_text
where: list[re.Pattern] = []
going_on = threading.Event()


def say_and_hold(text, *receivers):
    say(text, *receivers)
    if where and where[0].search(text):
        where.clear()
        going_on.wait(SECONDS)


server.send_progress_text = say_and_hold


@server.routes.post("/gate")
async def set_gate(request):
    """``{"at": pattern}`` holds what next says something like it; ``{"at": null}`` lets that go on, and all others."""
    pattern = (await request.json())["at"]
    where[:] = [] if pattern is None else [re.compile(pattern)]
    going_on.set() if pattern is None else going_on.clear()
    return web.Response()
