"""The server's side of one HTTP/1.1 connection: parses requests, keeps their order, paces and times them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import cast
from uuid import uuid4

import httptools

from fal_server.http.server.errors import FAILED, HttpError, refuse
from fal_server.http.server.exchange import Exchange, Site
from fal_server.http.server.messages import Headers
from fal_server.http.server.registry import Registry
from fal_server.http.server.rules import Limits, validate

_log = logging.getLogger(__name__)


class HttpConnection(asyncio.Protocol):
    """One connection. Requests are answered one after another, in the order in which they came."""

    __slots__ = (
        "_begun", "_closing", "_current", "_deadline", "_fed", "_forwarded", "_head_fed", "_headers", "_limits",
        "_lingering", "_loop", "_lost", "_parser", "_paused", "_progress", "_pumping", "_queue", "_quiet", "_receiving",
        "_refusal", "_site", "_slow", "_stop", "_timer", "_url", "_watched", "registry",
        "transport",
    )  # fmt: skip

    def __init__(self, site: Site, registry: Registry, limits: Limits) -> None:
        self._site = site
        self.registry = registry
        self._limits = limits
        self._forwarded = b""
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._url: bytes | None = None
        self._headers: Headers = []
        self._receiving: Exchange | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        # The answer to what cannot be read as a request; given when those before it are answered.
        self._refusal: tuple[int, str] | None = None
        self._fed = self._head_fed = self._quiet = 0
        self._begun = self._progress = self._pumping = self._paused = self._lost = False
        self._slow = self._closing = self._lingering = False
        # Once set, no byte that comes is taken for a request.
        self._stop = False
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._watched: int | None = None

    @property
    def forwarded(self) -> bytes:
        """Header lines for a runner, that say where the client is and what it speaks."""
        if not self._forwarded:
            peer = self.transport.get_extra_info("peername")
            address = str(peer[0]) if isinstance(peer, tuple) and peer else "unknown"
            scheme = "http" if self.transport.get_extra_info("ssl_object") is None else "https"
            self._forwarded = f"x-forwarded-for: {address}\r\nx-forwarded-proto: {scheme}\r\n".encode()
        return self._forwarded

    @property
    def last(self) -> bool:
        """Whether the connection closes after the answer under way."""
        return self.registry.draining or (self._stop and not self._queue and self._refusal is None)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the first request's head is due."""
        self.transport = cast("asyncio.Transport", transport)
        self._wait(self._limits.head_seconds)
        self.registry.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, then hand on whole heads and whatever there is of a body."""
        current = self._current
        if self._stop:
            if current is not None and current.upgrade and not current.finished:
                self._keep(current, data)
                self._pace()
            return
        size = self._fed = len(data)
        receiving = self._receiving
        self._progress = self._begun = False
        self._feed(data)
        if self._lost:
            return
        if self._url is not None:
            # Where in the first part a head begins the parser does not tell: only whole parts of it are counted, and
            # the limit is exact when the head is complete.
            if self._begun:
                self._wait_at_most(self._limits.head_seconds)
            else:
                self._head_fed += size
                if self._head_fed > self._limits.head_bytes:
                    self._refuse(431, f"the request's head is larger than {self._limits.head_bytes} bytes")
        elif self._receiving is not None and not self._progress:
            # Trailers and chunk extensions are kept by the parser until they end.
            self._quiet += size
            if self._quiet > self._limits.head_bytes:
                self._refuse(431, f"the body's trailers are larger than {self._limits.head_bytes} bytes")
        if receiving is not None and receiving is self._current and receiving.sink is not None:
            receiving.sink.on_body()
        self._pump()

    def eof_received(self) -> bool | None:
        """A client that closes its side is gone: nothing that it has not asked for yet can follow."""
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever is answering."""
        self._lost = True
        self._unwatch()
        self.registry.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        current, self._current, self._receiving = self._current, None, None
        if current is not None:
            current.gone = True
            sink, current.sink = current.sink, None
            if sink is not None:
                sink.on_client_gone()

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._slow = True
        if self._current is not None and self._current.sink is not None:
            self._current.sink.on_client_slow()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._slow = False
        if self._current is not None and self._current.sink is not None:
            self._current.sink.on_client_ready()
        self._pump()

    # What the parser calls, from within `_feed`.

    def on_message_begin(self) -> None:
        self._url = b""
        self._begun = True
        self._headers = []
        self._head_fed = 0

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._receiving is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        target, headers = self._url or b"", self._headers
        self._url = None
        if self._stop:
            return
        parser = self._parser
        version = parser.get_http_version()
        exchange = Exchange(
            self, parser.get_method(), target, headers, http11=version == "1.1", keep_alive=parser.should_keep_alive()
        )
        if self._head_fed + self._fed > self._limits.head_bytes:
            size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > self._limits.head_bytes:
                self._refuse(431, f"the request's head is larger than {self._limits.head_bytes} bytes")
                return
        refusal = validate(exchange, version, upgrade=parser.should_upgrade())
        if refusal is not None:
            self._refuse(*refusal)
            return
        self._receiving = exchange
        self._quiet = 0
        self._deadline = math.inf
        self._queue.append(exchange)

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if self._receiving is not None and not self._receiving.finished:
            self._keep(self._receiving, body)

    def on_chunk_header(self) -> None:
        self._progress = True

    def on_message_complete(self) -> None:
        exchange, self._receiving = self._receiving, None
        if exchange is not None:
            exchange.complete = True
            if not exchange.keep_alive and not exchange.finished:
                self._stop = True  # what may follow is not a request
            elif exchange.finished:
                self._after_answer(exchange)

    # Receiving.

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            exchange = self._queue[-1] if self._queue else None
            if self._stop:
                return
            if exchange is not None and exchange.upgrade:
                self._stop = True
                if rest:
                    self._keep(exchange, rest)
                return
            # An upgrade that is not done here (h2c): the request is answered as it is.
            self._parser = httptools.HttpRequestParser(self)
            if rest:
                self._feed(rest)
        except httptools.HttpParserError as error:
            if not self._stop:
                self._refuse(400, f"this is not a request in HTTP/1.1: {error}")

    def _keep(self, exchange: Exchange, data: bytes) -> None:
        exchange.chunks.append(data)
        exchange.buffered += len(data)

    def _refuse(self, status: int, detail: str) -> None:
        """Nothing after this can be read; a request whose body it was is broken off."""
        if self._refusal is not None:
            return
        self._stop = True
        self._url = None
        self._refusal = (status, detail)
        receiving, self._receiving = self._receiving, None
        if receiving is None:
            return
        if receiving in self._queue:
            self._queue.remove(receiving)
        elif receiving is self._current:
            sink, receiving.sink = receiving.sink, None
            if receiving.started:
                receiving.abort()
            receiving.gone = True
            self._current = None
            if sink is not None:
                sink.on_client_gone()

    def body_taken(self) -> None:
        """The buffered body was taken: read on."""
        if self._paused:
            self._pace()

    def _pace(self) -> None:
        """Read only while what was read is being used up."""
        if self._lost or self.transport.is_closing():
            return
        current = self._current
        full = bool(self._queue) or (current is not None and current.buffered > self._limits.body_buffer_bytes)
        if full is not self._paused:
            self._paused = full
            if full:
                self.transport.pause_reading()
                self._watched = self.registry.hangups.watch(self.transport, self.abort)
            else:
                self._unwatch()
                self.transport.resume_reading()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self.registry.hangups.forget(self._watched)
            self._watched = None

    # Answering.

    def _pump(self) -> None:
        """Hand the next request to the site; a loop and not a recursion, however many are pipelined."""
        if self._pumping or self._lost:
            return
        self._pumping = True
        try:
            while self._current is None and self._queue and not self._slow:
                self._current = exchange = self._queue.popleft()
                try:
                    self._site.handle(exchange)
                except Exception:  # noqa: BLE001 - whatever the site raises, the client gets an answer
                    _log.exception("a request could not be handled")
                    refuse(exchange, str(uuid4()), HttpError(500, "internal_error", FAILED))
            if self._current is None and self._refusal is not None and not self._closing:
                status, detail = self._refusal
                self._refusal = None
                self._receiving = exchange = Exchange(self, b"GET", b"", [], http11=True, keep_alive=False)
                refuse(exchange, str(uuid4()), HttpError(status, "bad_request", detail))
        finally:
            self._pumping = False
        self._pace()

    def exchange_done(self, exchange: Exchange) -> None:
        """The answer is written."""
        exchange.sink = None
        self._current = None
        exchange.chunks.clear()
        exchange.buffered = 0
        if self._receiving is not exchange:
            self._after_answer(exchange)
        elif exchange.expects_continue:
            self._close()  # the body was never asked for
        elif exchange.keep_alive:
            self._wait_at_most(self._limits.linger_seconds)
            self._pace()
        else:
            self._linger()

    def _after_answer(self, exchange: Exchange) -> None:
        """A request is received and answered: on to the next."""
        if not exchange.keep_alive or self.registry.draining:
            self._close()
            return
        if self._url is None:
            self._wait(self._limits.idle_seconds)
        else:
            self._wait_at_most(self._limits.head_seconds)  # the next head has begun to come
        if self._queue or self._refusal is not None:
            self._pump()
        elif self._paused:
            self._pace()

    def release_transport(self, protocol: asyncio.Protocol) -> None:
        """Another protocol speaks on this connection from now on."""
        self._lost = True
        self._current = None
        if self._timer is not None:
            self._timer.cancel()
        transport = self.transport
        if self._paused:
            self._unwatch()
            transport.resume_reading()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self.registry.discard(self)

    # Ending.

    def drain(self) -> None:
        """Finish the request under way, then close."""
        if self._current is None and not self._queue:
            self._close()

    def abort(self) -> None:
        """Close now."""
        self.transport.abort()

    def _close(self) -> None:
        """Close once what was written is sent, or when the client takes too long to read it."""
        self._closing = self._stop = True
        self.transport.close()
        if not self._lost:
            self._wait_at_most(self._limits.idle_seconds)

    def _linger(self) -> None:
        """Close, reading on for a while: closing on unread bytes resets the connection, and the answer may be lost."""
        if self._lost or not self.transport.can_write_eof():
            self._close()
            return
        self._closing = self._stop = self._lingering = True
        self.transport.write_eof()
        self._wait_at_most(self._limits.linger_seconds)
        self._pace()

    def _wait(self, seconds: float) -> None:
        """Set when to lose patience. The timer is left as it is where it fires earlier: it will look again."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _wait_at_most(self, seconds: float) -> None:
        """As `_wait`, where the timer may have to fire earlier than it was set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wait(seconds)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline == math.inf:
            return
        if self._deadline > self._loop.time():
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
        elif self._lingering:
            self._lingering = False
            self._close()
        elif self._closing:
            self.transport.abort()
        elif self._url is not None and self._current is None:
            self._refuse(408, f"the request's head did not come within {self._limits.head_seconds:g} seconds")
            self._pump()
        elif self._current is None:
            self._close()
