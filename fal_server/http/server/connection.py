"""One HTTP/1.1 connection. It parses requests, answers them in order, and limits time and memory."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import cast
from uuid import uuid4

import httptools

from fal_server.core.faults import CONTROLLER_FAILED
from fal_server.http.server.errors import HttpError, send_error
from fal_server.http.server.exchange import Exchange, RequestHandler
from fal_server.http.server.messages import Headers
from fal_server.http.server.registry import Registry
from fal_server.http.server.rules import Limits, Rejection, validate

_log = logging.getLogger(__name__)


class HttpConnection(asyncio.Protocol):
    """A connection; its requests are answered one after another, in order."""

    __slots__ = (
        "_closing", "_current", "_deadline", "_fed", "_forwarded", "_fresh", "_handler", "_head_fed",
        "_head_started", "_headers", "_limits", "_lingering", "_loop", "_lost", "_parser", "_paused", "_progress",
        "_pumping", "_queue", "_quiet", "_receiving", "_rejection", "_slow", "_stop", "_timer", "_url", "_watched",
        "registry", "transport",
    )  # fmt: skip

    def __init__(self, handler: RequestHandler, registry: Registry, limits: Limits) -> None:
        self._handler = handler
        self.registry = registry
        self._limits = limits
        self._forwarded = b""
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._url: bytes | None = None
        self._headers: Headers = []
        self._receiving: Exchange | None = None
        self._current: Exchange | None = None
        self._fresh = True  # no request came yet, so that one is on its way
        self._queue: deque[Exchange] = deque()
        # The response to an unacceptable request; sent after the responses to earlier requests.
        self._rejection: Rejection | None = None
        self._fed = self._head_fed = self._quiet = 0
        self._head_started = self._progress = self._pumping = self._paused = self._lost = False
        self._slow = self._closing = self._lingering = False
        # Once set, no further byte is parsed as a request.
        self._stop = False
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._watched: int | None = None

    @property
    def forwarded(self) -> bytes:
        if not self._forwarded:
            peer = self.transport.get_extra_info("peername")
            address = str(peer[0]) if isinstance(peer, tuple) and peer else "unknown"
            scheme = "http" if self.transport.get_extra_info("ssl_object") is None else "https"
            self._forwarded = f"x-forwarded-for: {address}\r\nx-forwarded-proto: {scheme}\r\n".encode()
        return self._forwarded

    @property
    def last(self) -> bool:
        return self.registry.draining or (self._stop and not self._queue and self._rejection is None)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._wait(self._limits.head_seconds)
        self.registry.add(self)

    def data_received(self, data: bytes) -> None:
        current = self._current
        if self._stop:
            if current is not None and current.upgrade and not current.finished:
                self._keep(current, data)
                self._pace()
            return
        size = self._fed = len(data)
        receiving = self._receiving
        self._progress = self._head_started = False
        self._feed(data)
        if self._lost:
            return
        if self._url is not None:
            # The parser does not report where in a part a head starts, so only the parts after that one are counted;
            # the limit is exact once the head is complete.
            if self._head_started:
                self._wait_at_most(self._limits.head_seconds)
            else:
                self._head_fed += size
                if self._head_fed > self._limits.head_bytes:
                    self._reject(431, f"the request's head is larger than {self._limits.head_bytes} bytes")
        elif self._receiving is not None and not self._progress:
            # The parser keeps trailers and chunk extensions until they end.
            self._quiet += size
            if self._quiet > self._limits.head_bytes:
                self._reject(431, f"the body's trailers are larger than {self._limits.head_bytes} bytes")
        if receiving is not None and receiving is self._current and receiving.driver is not None:
            receiving.driver.on_body()
        self._pump()

    def eof_received(self) -> bool | None:
        """Treat a client that closes its side as disconnected."""
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._unwatch()
        self.registry.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        current, self._current, self._receiving = self._current, None, None
        if current is not None:
            current.gone = True
            driver, current.driver = current.driver, None
            if driver is not None:
                driver.on_client_gone()
            current.end()

    def pause_writing(self) -> None:
        self._slow = True
        if self._current is not None and self._current.driver is not None:
            self._current.driver.on_client_slow()

    def resume_writing(self) -> None:
        self._slow = False
        if self._current is not None and self._current.driver is not None:
            self._current.driver.on_client_ready()
        self._pump()

    # Called by the parser, within `_feed`.

    def on_message_begin(self) -> None:
        self._url = b""
        self._head_started = True
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
                self._reject(431, f"the request's head is larger than {self._limits.head_bytes} bytes")
                return
        rejection = validate(exchange, version, upgrade=parser.should_upgrade())
        if rejection is not None:
            self._reject(*rejection)
            return
        self._receiving = exchange
        self._quiet = 0
        self._deadline = math.inf
        self._fresh = False
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
                self._stop = True  # further bytes are not requests
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
            # An upgrade that is not offered here (h2c): answer the request without it.
            self._parser = httptools.HttpRequestParser(self)
            if rest:
                self._feed(rest)
        except httptools.HttpParserError as error:
            if not self._stop:
                self._reject(400, f"this is not a request in HTTP/1.1: {error}")

    def _keep(self, exchange: Exchange, data: bytes) -> None:
        exchange.chunks.append(data)
        exchange.buffered += len(data)
        exchange.received += len(data)

    def _reject(self, status: int, detail: str) -> None:
        """Stop reading, and abort the request whose body cannot be read."""
        if self._rejection is not None:
            return
        self._stop = True
        self._url = None
        self._rejection = (status, detail)
        receiving, self._receiving = self._receiving, None
        if receiving is None:
            return
        if receiving in self._queue:
            self._queue.remove(receiving)
        elif receiving is self._current:
            driver, receiving.driver = receiving.driver, None
            if receiving.started:
                receiving.abort()
            receiving.gone = True
            self._current = None
            if driver is not None:
                driver.on_client_gone()
            receiving.end()

    def body_taken(self) -> None:
        if self._paused:
            self._pace()

    def _pace(self) -> None:
        """Pause reading while requests or a body wait to be handled."""
        if self._lost or self.transport.is_closing():
            return
        current = self._current
        full = bool(self._queue) or (current is not None and current.buffered > self._limits.body_buffer_bytes)
        if full is not self._paused:
            self._paused = full
            if full:
                self.transport.pause_reading()
                self._watched = self.registry.disconnects.watch(self.transport, self.abort)
            else:
                self._unwatch()
                self.transport.resume_reading()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self.registry.disconnects.forget(self._watched)
            self._watched = None

    # Answering.

    def _pump(self) -> None:
        """Hand the next request to the handler. Loop, because recursion could overflow with pipelined requests."""
        if self._pumping or self._lost:
            return
        self._pumping = True
        try:
            while self._current is None and self._queue and not self._slow:
                self._current = exchange = self._queue.popleft()
                try:
                    self._handler.handle(exchange)
                except Exception:  # noqa: BLE001 - whatever the handler raises, the client gets a response
                    _log.exception("a request could not be handled")
                    send_error(exchange, str(uuid4()), HttpError(500, "internal_error", CONTROLLER_FAILED))
            if self._current is None and self._rejection is not None and not self._closing:
                status, detail = self._rejection
                self._rejection = None
                self._receiving = exchange = Exchange(self, b"GET", b"", [], http11=True, keep_alive=False)
                send_error(exchange, str(uuid4()), HttpError(status, "bad_request", detail))
        finally:
            self._pumping = False
        self._pace()

    def exchange_done(self, exchange: Exchange) -> None:
        exchange.driver = None
        exchange.end()
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
        """Continue with the next request, because this one is received and answered."""
        if not exchange.keep_alive or self.registry.draining:
            self._close()
            return
        if self._url is None:
            self._wait(self._limits.idle_seconds)
        else:
            self._wait_at_most(self._limits.head_seconds)  # the next head has started to arrive
        if self._queue or self._rejection is not None:
            self._pump()
        elif self._paused:
            self._pace()

    def release_transport(self, protocol: asyncio.Protocol) -> None:
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
        if self._current is None and not self._queue and not self._fresh:
            self._close()

    def abort(self) -> None:
        self.transport.abort()

    def end_calls(self, name: str) -> None:
        if self._current is not None and name in (self._current.key_id, self._current.membership):
            self.abort()

    def _close(self) -> None:
        """Close once everything written is sent. Also close if the client takes too long to read it."""
        self._closing = self._stop = True
        self.transport.close()
        if not self._lost:
            self._wait_at_most(self._limits.idle_seconds)

    def _linger(self) -> None:
        """Close, but keep reading for a while. A close with unread bytes resets the connection, which may lose data."""
        if self._lost or not self.transport.can_write_eof():
            self._close()
            return
        self._closing = self._stop = self._lingering = True
        self.transport.write_eof()
        self._wait_at_most(self._limits.linger_seconds)
        self._pace()

    def _wait(self, seconds: float) -> None:
        """Set the deadline. A timer that fires earlier is kept, because it checks the deadline again."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _wait_at_most(self, seconds: float) -> None:
        """Like `_wait`, but may shorten a running timer."""
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
            self._reject(408, f"the request's head did not come within {self._limits.head_seconds:g} seconds")
            self._pump()
        elif self._current is None:
            self._close()
