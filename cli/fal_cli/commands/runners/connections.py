"""Multiplexes many connections over one stream of bytes in each direction.

Both ends run this file. In the runner it runs in the app's Python: only the standard library, Python 3.8. A frame is
its kind, the number of its connection, a length and as many bytes; the length of CREDIT is how much more may be sent.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
    Write = Callable[[bytes], Awaitable[None]]
    Connect = Callable[[int], Awaitable[Streams]]

_HEAD = struct.Struct(">BII")
_OPEN, _DATA, _CREDIT, _END, _RESET = range(1, 6)
# The most that one connection may have in flight, so that an unread one does not block the others.
_WINDOW = 256 * 1024
_CHUNK = 64 * 1024
# fal_runner's names of these two; it need not be installed at either end.
PORTS_VARIABLE = "FAL_RUNNER_PORTS"
MARK_VARIABLE = "FAL_RUNNER_MARK"
APP_PORT = 0
"""Stands for the app's port, whatever its number."""


class Refused(Exception):
    """The other end could not connect; the text says why."""


class _Connection:
    """One connection of this end. It has a socket, and the data received for it."""

    def __init__(self, forwarder: Forwarder, number: int) -> None:
        self.number = number
        self.refused = ""
        self._forwarder = forwarder
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._credit = _WINDOW
        self._changed = asyncio.Event()
        self._reset = False
        self._running: list[asyncio.Task[None]] = []

    def take(self, kind: int, data: bytes, length: int) -> None:
        """Process a frame for it."""
        if kind == _CREDIT:
            self._credit += length
            self._changed.set()
        elif kind == _DATA:
            self._inbox.put_nowait(data)
        elif kind == _END:
            self._inbox.put_nowait(None)
        elif kind == _RESET:
            self.refused = data.decode(errors="replace")
            self.break_off()

    def break_off(self) -> None:
        """Abort it, because the other side did."""
        self._reset = True
        for task in self._running:
            task.cancel()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy both directions independently until the connection ends."""
        loop = asyncio.get_running_loop()
        self._running = [loop.create_task(self._send_all(reader)), loop.create_task(self._write_all(writer))]
        if self._reset:
            self.break_off()
        try:
            await asyncio.gather(*self._running)
        except (OSError, asyncio.CancelledError) as error:
            writer.transport.abort()
            if not self._reset:
                await self._forwarder.send(_RESET, self.number)
                if isinstance(error, asyncio.CancelledError):
                    raise
        finally:
            for task in self._running:
                task.cancel()
            writer.close()

    async def _send_all(self, reader: asyncio.StreamReader) -> None:
        while True:
            while self._credit <= 0:
                self._changed.clear()
                await self._changed.wait()
            data = await reader.read(min(_CHUNK, self._credit))
            if not data:
                await self._forwarder.send(_END, self.number)
                return
            self._credit -= len(data)
            await self._forwarder.send(_DATA, self.number, data)

    async def _write_all(self, writer: asyncio.StreamWriter) -> None:
        while True:
            data = await self._inbox.get()
            if data is None:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            await self._forwarder.send(_CREDIT, self.number, length=len(data))


class Forwarder:
    """One end of the stream.

    Args:
        write: a coroutine function that sends bytes, and waits while they cannot be sent.
        connect: a coroutine function that returns reader and writer for a port; None at the end that opens connections.
    """

    def __init__(self, write: Write, connect: Connect | None = None) -> None:
        self._write = write
        self._connect = connect
        self._writing = asyncio.Lock()
        self._received = bytearray()
        self._connections: dict[int, _Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last = 0

    async def send(self, kind: int, number: int, data: bytes = b"", length: int | None = None) -> None:
        """Send a frame; frames of different connections do not interleave."""
        async with self._writing:
            await self._write(_HEAD.pack(kind, number, len(data) if length is None else length) + data)

    async def forward(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to a port at the other end. Relay a local connection to it until it ends.

        Raises:
            Refused: the other end could not connect; the local connection is closed.
        """
        self._last += 1
        connection = self._connections[self._last] = _Connection(self, self._last)
        try:
            await self.send(_OPEN, connection.number, length=port)
            await connection.run(reader, writer)
        finally:
            self._connections.pop(connection.number, None)
        if connection.refused:
            raise Refused(connection.refused)

    def feed(self, data: bytes) -> None:
        """Process data from the other end. It never waits, so the two ends cannot wait for each other."""
        self._received += data
        while len(self._received) >= _HEAD.size:
            kind, number, length = _HEAD.unpack_from(self._received)
            end = _HEAD.size + (length if kind in (_DATA, _RESET) else 0)
            if len(self._received) < end:
                return
            body = bytes(self._received[_HEAD.size : end])
            del self._received[:end]
            if kind == _OPEN and self._connect is not None:
                self._connections[number] = _Connection(self, number)
                task = asyncio.get_running_loop().create_task(
                    self._serve(self._connections[number], self._connect, length)
                )
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif number in self._connections:
                self._connections[number].take(kind, body, length)

    def break_off(self) -> None:
        """Abort all connections, because the stream has ended."""
        for connection in list(self._connections.values()):
            connection.break_off()

    async def _serve(self, connection: _Connection, connect: Connect, port: int) -> None:
        try:
            reader, writer = await connect(port)
        except OSError as error:
            await self.send(_RESET, connection.number, _reason(error).encode())
        else:
            await connection.run(reader, writer)
        finally:
            self._connections.pop(connection.number, None)


def _reason(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "nothing in the runner listens there"
    return error.strerror or str(error)


async def _connect_here(port: int) -> Streams:
    """Connect to a port of this runner. The app's ports may have been mapped to others."""
    given = os.environ.get(PORTS_VARIABLE)
    moved: dict[str, int] = json.loads(given or "{}")
    if port == APP_PORT:
        if not moved:
            raise OSError("the runner does not say which port is the app's, so name it")
        port = next(iter(moved.values()))
    port = moved.get(str(port), port)
    if given and not _listens_here(port):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    try:
        return await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError as refused:
        try:
            return await asyncio.open_connection("::1", port)
        except OSError:
            raise refused from None


def _listens_here(port: int) -> bool:
    """Return whether a process of this runner listens on a port.

    A runner may share the machine's network: its ports must not lead to other programs, or back to this one.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    mark = os.environ.get(MARK_VARIABLE)
    wanted = f"{MARK_VARIABLE}={mark}".encode() if mark else b""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted and wanted not in (process / "environ").read_bytes().split(b"\0"):
                continue
            for descriptor in (process / "fd").iterdir():
                if os.readlink(descriptor) in sockets:  # noqa: PTH115 - Python 3.8 has no Path.readlink
                    return True
        except OSError:
            continue  # it has just ended, or belongs to another user
    return False


def _listening(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port. See proc(5)."""
    found: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text(encoding="ascii").splitlines()[1:]]
        except FileNotFoundError:
            continue  # a system without IPv6
        found += [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
    return found


async def _serve_here() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    flow, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout.buffer)
    writer = asyncio.StreamWriter(flow, protocol, None, loop)

    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    forwarder = Forwarder(write, _connect_here)
    while True:
        data = await reader.read(_CHUNK)
        if not data:
            break
        forwarder.feed(data)
    forwarder.break_off()


if __name__ == "__main__":
    asyncio.run(_serve_here())
