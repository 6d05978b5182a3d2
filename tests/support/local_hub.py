"""A hub on this machine: answers as Hugging Face's does, with files from a folder, and can be made to fail.

Speaks what huggingface_hub asks for: HEAD and GET of ``OWNER/NAME/resolve/REVISION/PATH`` with the hub's headers and
ranges, and the listings under ``api/models``. Files from 64 bytes on are like LFS files, whose hash is their SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 40
LARGE = 64  # bytes


@dataclass
class Hub:
    """What it serves, and how.

    Attributes:
        folder: of folders OWNER/NAME.
        status: of a path that is refused, by its end; with the hub's word for why.
        breaks: at this byte of the file the connection breaks, for paths with this end.
        lies: sends other bytes for paths with this end.
        asked: (method, path, first byte asked for) of every request.
    """

    folder: Path
    url: str = ""
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, int]] = field(default_factory=list)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """The hub while it runs."""
    hub = Hub(folder)

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.served, urllib.parse.unquote(self.path.partition("?")[0])
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0] or 0)
        hub.asked.append((self.command, path, first))
        for end, (status, word) in hub.status.items():
            if path.endswith(end):
                return self._send(status, {"X-Error-Code": word, "X-Error-Message": word}, b"{}", body)
        if path.startswith("/api/models/"):
            return self._listing(path.removeprefix("/api/models/"), body)
        repo, _, name = path[1:].partition("/resolve/")
        file = hub.folder / repo / name.partition("/")[2]
        if not (hub.folder / repo).is_dir():
            return self._send(401, {"X-Error-Code": "RepoNotFound"}, b"{}", body)
        if not file.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"", body)
        data = file.read_bytes()
        tags = {"X-Repo-Commit": COMMIT, "ETag": f'"{_git_hash(data)}"', "Accept-Ranges": "bytes"}
        if len(data) >= LARGE:
            tags |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        if any(path.endswith(end) for end in hub.lies):
            data = bytes(byte ^ 1 for byte in data)
        if first and first < len(data):
            tags["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        status = 200 if not first else 206 if first < len(data) else 416
        cut = next((length for end, length in hub.breaks.items() if path.endswith(end)), None)
        return self._send(status, tags, data[first:], body, None if cut is None else max(0, cut - first))

    def _listing(self, path: str, body: bool) -> None:
        repo = "/".join(path.split("/")[:2])
        root = self.served.folder / repo
        files = [file for file in sorted(root.rglob("*")) if file.is_file()]
        rows = [
            {"type": "file", "path": file.relative_to(root).as_posix(), "size": file.stat().st_size, "oid": COMMIT}
            for file in files
        ]
        whole = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": row["path"]} for row in rows]}
        answer = rows if "/tree/" in path or "/paths-info/" in path else whole
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode(), body)

    def _send(self, status: int, tags: dict[str, str], data: bytes, body: bool, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in tags.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body:
            return
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None and cut < len(data):
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
