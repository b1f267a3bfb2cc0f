"""The front door: one port for gRPC and for HTTP/1.1, told apart by the first bytes of a connection or by ALPN."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import cast

from fal_server.http.server.connection import HttpConnection
from fal_server.http.server.exchange import Site
from fal_server.http.server.registry import Registry
from fal_server.http.server.rules import Limits
from fal_server.http.server.splice import Splice

_log = logging.getLogger(__name__)
# RFC 9113, 3.4: how every HTTP/2 connection of a client begins. No HTTP/1.1 request begins so.
_PREFACE = b"PRI * HTTP/2.0\r\n"
# Asked after a minute of silence, every 15 s, four times.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class Listener:
    """Listens on one port, and hands connections to the gRPC server or to the site.

    Args:
        site: answers HTTP/1.1.
        grpc_address: where the gRPC server listens: `unix:/path` or `host:port`.
        tls: with a context, only TLS is spoken, and ALPN decides: a client that offers `h2` alone is gRPC, all others
            speak HTTP/1.1.
        limits: what a client may take.
        first_byte_seconds: how long a connection may be silent, or in its TLS handshake.

    Attributes:
        registry: the open connections that speak HTTP, or nothing yet.
    """

    def __init__(
        self,
        site: Site,
        grpc_address: str,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        first_byte_seconds: float = 10,
    ) -> None:
        self.site = site
        self.grpc_address = grpc_address
        self.limits = limits or Limits()
        self.first_byte_seconds = first_byte_seconds
        self.registry = Registry()
        self._grpc_links = Registry()
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._links: set[asyncio.Task[None]] = set()
        if tls is not None:
            # In the server's order: browsers and curl offer both, and mean HTTP; gRPC clients offer h2 alone.
            tls.set_alpn_protocols(["http/1.1", "h2"])

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on sockets that are bound.

        Raises:
            OSError: a socket cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        timeout = None if self._tls is None else self.first_byte_seconds
        for bound in sockets:
            _notice_the_dead(bound)
            server = await loop.create_server(
                lambda: _ProtocolSniffer(self),
                sock=bound,
                ssl=self._tls,
                ssl_handshake_timeout=timeout,
                backlog=1024,
            )
            self._servers.append(server)

    def drain(self) -> None:
        """Stop listening; open requests finish, and connections close after them. gRPC goes on over those it has."""
        for server in self._servers:
            server.close()
        self.site.drain()
        self.registry.drain()
        self._grpc_links.drain()

    async def close(self, grace_seconds: float) -> None:
        """Stop listening, let open requests finish, and abort those that are open after the grace."""
        self.drain()
        await asyncio.gather(self.registry.close(grace_seconds), self._grpc_links.close(grace_seconds))
        for task in tuple(self._links):
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def link_grpc(self, transport: asyncio.Transport, data: bytes) -> None:
        """Join a client's connection to the gRPC server."""
        outer = Splice(self._grpc_links)
        transport.set_protocol(outer)
        outer.connection_made(transport)
        if data:
            outer.data_received(data)
        task = asyncio.get_running_loop().create_task(self._link(outer))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _link(self, outer: Splice) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self.grpc_address.startswith("unix:"):
                _, inner = await loop.create_unix_connection(Splice, self.grpc_address.removeprefix("unix:"))
            else:
                host, _, port = self.grpc_address.rpartition(":")
                _, inner = await loop.create_connection(Splice, host.strip("[]"), int(port))
        except OSError as error:
            _log.warning("the gRPC server at %s cannot be reached: %s", self.grpc_address, error)
            outer.abort()
            return
        outer.join(inner)


async def bind(host: str, port: int) -> tuple[socket.socket, ...]:
    """Bind every address of a host to one port, without listening.

    Args:
        port: 0 picks a free one.

    Raises:
        OSError: an address cannot be bound.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made = socket.socket(family, kind, protocol)
            bound.append(made)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # With port 0 the first address picks the port, and the others take the same.
            made.bind((address[0], port or (bound[0].getsockname()[1] if len(bound) > 1 else 0), *address[2:]))
    except OSError:
        for made in bound:
            made.close()
        raise
    return tuple(bound)


def _notice_the_dead(listening: socket.socket) -> None:
    """Have the kernel ask peers that are silent whether they still live: one that lost its power says no good-bye.

    Connections have it from the socket that they were accepted on (tcp(7)). A caller that is gone gives up its runner.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        listening.setsockopt(socket.IPPROTO_TCP, option, value)


class _ProtocolSniffer(asyncio.Protocol):
    """A connection of which it is not known yet what it speaks."""

    __slots__ = ("_data", "_door", "_timer", "_transport")

    def __init__(self, door: Listener) -> None:
        self._door = door
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        door = self._door
        tls = transport.get_extra_info("ssl_object")
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(door.first_byte_seconds, self.abort)
        door.registry.add(self)
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            door.link_grpc(self._transport, b"")
            self._leave()

    def data_received(self, data: bytes) -> None:
        data = self._data = self._data + data if self._data else data
        door = self._door
        if self._transport.get_extra_info("ssl_object") is None:
            if data.startswith(_PREFACE):
                door.link_grpc(self._transport, data)
                self._leave()
                return
            if _PREFACE.startswith(data):
                return
        http = HttpConnection(door.site, door.registry, door.limits)
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
        self._leave()
        http.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def drain(self) -> None:
        """It has asked for nothing yet."""
        self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _leave(self) -> None:
        self._timer.cancel()
        self._door.registry.discard(self)
