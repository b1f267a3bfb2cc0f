"""The way to a node's apps past its door. It is for trusted networks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from weakref import WeakSet

log = logging.getLogger(__name__)
_LOOK_SECONDS = 2.0
_CONNECT_SECONDS = 1.0
_MOST_LOOKS = 3
# The door's connections end when the node is given up. These may end while it answers.
_SILENT_SECONDS = 15
# Of the kernel's struct tcp_info: unanswered probes, packets on the way, and bytes that the other end has no room for.
_TCP_INFO = struct.Struct("=3xB20xI116xI")


class StraightWay:
    """Leads to the ports of a node's runners. While it does not, requests take the door. Use it in one event loop.

    Args:
        node: the name of the node.
        host: its address on the trusted network.
        ports: returns the ports that its runners have open there; None while the node does not answer.
        look_seconds: how often to look whether it leads there again.
        silent_seconds: a connection whose other end says nothing for so long is broken; a multiple of three.

    Attributes:
        trouble: why requests take the door, for people to read; empty while they need not.
    """

    def __init__(
        self,
        node: str,
        host: str,
        ports: Callable[[], Sequence[int] | None],
        look_seconds: float = _LOOK_SECONDS,
        silent_seconds: int = _SILENT_SECONDS,
    ) -> None:
        self.node = node
        self.host = host
        self.trouble = ""
        self._ports = ports
        self._look_seconds = look_seconds
        self._silent_seconds = silent_seconds
        self._closed = False
        self._looking: asyncio.Task[None] | None = None
        self._connections: WeakSet[socket.socket] = WeakSet()
        self._watching: asyncio.Task[None] | None = None

    def opened(self, connection: socket.socket) -> None:
        """Have the kernel break a connection whose other end falls silent.

        The node's door may answer while a firewall drops what goes straight to its runners.
        """
        interval = self._silent_seconds // 3
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        _limit(connection, self._silent_seconds)
        self._connections.add(connection)
        if not self._closed and (self._watching is None or self._watching.done()):
            self._watching = asyncio.get_running_loop().create_task(self._watch(), name=f"connections to {self.node}")

    def failed(self, error: OSError) -> None:
        """Note that a connection could not be opened. A refused one may be of a runner that ends: look first."""
        if not isinstance(error, ConnectionRefusedError):
            self._note(error)
        if not self._closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look(), name=f"straight way to {self.node}")

    async def is_open(self, port: int, listens: Callable[[], Awaitable[bool]]) -> bool:
        """Return whether packets reach a port now. That of a runner that listens no more counts, too.

        Args:
            listens: asks the node's door whether the runner listens. If so, a refusal is a firewall's.
        """
        error = await self._why_closed([port])
        if error is None or (isinstance(error, ConnectionRefusedError) and not await listens()):
            return True
        self._note(error)
        self.failed(error)
        return False

    async def close(self) -> None:
        """Look no more. A connection that is being opened may fail after that."""
        self._closed = True
        tasks = [task for task in (self._looking, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Look until it leads to a runner again. Without runners there is nothing to look at."""
        while True:
            await asyncio.sleep(self._look_seconds)
            ports = self._ports()
            if ports is None:
                continue
            error = await self._why_closed(ports[:_MOST_LOOKS])
            if error is None:
                if self.trouble:
                    log.info("node %s: requests go straight to its runners again", self.node)
                self.trouble = ""
                return
            self._note(error)

    async def _why_closed(self, ports: Sequence[int]) -> OSError | None:
        """Return why no port can be reached. None means that one can, or that there is none."""
        why: OSError | None = None
        for port in ports:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(self.host, port)
            except OSError as error:
                why = error
            else:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return None
        return why

    def _note(self, error: OSError) -> None:
        if not self.trouble:
            why = os.strerror(error.errno) if error.errno else "no answer"
            self.trouble = (
                f"requests take its door since {datetime.now(UTC):%H:%M:%S} UTC: the ports of its runners cannot be "
                f"reached ({why}); let the controller's machine connect to them, usually 20000 to 32767"
            )
            log.warning("node %s: %s", self.node, self.trouble)

    async def _watch(self) -> None:
        """Excuse connections whose other end reads nothing. The kernel's limit counts that as silence."""
        while self._connections:
            await asyncio.sleep(self._silent_seconds / 3)
            for connection in tuple(self._connections):
                if connection.fileno() == -1:
                    self._connections.discard(connection)
                    continue
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
                unanswered, on_the_way, waiting = _TCP_INFO.unpack(info)
                excused = waiting and not on_the_way and unanswered < 2
                _limit(connection, 0 if excused else self._silent_seconds)


def _limit(connection: socket.socket, seconds: int) -> None:
    """Limit how long sent bytes may stay unacknowledged. With 0, the kernel decides."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
