"""A headless Chromium for tests, driven by the DevTools protocol: pages, scripts, keys, clicks, pictures.

Needs a ``chromium`` or ``chrome`` on the path and nothing else. Knows nothing about ComfyUI.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .websocket import WebSocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """The path of a browser, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class ScriptError(Exception):
    """A script in the page raised something."""


class Page:
    """A tab.

    Attributes:
        console: what the page's scripts printed as errors or warnings, or raised, in order.
        downloads: the folder that files are downloaded into.
    """

    def __init__(self, url: str, downloads: Path) -> None:
        self._connection = WebSocket(url)
        self._id = 0
        self.console: list[str] = []
        self.downloads = downloads
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, timeout: float = 60, **parameters: object) -> dict:
        """A command of the protocol; returns its result."""
        self._id += 1
        id = self._id
        self._connection.send(json.dumps({"id": id, "method": method, "params": parameters}))
        until = time.monotonic() + timeout
        while True:
            message = json.loads(self._connection.receive(until)[1])
            if message.get("id") == id:
                if "error" in message:
                    raise ScriptError(f"{method}: {message['error']}")
                return message["result"]
            self._hear(message)

    def _hear(self, event: dict) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Page.javascriptDialogOpening":  # "leave this page?"
            self._id += 1
            answer = {"id": self._id, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            self._connection.send(json.dumps(answer))
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.console.append(f"{details.get('exception', {}).get('description', details['text'])}")
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            said = " ".join(str(part.get("value", part.get("description", ""))) for part in parameters["args"])
            self.console.append(f"{parameters['type']}: {said}")
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.console.append(f"{entry['text']} {entry.get('url', '')}")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str, timeout: float = 60) -> object:
        """The value of an expression, which may be a promise.

        Raises:
            ScriptError: it raised something.
        """
        done = self.call(
            "Runtime.evaluate", timeout, expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise ScriptError(details.get("exception", {}).get("description", details["text"]))
        return done["result"].get("value")

    def entries(self, script: str, timeout: float = 60) -> dict:
        """The value of an expression that is an object.

        Raises:
            ScriptError: it is none, or raised something.
        """
        found = self.run(script, timeout)
        if not isinstance(found, dict):
            raise ScriptError(f"{script!r} is {found!r}, an object expected")
        return found

    def wait(self, script: str, timeout: float = 60) -> object:
        """The value of an expression as soon as it is true."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            with contextlib.suppress(ScriptError):  # what it looks for may not be there yet
                if value := self.run(script):
                    return value
            time.sleep(0.2)
        raise TimeoutError(f"{script!r} did not become true in {timeout} s")

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, clip: dict[str, float] | None = None, quality: int = 80) -> None:
        """Save what the page shows as PNG or JPEG, by the name's ending.

        Args:
            clip: x, y, width and height of the part that is wanted.
        """
        kind = "png" if path.suffix == ".png" else "jpeg"
        more: dict[str, object] = {} if kind == "png" else {"quality": quality}
        if clip is not None:
            more["clip"] = {**clip, "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", 60, format=kind, **more)["data"]))


@contextmanager
def browser(width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """A page in a browser of its own, which may use the clipboard."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--mute-audio"]
        flags += ["--no-first-run", "--disable-dev-shm-usage", f"--window-size={width},{height}"]
        program = find_browser()
        if program is None:
            raise RuntimeError("there is no browser here")
        command = [program, *flags, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            url = _debugger(process)
            with urllib.request.urlopen(f"{url}/json/list", timeout=30) as answer:
                target = next(each for each in json.loads(answer.read()) if each["type"] == "page")
            page = Page(target["webSocketDebuggerUrl"], Path(folder))
            page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
            page.call("Browser.grantPermissions", permissions=permissions)
            page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder, eventsEnabled=False)
            yield page
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _debugger(process: subprocess.Popen[str]) -> str:
    for line in process.stderr or ():
        if match := re.search(r"listening on ws://([^/]+)/", line):
            return f"http://{match[1]}"
    raise RuntimeError("the browser did not start")
