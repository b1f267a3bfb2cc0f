"""One port for gRPC and HTTP/1.1. A connection's first bytes or ALPN distinguish them."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from fal_server.aio.tasks import TaskSet
from fal_server.http.server.acceptor import Acceptor
from fal_server.http.server.connection import HttpConnection
from fal_server.http.server.exchange import RequestHandler
from fal_server.http.server.peers import named_socket
from fal_server.http.server.refused_grpc import RefusedGrpc
from fal_server.http.server.registry import Registry
from fal_server.http.server.rules import Limits
from fal_server.http.server.splice import GrpcClient, Splice

_log = logging.getLogger(__name__)
# RFC 9113, 3.4: every client of HTTP/2 starts with this, and no HTTP/1.1 request does.
_PREFACE = b"PRI * HTTP/2.0\r\n"
# Probe after a minute of silence, then every 15 s, four times.
_LATE_SECONDS = 1.0
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


_NO_CERTIFICATE = (
    "this controller lets in only who shows a client certificate by its authority: its owner issues them, and fal "
    "takes yours from FAL_CLIENT_CERT_FILE"
)
_NO_CERTIFICATE_BODY = json.dumps({"detail": _NO_CERTIFICATE}).encode()
_NO_CERTIFICATE_HTTP = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_NO_CERTIFICATE_BODY), _NO_CERTIFICATE_BODY)
)


class Listener:
    """Accepts connections on one port. It hands each to the gRPC server or to HTTP/1.1.

    Args:
        handler: answers requests in HTTP/1.1.
        grpc_address: the gRPC server's address: `unix:/path` or `host:port`.
        tls: with a context, every connection must use TLS, and ALPN decides: a client that offers only `h2` gets gRPC,
            any other HTTP/1.1. If it verifies clients, those without a certificate are refused.
        limits: the limits of one client.
        first_byte_seconds: how long a connection may be silent or in its TLS handshake.

    Attributes:
        registry: the open connections that use HTTP or are not identified yet.
    """

    def __init__(
        self,
        handler: RequestHandler,
        grpc_address: str,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        first_byte_seconds: float = 10,
    ) -> None:
        self.handler = handler
        self.grpc_address = grpc_address
        self.limits = limits or Limits()
        self.first_byte_seconds = first_byte_seconds
        self.registry = Registry()
        self._grpc_links = Registry()
        self._tls = tls
        self.asks_for_certificates = tls is not None and tls.verify_mode is not ssl.CERT_NONE
        self._acceptors: list[Acceptor] = []
        self._tasks = TaskSet(_log)
        self._connecting = TaskSet(_log)
        if tls is not None:
            # The server's order decides: browsers and curl offer both and mean HTTP; gRPC clients offer only h2.
            tls.set_alpn_protocols(["http/1.1", "h2"])

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on bound sockets.

        Raises:
            OSError: a socket cannot be listened on.
        """
        for bound in sockets:
            _enable_keepalive(bound)
            acceptor = Acceptor(
                bound,
                lambda: _ProtocolSniffer(self),
                tls=self._tls,
                handshake_seconds=self.first_byte_seconds,
                tasks=self._connecting,
            )
            self._acceptors.append(acceptor)
            acceptor.start()

    @property
    def open(self) -> int:
        """How many connections are open. Those that are accepted, and not established yet, count too."""
        return len(self.registry) + len(self._connecting)

    def drain(self) -> None:
        """Stop listening, and close each HTTP connection after its request. The gRPC server keeps its connections."""
        for acceptor in self._acceptors:
            acceptor.close()
        self.handler.drain()
        self.registry.drain()
        self._grpc_links.drain()

    async def close(self, grace_seconds: float) -> None:
        """Drain, and abort the connections that are still open after the grace."""
        self.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._connecting.wait()
        await asyncio.gather(self.registry.close(grace_seconds), self._grpc_links.close(grace_seconds))
        await self._connecting.close()
        await self._tasks.close()

    def link_grpc(self, transport: asyncio.Transport, data: bytes) -> None:
        """Join a client's connection to the gRPC server."""
        outer = GrpcClient(self._grpc_links)
        transport.set_protocol(outer)
        outer.connection_made(transport)
        if data:
            outer.data_received(data)
        self._tasks.spawn(self._link(outer))

    async def _link(self, outer: Splice) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self.grpc_address.startswith("unix:"):
                named = named_socket(outer.transport.get_extra_info("peername"))
                try:
                    await loop.sock_connect(named, self.grpc_address.removeprefix("unix:"))
                    _, inner = await loop.create_unix_connection(Splice, sock=named)
                except BaseException:
                    named.close()
                    raise
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
            # With port 0 the first address picks the port, and the others use the same.
            made.bind((address[0], port or (bound[0].getsockname()[1] if len(bound) > 1 else 0), *address[2:]))
    except OSError:
        for made in bound:
            made.close()
        raise
    return tuple(bound)


def _enable_keepalive(listening: socket.socket) -> None:
    """Let the kernel probe silent clients. One that lost power never closes and keeps its runner.

    Connections inherit this from their listening socket (tcp(7)).
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        listening.setsockopt(socket.IPPROTO_TCP, option, value)


class _ProtocolSniffer(asyncio.Protocol):
    """A connection whose protocol is not known yet."""

    __slots__ = ("_data", "_listener", "_refused", "_timer", "_transport")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._data = b""
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        listener = self._listener
        tls = transport.get_extra_info("ssl_object")
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(listener.first_byte_seconds, self.abort)
        listener.registry.add(self)
        grpc = tls is not None and tls.selected_alpn_protocol() == "h2"
        # The handshake leaves this check to us: without it, a client without a certificate would be admitted.
        self._refused = listener.asks_for_certificates and not (tls and tls.getpeercert(binary_form=True))
        if self._refused and grpc:
            refused = RefusedGrpc(_NO_CERTIFICATE, listener.first_byte_seconds)
            self._transport.set_protocol(refused)
            refused.connection_made(self._transport)
            self._leave()
        elif grpc:
            listener.link_grpc(self._transport, b"")
            self._leave()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._transport.write(_NO_CERTIFICATE_HTTP)
            self._transport.close()
            return
        data = self._data = self._data + data if self._data else data
        listener = self._listener
        if self._transport.get_extra_info("ssl_object") is None:
            if data.startswith(_PREFACE):
                listener.link_grpc(self._transport, data)
                self._leave()
                return
            if _PREFACE.startswith(data):
                return
        http = HttpConnection(listener.handler, listener.registry, listener.limits)
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
        self._leave()
        http.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def drain(self) -> None:
        """Leave a newly connected client a little time to send its request. It is answered."""
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_LATE_SECONDS, self._transport.close)

    def abort(self) -> None:
        self._transport.abort()

    def end_calls(self, name: str) -> None:
        """Do nothing: no call has started."""

    def _leave(self) -> None:
        self._timer.cancel()
        self._listener.registry.discard(self)
