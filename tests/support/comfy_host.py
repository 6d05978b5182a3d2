"""A ComfyUI server on the CPU with this pack in it, and a client for its API. For tests and for saving pictures.

Where the server comes from is for the caller. Everything it reads and writes lies in one folder. The client
speaks HTTP and WebSocket by the standard library alone, so that it runs without the server's packages.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .websocket import TEXT, WebSocket

START_SECONDS = 600  # an end for what would never start, not a limit: a busy machine takes its time
NOTHING = {  # the least that is a graph
    "picture": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "shown": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}},
}
GATE = Path(__file__).with_name("comfy_gate.py")
SMALL_CORE = Path(__file__).with_name("comfy_small_core.py")
BINARY_MESSAGES = {1: "preview", 4: "preview", 3: "progress_text"}  # ComfyUI's kinds of them


@dataclass(frozen=True)
class Message:
    """A message of ComfyUI: ``data`` of a JSON message, or ``payload`` of a binary one."""

    type: str
    data: dict = field(default_factory=dict)
    payload: bytes = b""


class Refused(Exception):
    """The server did not take a graph; ``answer`` is what it said."""

    def __init__(self, answer: dict) -> None:
        super().__init__(json.dumps(answer)[:2000])
        self.answer = answer


@dataclass(frozen=True)
class Host:
    """A running server.

    Attributes:
        url: without a slash at its end.
        base: folder with its ``models``, ``input``, ``output`` and ``custom_nodes``.
        log: file with everything it printed.
        pid: of its process.
    """

    url: str
    base: Path
    log: Path
    pid: int

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + urllib.parse.quote(path, safe="/?=&%"), timeout=60) as answer:
            return answer.read()

    def get_json(self, path: str) -> dict:
        return json.loads(self.get(path))

    def post(self, path: str, content: object = None) -> bytes:
        data = json.dumps({} if content is None else content).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def queue(self, graph: dict, client: str = "", workflow: dict | None = None) -> str:
        """Queue a graph in API format; returns the prompt's id.

        Raises:
            Refused: the graph is not valid.
        """
        content = {"prompt": graph, "client_id": client}
        if workflow is not None:
            content["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            return json.loads(self.post("/prompt", content))["prompt_id"]
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())) from None

    def run(self, graph: dict, timeout: float = 300) -> dict:
        """Queue a graph and wait for its end; returns its history entry."""
        prompt = self.queue(graph)
        return self.wait(prompt, timeout)

    def wait(self, prompt: str, timeout: float = 300) -> dict:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            entry = self.get_json(f"/history/{prompt}").get(prompt)
            if entry is not None:
                return entry
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt} did not end in {timeout} s")

    def free(self) -> None:
        """Unload all models and forget all results; comes back when that is done.

        The server looks for it after each graph, so it has when a second one has run.
        """
        self.post("/free", {"unload_models": True, "free_memory": True})
        for _ in range(2):
            self.run(NOTHING)

    @contextmanager
    def hold(self, pattern: str) -> Iterator[None]:
        """While this lasts, the next run waits where it says something that matches, having said it.

        The server's folder has ``GATE`` among its custom nodes.
        """
        self.post("/gate", {"at": pattern})
        try:
            yield
        finally:
            self.go_on()

    def go_on(self) -> None:
        """Let a run that is held go on."""
        self.post("/gate", {"at": None})

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        listener = Listener(self.url)
        try:
            yield listener
        finally:
            listener.close()


class Listener:
    """A WebSocket connection to the server, as the browser has one."""

    def __init__(self, url: str) -> None:
        self.client = secrets.token_hex(8)
        self._connection = WebSocket(f"{url.replace('http', 'ws', 1)}/ws?clientId={self.client}")
        self._connection.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))

    def messages(self, timeout: float = 300) -> Iterator[Message]:
        """What the server says, as it comes."""
        until = time.monotonic() + timeout
        while True:
            kind, data = self._connection.receive(until)
            if kind == TEXT:
                content = json.loads(data)
                yield Message(content["type"], content.get("data") or {})
            else:
                (event,) = struct.unpack(">I", data[:4])
                yield Message(BINARY_MESSAGES.get(event, str(event)), payload=data[4:])

    def until_said(self, pattern: str, timeout: float = 300) -> re.Match[str]:
        """What a node says, once it is something like this."""
        for message in self.messages(timeout):
            if message.type == "progress_text":
                if match := re.search(pattern, message.payload[4:].decode(errors="replace")):
                    return match
        raise AssertionError(f"no node said {pattern!r}")

    def until_end(self, prompt: str, timeout: float = 300) -> list[Message]:
        """All messages until this prompt has ended, one way or another."""
        seen = []
        for message in self.messages(timeout):
            seen.append(message)
            ended = message.type in ("execution_success", "execution_error", "execution_interrupted")
            if ended and message.data.get("prompt_id") == prompt:
                break
        return seen

    def close(self) -> None:
        self._connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(base: Path, pack: Path, name: str) -> None:
    """Make the server's folder, with the pack in it under the name given."""
    for folder in ("models", "input", "output", "temp", "user", "custom_nodes"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / name
    if not link.exists():
        link.symlink_to(pack.resolve(), target_is_directory=True)


@contextmanager
def running(
    source: Path,
    python: Path,
    base: Path,
    environment: dict[str, str] | None = None,
    flags: tuple[str, ...] = ("--disable-api-nodes",),
) -> Iterator[Host]:
    """A server while the context lasts.

    Args:
        source: folder of ComfyUI's ``main.py``.
        python: an interpreter that has ComfyUI's requirements.
        base: see ``prepare``.
        flags: further ones for ``main.py``. Without nodes for paid services it starts sooner, but then its page may
            show no video.
    """
    port = free_port()
    log = base / f"server_{port}.log"  # servers may share a folder
    command = [str(python), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--disable-auto-launch", "--database-url", "sqlite:///:memory:", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=source, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    try:
        host = Host(f"http://127.0.0.1:{port}", base, log, process.pid)
        _wait_for(host, process)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(host: Host, process: subprocess.Popen) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            host.get("/system_stats")
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"ComfyUI did not start:\n{host.log.read_text(errors='replace')[-4000:]}")


def check_import(log: str, pack: str) -> None:
    """See in the server's log that the pack was imported.

    Raises:
        ValueError: it was not.
    """
    match = re.search(rf"[0-9.]+ seconds( \(IMPORT FAILED\))?: .*{re.escape(pack)}$", log, re.MULTILINE)
    if match is None or match[1]:
        raise ValueError(f"the pack {pack} was not imported")
