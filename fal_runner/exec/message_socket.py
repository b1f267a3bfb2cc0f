"""Messages over a unix socket, whole and in order, and last the status of what they were about.

Each is a kind (one byte), a length (four, the lowest first) and so many bytes. Both sides wait when the other does not
read.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from fal_runner.process.descriptors import Unwatch, Watch, until_ready

OK = "OK"
MOST_BYTES = 256 * 1024 * 1024
"""Of one message: as much as a gRPC server takes."""
_HEAD = struct.Struct("<BI")
_MESSAGE, _STATUS = 0, 1
_BUFFER_BYTES = 1024 * 1024  # what is asked for; the system gives as much as its bound allows


class Status(NamedTuple):
    """How it went: the name of a gRPC status code, and for a refusal its words."""

    code: str
    words: str = ""


class ConnectionBroken(OSError):
    """The other side is gone, or what it sends makes no sense."""


class MessageSocket:
    """One end. One task sends, one receives; whoever waits when it is closed is told that it broke.

    Args:
        connection: a connected stream socket; owned from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._socket = connection
        self._waiting = 0
        self._closed = False

    async def send(self, *parts: bytes) -> None:
        """Send one message, which is these parts together.

        Raises:
            ConnectionBroken: the other side reads no more.
        """
        await self._send(_MESSAGE, parts)

    async def end(self, status: Status) -> None:
        """Send the status, after which nothing is sent; raises as `send`."""
        await self._send(_STATUS, (json.dumps(status).encode(),))

    def end_sending(self) -> None:
        """Send nothing more; the other side receives None."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ConnectionBroken(error.errno, os.strerror(error.errno or 0)) from error

    async def receive(self) -> bytes | Status | None:
        """The next message, or the status; None where the other side has ended without one.

        Raises:
            ConnectionBroken: it broke, within a message too.
        """
        head = await self._exactly(_HEAD.size, may_end=True)
        if not head:
            return None
        kind, length = _HEAD.unpack(head)
        if kind not in {_MESSAGE, _STATUS} or length > MOST_BYTES:
            raise ConnectionBroken(0, f"a message of kind {kind} and {length} bytes: not our protocol")
        body = await self._exactly(length) if length else b""
        return body if kind == _MESSAGE else Status(*json.loads(body))

    def close(self) -> None:
        """Close it. A second close does nothing."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._waiting:
            self._socket.close()

    async def _send(self, kind: int, parts: Sequence[bytes]) -> None:
        views = [memoryview(part) for part in (_HEAD.pack(kind, sum(map(len, parts))), *parts)]
        while views:
            try:
                sent = self._socket.sendmsg(views)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until_ready(loop.add_writer, loop.remove_writer)
                continue
            except OSError as error:
                raise ConnectionBroken(error.errno, os.strerror(error.errno or 0)) from error
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    async def _exactly(self, length: int, *, may_end: bool = False) -> bytes:
        """So many bytes; none where the other side has ended before the first and may."""
        pieces: list[bytes] = []
        while length:
            try:
                piece = self._socket.recv(length)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until_ready(loop.add_reader, loop.remove_reader)
                continue
            except OSError as error:
                raise ConnectionBroken(error.errno, os.strerror(error.errno or 0)) from error
            if not piece:
                if may_end and not pieces and not self._closed:
                    return b""
                raise ConnectionBroken(0, "it ended within a message")
            pieces.append(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _until_ready(self, add: Watch, remove: Unwatch) -> None:
        """Wait. What is closed meanwhile keeps its number until then: none is watched that is another's."""
        self._waiting += 1
        try:
            await until_ready(self._socket.fileno(), add, remove)
        finally:
            self._waiting -= 1
            if self._closed and not self._waiting:
                self._socket.close()
