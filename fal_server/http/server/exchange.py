"""One HTTP request and its response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from fal_server.http.server.messages import Headers, reason
from fal_server.http.server.registry import Registry

# Larger parts of a body are written separately, because copying them into one buffer costs more.
_JOIN_LIMIT = 16 * 1024


class ResponseDriver(Protocol):
    """Produces the response of an exchange. The connection notifies it of the client's actions."""

    def on_body(self) -> None:
        """Handle more of the request's body, or that it is complete."""
        ...

    def on_client_gone(self) -> None:
        """Handle that the client closed the connection. Nothing more can be sent."""
        ...

    def on_client_slow(self) -> None:
        """Stop sending, because the client reads more slowly."""
        ...

    def on_client_ready(self) -> None:
        """Send again, because the client has caught up."""
        ...


class ConnectionHandle(Protocol):
    """The part of a connection that an exchange uses."""

    transport: asyncio.Transport

    @property
    def registry(self) -> Registry:
        """The open connections, of which this is one."""
        ...

    @property
    def forwarded(self) -> bytes:
        """The x-forwarded lines for the runner: the client's address and scheme."""
        ...

    @property
    def last(self) -> bool:
        """Whether the connection closes after the current response."""
        ...

    def body_taken(self) -> None:
        """Continue reading, because the buffered body was taken."""
        ...

    def exchange_done(self, exchange: Exchange) -> None:
        """Continue with the next request, because the response is written."""
        ...

    def release_transport(self, protocol: asyncio.Protocol) -> None:
        """Hand the transport to another protocol permanently."""
        ...


class Exchange:
    """A request, its body as it arrives, and its response.

    Attributes:
        headers: names in lower case, in order.
        host: the Host field, with its port; empty if an HTTP/1.0 client sent none.
        upgrade: whether the client asks for a WebSocket; `chunks` then holds the raw bytes after the head.
        complete: whether the whole body has arrived.
        buffered: bytes in `chunks`.
        driver: produces the response; the handler sets it, unless it answers before it returns.
        started, finished: the progress of the response.
        gone: whether the client has left, after which sending does nothing.
        key_id: of the caller's key, with which the exchange ends too; None if there is none.
        code: of the last started response; 0 before.
        error_type: the published error type; None for a success.
        received, sent: bytes of both bodies so far.
        on_end: called once when the response is written or can no longer be; may be None.
        membership: of the caller in the team that it acts for, with which the exchange ends too; empty if there is
        none.
    """

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_head",
        "buffered",
        "chunks",
        "code",
        "complete",
        "connection",
        "driver",
        "error_type",
        "expects_continue",
        "finished",
        "gone",
        "headers",
        "host",
        "http11",
        "keep_alive",
        "key_id",
        "membership",
        "method",
        "on_end",
        "received",
        "sent",
        "started",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        connection: ConnectionHandle,
        method: bytes,
        target: bytes,
        headers: Headers,
        *,
        http11: bool,
        keep_alive: bool,
    ) -> None:
        self.connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self.host = b""
        self.http11 = http11
        self.keep_alive = keep_alive
        self.upgrade = False
        self.expects_continue = False
        self.chunks: list[bytes] = []
        self.buffered = 0
        self.complete = False
        self.driver: ResponseDriver | None = None
        self.started = False
        self.finished = False
        self.gone = False
        self.key_id: str | None = None
        self.code = 0
        self.error_type: str | None = None
        self.received = 0
        self.sent = 0
        self.on_end: Callable[[], None] | None = None
        self.membership = ""
        self._head = b""
        self._chunked = False
        self._bodyless = False

    def address(self) -> str:
        """Return the address of the connection's other end, without a port. Empty if it has none."""
        peer = self.connection.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) and peer else ""

    def take_body(self) -> bytes:
        """Return the part of the body that has arrived. This lets reading continue."""
        chunks = self.chunks
        if not chunks:
            return b""
        self.chunks = []
        self.buffered = 0
        self.connection.body_taken()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def accept_body(self) -> None:
        """Send `100 Continue` to a client that waits for it. The client then sends the body."""
        if self.expects_continue:
            self.expects_continue = False
            if not self.gone and not self.complete and not self.started:
                self.connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, status: int, fields: bytes, length: int | None, *, phrase: bytes | None = None) -> None:
        """Start the response. Its head is sent with the first part of the body.

        Args:
            fields: header lines, each ended by CRLF, without those about framing and connection.
            length: the body's length in bytes; None if unknown.
            phrase: the reason in the status line; None takes the usual one.
        """
        self.started = True
        self.code = status
        framing = b""
        if status < 200 or status == 204:
            self._bodyless = True
        else:
            self._bodyless = status == 304 or self.method == b"HEAD"
            if length is not None:
                framing = b"content-length: %d\r\n" % length
            elif self._bodyless:
                pass
            elif self.http11:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
            else:
                self.keep_alive = False
        if self.upgrade or self.connection.last or (self.expects_continue and not self.complete):
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif not self.http11:
            framing += b"connection: keep-alive\r\n"
        self._head = b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (
            status,
            reason(status) if phrase is None else phrase,
            fields,
            framing,
        )

    def undo_start(self) -> bool:
        """Undo `start` if nothing was sent yet. Return False if it is too late."""
        if not self._head:
            return not self.started
        self._head = b""
        self.started = self._chunked = self._bodyless = False
        return True

    def send(self, body: bytes, *, end: bool) -> None:
        """Write a part of the body, and before it an unsent head. `end` completes the response."""
        if self.gone or self.finished:
            return
        out = self._head
        self._head = b""
        if body and not self._bodyless:
            self.sent += len(body)
            if len(body) > _JOIN_LIMIT and (out or self._chunked):
                self._send_large(out, body, end=end)
                return
            out += b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body
        if end and self._chunked:
            out += b"0\r\n\r\n"
        if out:
            self.connection.transport.write(out)
        if end:
            self.finished = True
            self.connection.exchange_done(self)

    def _send_large(self, head: bytes, body: bytes, *, end: bool) -> None:
        """Write a large part of the body without copying it.

        It avoids writelines, because until Python 3.13 asyncio's does not call pause_writing when its buffer is full.
        """
        write = self.connection.transport.write
        if self._chunked:
            write(head + b"%x\r\n" % len(body))
            write(body)
            write(b"\r\n0\r\n\r\n" if end else b"\r\n")
        else:
            write(head)
            write(body)
        if end:
            self.finished = True
            self.connection.exchange_done(self)

    def respond(self, status: int, fields: bytes, body: bytes) -> None:
        """Send a whole response at once. Do not wait for the rest of the request's body."""
        if self.started:
            self.abort()
            return
        if not self.complete:
            self.keep_alive = False
        self.start(status, fields, len(body))
        self.send(body, end=True)

    def switch(self, fields: bytes, protocol: asyncio.Protocol) -> None:
        """Answer 101 with these header lines. Hand the connection to another protocol."""
        self.started = self.finished = True
        self.code = 101
        self.connection.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n")
        self.connection.release_transport(protocol)

    def abort(self) -> None:
        """Break the connection. So the client does not mistake a part for the complete response."""
        self.driver = None
        if not self.gone:
            self.gone = True
            self.connection.transport.abort()
        self.end()

    def end(self) -> None:
        """Call `on_end` once; a second call does nothing."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()


class RequestHandler(Protocol):
    """Answers the requests of all connections."""

    def handle(self, exchange: Exchange) -> None:
        """Answer now, or set `exchange.driver` to answer later."""
        ...

    def drain(self) -> None:
        """End endless responses, because the listener is closing."""
        ...
