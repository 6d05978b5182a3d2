"""A WebSocket client (RFC 6455) by the standard library alone, for talking with ComfyUI and with a browser in tests."""

from __future__ import annotations

import base64
import secrets
import socket
import struct
import time
import urllib.parse

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10  # opcodes


class WebSocket:
    """A connection.

    Args:
        url: ``ws://host:port/path``.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self._buffer = b""
        lines = [
            f"GET {parts.path}{'?' if parts.query else ''}{parts.query} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.splitlines()[0]:
            raise ConnectionError(head.decode(errors="replace"))

    def send(self, text: str) -> None:
        self._send(TEXT, text.encode())

    def receive(self, until: float) -> tuple[int, bytes]:
        """The next message: TEXT or BINARY, and what it holds.

        Args:
            until: when to give up, by ``time.monotonic()``.

        Raises:
            TimeoutError: nothing came in time.
            ConnectionError: the other side has closed the connection.
        """
        while True:
            kind, data = self._message(until)
            if kind == PING:
                self._send(PONG, data)
            elif kind == CLOSE:
                raise ConnectionError("the connection was closed")
            elif kind in (TEXT, BINARY):
                return kind, data

    def close(self) -> None:
        self._socket.close()

    def _fill(self, until: float | None = None) -> None:
        self._socket.settimeout(60 if until is None else max(0.01, until - time.monotonic()))
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the connection was closed")
        self._buffer += data

    def _message(self, until: float) -> tuple[int, bytes]:
        """A message, put together from its fragments."""
        kind, parts = 0, []
        while True:
            first, payload = self._frame(until)
            kind = first & 0x0F or kind
            parts.append(payload)
            if first & 0x80:
                return kind, b"".join(parts)

    def _frame(self, until: float) -> tuple[int, bytes]:
        first, second = self._take(2, until)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2, until))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8, until))
        return first, self._take(length, until)

    def _take(self, count: int, until: float) -> bytes:
        while len(self._buffer) < count:
            self._fill(until)
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _send(self, kind: int, data: bytes) -> None:
        mask = secrets.token_bytes(4)
        if len(data) < 126:
            length = struct.pack("B", 0x80 | len(data))
        elif len(data) < 1 << 16:
            length = struct.pack(">BH", 0x80 | 126, len(data))
        else:
            length = struct.pack(">BQ", 0x80 | 127, len(data))
        key = int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)], "big")
        masked = (int.from_bytes(data, "big") ^ key).to_bytes(len(data), "big")
        self._socket.sendall(bytes([0x80 | kind]) + length + mask + masked)
