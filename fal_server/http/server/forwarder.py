"""Passes connections on to the controller that owns the database. TLS stays between its ends."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Sequence
from typing import cast

from fal_server.aio.tasks import TaskSet
from fal_server.http.server.acceptor import Acceptor
from fal_server.http.server.refused_grpc import UNAVAILABLE, RefusedGrpc
from fal_server.http.server.registry import Registry
from fal_server.http.server.splice import Splice

_log = logging.getLogger(__name__)
PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_CONNECT_SECONDS = 2.0
_REFUSED_SECONDS = 10.0
_TLS_HANDSHAKE = b"\x16"
_HTTP2 = b"PRI"


class Forwarder:
    """Joins each connection with one to the owner. While there is none, connections wait for the next.

    Args:
        owner: returns host and port of the owner; None while there is none.
        trouble: says why nothing can be passed on, for people.
        patience_seconds: how long a connection waits for an owner that answers.
    """

    def __init__(
        self,
        owner: Callable[[], tuple[str, int] | None],
        trouble: Callable[[], str],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._owner = owner
        self._trouble = trouble
        self._patience_seconds = patience_seconds
        self._registry = Registry()
        self._joined: dict[Splice, tuple[str, int]] = {}
        self._acceptors: list[Acceptor] = []
        self._tasks = TaskSet(_log)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections of bound sockets, which stay the caller's.

        Raises:
            OSError: a socket cannot be listened on.
        """
        for bound in sockets:
            acceptor = Acceptor(bound.dup(), self._accepted, tls=None, handshake_seconds=0.0, tasks=self._tasks)
            self._acceptors.append(acceptor)
            acceptor.start()

    def stop_accepting(self) -> None:
        """Leave new connections to whoever listens next on the sockets. Open ones go on."""
        for acceptor in self._acceptors:
            acceptor.close()

    def cut_off(self) -> None:
        """End the connections to a former owner. It may be frozen, and never answer."""
        owner = self._owner()
        for client, joined_to in list(self._joined.items()):
            if joined_to != owner and not client.transport.is_closing():  # else it has its answer, and only reads it
                client.abort()

    async def close(self) -> None:
        """End all connections."""
        self.stop_accepting()
        await self._tasks.close()
        await self._registry.close(0)

    def _accepted(self) -> _Client:
        return _Client(self._registry, self._begin, self._forget)

    def _begin(self, client: Splice) -> None:
        self._tasks.spawn(self._join(client))

    def _forget(self, client: Splice) -> None:
        self._joined.pop(client, None)

    async def _join(self, client: Splice) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_seconds
        while not client.lost:
            owner = self._owner()
            inner = None if owner is None else await _connected(*owner)
            if inner is not None and owner is not None:
                if client.transport.is_closing():
                    inner.abort()
                    return
                self._joined[client] = owner
                client.join(inner)
                return
            if loop.time() > until:
                answer = _TroubleAnswer(self._registry, self._trouble())
                self._registry.discard(client)
                client.transport.set_protocol(answer)
                answer.connection_made(client.transport)
                if client.early:
                    answer.data_received(b"".join(client.early))
                if not client.transport.is_closing():
                    client.transport.resume_reading()
                return
            await asyncio.sleep(_PAUSE_SECONDS)


async def _connected(host: str, port: int) -> Splice | None:
    """Connect to the owner. Return None if it has just ended, or the way to it is cut."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, inner = await asyncio.get_running_loop().create_connection(Splice, host, port)
    except (OSError, TimeoutError):
        return None
    return inner


class _Client(Splice):
    """The end of a client."""

    __slots__ = ("_begin", "_forget")

    def __init__(self, registry: Registry, begin: Callable[[Splice], None], forget: Callable[[Splice], None]) -> None:
        super().__init__(registry)
        self._begin = begin
        self._forget = forget

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget(self)


class _TroubleAnswer(asyncio.Protocol):
    """Says why nothing is passed on. A client of TLS is only disconnected, because its handshake is with the owner."""

    def __init__(self, registry: Registry, reason: str) -> None:
        self._registry = registry
        self._reason = reason
        self._grpc: RefusedGrpc | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._registry.add(self)
        self._timer = asyncio.get_running_loop().call_later(_REFUSED_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._grpc is None and data.startswith(_HTTP2):
            self._grpc = RefusedGrpc(self._reason, _REFUSED_SECONDS, status=UNAVAILABLE)
            self._grpc.connection_made(self._transport)
        if self._grpc is not None:
            self._grpc.data_received(data)
            return
        if not data.startswith(_TLS_HANDSHAKE):
            body = json.dumps({"detail": self._reason}).encode()
            self._transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._registry.discard(self)
        if self._grpc is not None:
            self._grpc.connection_lost(exc)

    def drain(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def end_calls(self, name: str) -> None:
        """Do nothing: no call has started."""
