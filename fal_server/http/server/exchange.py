"""One HTTP request as the server received it, and the way to answer it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fal_server.http.server.messages import Headers, reason
from fal_server.http.server.registry import Registry

# Larger parts of a body are handed to the transport as they are: copying them into one buffer would cost more.
_JOIN_LIMIT = 16 * 1024


class ResponseDriver(Protocol):
    """Who answers an exchange; told what happens on the client's side."""

    def on_body(self) -> None:
        """More of the request's body can be taken, or it is complete."""
        ...

    def on_client_gone(self) -> None:
        """The client closed the connection; nothing more can be answered."""
        ...

    def on_client_slow(self) -> None:
        """The client reads slower than it is answered: hold back."""
        ...

    def on_client_ready(self) -> None:
        """The client has caught up."""
        ...


class ConnectionHandle(Protocol):
    """The connection that an exchange came on."""

    transport: asyncio.Transport

    @property
    def registry(self) -> Registry:
        """The open connections, of which this is one."""
        ...

    @property
    def forwarded(self) -> bytes:
        """Header lines for a runner, that say where the client is and what it speaks."""
        ...

    @property
    def last(self) -> bool:
        """Whether the connection closes after the answer under way."""
        ...

    def body_taken(self) -> None:
        """The buffered body was taken: read on."""
        ...

    def exchange_done(self, exchange: Exchange) -> None:
        """The answer is written."""
        ...

    def release_transport(self, protocol: asyncio.Protocol) -> None:
        """Another protocol speaks on this connection from now on."""
        ...


class Exchange:
    """A request, its body as it comes in, and its answer.

    Attributes:
        headers: names in lower case, in the order in which they came.
        host: which host was asked for, with its port; empty where an old client does not say.
        upgrade: whether the client asks for a WebSocket; what it sent after the head is then in `chunks`, raw.
        complete: whether the whole body was received.
        buffered: bytes in `chunks`.
        sink: who answers; set by the handler before it returns, unless it has answered by then.
        started, finished: how far the answer is.
        gone: whether the client left; answering does nothing then.
    """

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_head",
        "buffered",
        "carrier",
        "chunks",
        "complete",
        "expects_continue",
        "finished",
        "gone",
        "headers",
        "host",
        "http11",
        "keep_alive",
        "method",
        "sink",
        "started",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        carrier: ConnectionHandle,
        method: bytes,
        target: bytes,
        headers: Headers,
        *,
        http11: bool,
        keep_alive: bool,
    ) -> None:
        self.carrier = carrier
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
        self.sink: ResponseDriver | None = None
        self.started = False
        self.finished = False
        self.gone = False
        self._head = b""
        self._chunked = False
        self._bodyless = False

    def take(self) -> bytes:
        """The part of the body that is here; reading goes on."""
        chunks = self.chunks
        if not chunks:
            return b""
        self.chunks = []
        self.buffered = 0
        self.carrier.body_taken()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def accept_body(self) -> None:
        """Ask for the body of a client that waits for `100 Continue` before it sends one."""
        if self.expects_continue:
            self.expects_continue = False
            if not self.gone and not self.complete and not self.started:
                self.carrier.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, status: int, fields: bytes, length: int | None, *, phrase: bytes | None = None) -> None:
        """Begin the answer; its head goes out with the first part of the body.

        Args:
            fields: the header lines, each ended by CRLF, without those of framing and connection.
            length: the body's length in bytes; None where it is not known.
            phrase: the reason in the status line; None takes the usual one.
        """
        self.started = True
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
        if self.upgrade or self.carrier.last or (self.expects_continue and not self.complete):
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

    def reattach(self) -> bool:
        """Undo `start` where nothing of the answer is out yet; False where it is too late for that."""
        if not self._head:
            return not self.started
        self._head = b""
        self.started = self._chunked = self._bodyless = False
        return True

    def send(self, body: bytes, *, end: bool) -> None:
        """Write a part of the body, with the head where that is not out yet; `end` completes the answer."""
        if self.gone or self.finished:
            return
        out = self._head
        self._head = b""
        if body and not self._bodyless:
            if len(body) > _JOIN_LIMIT and (out or self._chunked):
                self._send_large(out, body, end=end)
                return
            out += b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body
        if end and self._chunked:
            out += b"0\r\n\r\n"
        if out:
            self.carrier.transport.write(out)
        if end:
            self.finished = True
            self.carrier.exchange_done(self)

    def _send_large(self, head: bytes, body: bytes, *, end: bool) -> None:
        """`send` without copying the body.

        Not by writelines: up to Python 3.13 asyncio's own does not tell a protocol that its buffer is full.
        """
        write = self.carrier.transport.write
        if self._chunked:
            write(head + b"%x\r\n" % len(body))
            write(body)
            write(b"\r\n0\r\n\r\n" if end else b"\r\n")
        else:
            write(head)
            write(body)
        if end:
            self.finished = True
            self.carrier.exchange_done(self)

    def respond(self, status: int, fields: bytes, body: bytes) -> None:
        """Answer whole and at once; a body that is still coming in is not waited for."""
        if self.started:
            self.abort()
            return
        if not self.complete:
            self.keep_alive = False
        self.start(status, fields, len(body))
        self.send(body, end=True)

    def switch(self, fields: bytes, protocol: asyncio.Protocol) -> None:
        """Answer 101 with these header lines, and let another protocol speak from here on."""
        self.started = self.finished = True
        self.carrier.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n")
        self.carrier.release_transport(protocol)

    def abort(self) -> None:
        """Break the connection: the client must not take what it has for the whole answer."""
        self.sink = None
        if not self.gone:
            self.gone = True
            self.carrier.transport.abort()


class Site(Protocol):
    """What stands behind the connections."""

    def handle(self, exchange: Exchange) -> None:
        """Answer, or set `exchange.sink` and answer later."""
        ...

    def drain(self) -> None:
        """The front door is closing: answers that have no end of their own are to end now."""
        ...
