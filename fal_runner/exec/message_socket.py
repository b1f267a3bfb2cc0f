"""Sends messages over a unix socket, complete and in order. Finally it sends a status.

Each message is a kind (one byte), a length (four, little-endian) and as many bytes. Each side waits while the other
does not read.
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
"""The largest message, the same as in a gRPC server."""
_HEAD = struct.Struct("<BI")
_MESSAGE, _STATUS = 0, 1
_BUFFER_BYTES = 1024 * 1024  # requested; the system may grant less


class Status(NamedTuple):
    """A call's outcome: a gRPC status code's name, and an error's message."""

    code: str
    message: str = ""


class ConnectionBroken(OSError):
    """The other side has disconnected, or sends something other than messages."""


class MessageSocket:
    """One end of a connection. One task sends, one receives; closing it raises ConnectionBroken in both.

    Args:
        connection: a connected stream socket, which this object then owns.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._socket = connection
        self._waiting = 0
        self._closed = False

    async def send(self, *parts: bytes) -> None:
        """Send these parts as one message.

        Raises:
            ConnectionBroken: the other side no longer reads.
        """
        await self._send(_MESSAGE, parts)

    async def end(self, status: Status) -> None:
        """Send the status, after which nothing can be sent. Raises the errors of `send`."""
        await self._send(_STATUS, (json.dumps(status).encode(),))

    def end_sending(self) -> None:
        """Stop sending; the other side receives None."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ConnectionBroken(error.errno, os.strerror(error.errno or 0)) from error

    async def receive(self) -> bytes | Status | None:
        """Wait for the next message or the status. None if the other side ended without one.

        Raises:
            ConnectionBroken: the connection ended within a message, or broke.
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
        """Close the connection; a second close does nothing."""
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
        """Receive `length` bytes. There are none if the other side may end here and has."""
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
        """Wait until the socket is ready.

        A socket that is closed meanwhile keeps its number, so that no other one is watched.
        """
        self._waiting += 1
        try:
            await until_ready(self._socket.fileno(), add, remove)
        finally:
            self._waiting -= 1
            if self._closed and not self._waiting:
                self._socket.close()
