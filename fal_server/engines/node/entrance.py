"""The one port of a node. It takes TLS connections and leads each to what its server name asks for."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from weakref import WeakKeyDictionary

from fal_runner.shim.address import ShimIdentity, SocketPath
from fal_server.aio.tasks import TaskSet
from fal_server.engines.node.fence import Fence
from fal_server.engines.remote.epoch import Epoch
from fal_server.engines.remote.names import DoorTarget, parse, split_epoch
from fal_server.engines.shim.runner_door import UnixDoor

log = logging.getLogger(__name__)
_HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSockets:
    """The unix sockets behind the door that are the node's own.

    Attributes:
        control: takes the orders of the controller.
        joining: has the node join one.
        refusing: tells an earlier controller that it is one.
    """

    control: Path
    joining: Path
    refusing: Path


class Entrance:
    """Listens on a bound socket. Make and use it in one event loop.

    Args:
        bound: the socket.
        joined: returns whether this node has joined a controller.
        sockets: what answers the calls to the node itself.
        fence: knows which start of the controller is let in, once the node has joined.
        runners_dir: where each runner has its directory.
    """

    def __init__(
        self,
        bound: socket.socket,
        joined: Callable[[], bool],
        sockets: ControlSockets,
        fence: Fence,
        runners_dir: Path,
    ) -> None:
        self._bound = bound
        self._joined = joined
        self._sockets = sockets
        self._fence = fence
        self._runners_dir = runners_dir
        self._server: asyncio.Server | None = None
        self._names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        self.connecting = TaskSet(log)
        # The epoch of each connection that was let in; None before, and for those that are refused.
        self.connections: dict[asyncio.Transport, Epoch | None] = {}

    async def open(self, context: ssl.SSLContext) -> None:
        """Listen, in place of how it listened before."""
        if self._server is not None:
            self._server.close()
        context.sni_callback = self._note
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Inside(self), sock=self._bound.dup(), ssl=context, ssl_handshake_timeout=_HANDSHAKE_SECONDS
        )

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
        self._bound.close()

    def cut(self) -> None:
        """Cut off every connection."""
        for transport in tuple(self.connections):
            transport.abort()

    def name_of(self, transport: asyncio.BaseTransport) -> str:
        """Return the name that a connection asked for."""
        return self._names.get(cast("ssl.SSLObject", transport.get_extra_info("ssl_object")), "")

    async def lead(self, transport: asyncio.Transport, inside: asyncio.Protocol) -> None:
        """Connect to what a connection asks for.

        Raises:
            OSError: there is no such thing here, it does not accept, or a later controller has taken over.
        """
        name = self.name_of(transport)
        found = parse(name)
        if found is None:
            raise FileNotFoundError(f"nothing here is called {name!r}")
        target, who = found
        loop = asyncio.get_running_loop()
        if target is DoorTarget.CONTROL and not self._joined():
            await _connect_unix(self._sockets.joining, inside)
            return
        epoch, who = split_epoch(who)
        admitted = epoch is not None and self._admit(transport, epoch)
        if target is DoorTarget.CONTROL:
            await _connect_unix(self._sockets.control if admitted else self._sockets.refusing, inside)
            return
        if not admitted:
            raise PermissionError(f"a later controller than that of epoch {epoch} gives this node orders")
        runner_id, _, port = who.partition("--")
        directory = self._runners_dir / runner_id
        identity = ShimIdentity.read(directory) if directory.parent == self._runners_dir else None
        if identity is None:
            raise FileNotFoundError(f"there is no runner {runner_id!r}")
        if target is DoorTarget.SHIM:
            await _connect_unix(Path(identity.address), inside)
        elif port.isdecimal() and 0 < int(port) < 65536:
            await loop.create_connection(lambda: inside, UnixDoor.host, int(port))
        else:
            raise FileNotFoundError(f"{port!r} is no port")

    def _admit(self, transport: asyncio.Transport, epoch: Epoch) -> bool:
        """Let a connection in, unless a later controller came. The first one of a later controller cuts all others."""
        before = self._fence.latest
        if not self._fence.admits(epoch):
            return False
        self.connections[transport] = epoch
        if before != epoch:
            for other, its in tuple(self.connections.items()):
                if its is not None and its != epoch:
                    other.abort()
        return True

    def _note(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        if isinstance(connection, ssl.SSLObject):
            self._names[connection] = name or ""


async def _connect_unix(path: Path, inside: asyncio.Protocol) -> None:
    reachable = SocketPath(path)
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: inside, reachable.path)
    finally:
        reachable.close()


class _Side(asyncio.Protocol):
    """One end of two connections whose bytes go to the other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._waiting.append(data)
        else:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Inside(_Side):
    """The end towards the controller."""

    def __init__(self, entrance: Entrance) -> None:
        super().__init__()
        self._entrance = entrance

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = _Side()
        self.other.other = self
        assert self.transport is not None
        self._entrance.connections[self.transport] = None
        self.transport.pause_reading()
        self._entrance.connecting.spawn(self._lead(self.transport, self.other), name="a connection of the controller")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.transport is not None:
            self._entrance.connections.pop(self.transport, None)

    async def _lead(self, transport: asyncio.Transport, end: _Side) -> None:
        try:
            await self._entrance.lead(transport, end)
        except OSError as error:
            log.debug("a connection leads nowhere: %s", error)
            transport.abort()
        else:
            if transport.is_closing():
                if end.transport is not None:
                    end.transport.close()
            else:
                transport.resume_reading()
