"""One request on its way to a runner, and the answer on its way back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Protocol

from fal_server.core.routing import Outcome, error_type_of
from fal_server.http.gateway.app_request import AppRequest
from fal_server.http.gateway.deadlines import Deadlines
from fal_server.http.gateway.upstream import Pool, Upstream
from fal_server.http.server.errors import HttpError, refuse
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import HOP_BY_HOP, tokens
from fal_server.http.server.splice import Splice
from fal_server.live.dispatch import Dispatcher, Lease

_log = logging.getLogger(__name__)
_NOT_PASSED = HOP_BY_HOP | {b"content-length", b"x-fal-request-id", b"x-fal-stop-runner", b"x-fal-runner-health-check"}
# RFC 9110, 9.2.2: what may be sent again where it is not known whether it arrived.
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})


class RelayContext(Protocol):
    """What relays share."""

    dispatcher: Dispatcher
    pool: Pool
    deadlines: Deadlines
    connect_seconds: float

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run beside."""
        ...


class Relay:
    """Holds the lease from `begin` until the answer is over, and gives it back with the outcome, once."""

    __slots__ = (
        "_call",
        "_chunked",
        "_depot",
        "_exchange",
        "_lease",
        "_outcome",
        "_over",
        "_paused",
        "_request_id",
        "_runner_slow",
        "_seconds",
        "_sent",
        "_sent_end",
        "_sized",
        "_task",
        "_upstream",
    )

    def __init__(
        self,
        depot: RelayContext,
        exchange: Exchange,
        call: AppRequest,
        lease: Lease,
        request_id: str,
        request_timeout: float,
    ) -> None:
        self._depot = depot
        self._exchange = exchange
        self._call = call
        self._lease = lease
        self._request_id = request_id
        self._seconds = request_timeout
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None
        self._sent = b""
        self._sent_end = self._chunked = self._runner_slow = self._paused = self._over = self._sized = False
        self._outcome = Outcome.DONE

    def begin(self) -> None:
        """Send the request, on a connection that is there or on a new one."""
        self._depot.deadlines.add(self, self._seconds)
        self._exchange.sink = self
        self._exchange.accept_body()
        upstream = self._depot.pool.get(self._lease.runner_id)
        if upstream is None:
            self._task = self._depot.spawn(self._connect())
        else:
            self._ask(upstream)

    async def _connect(self) -> None:
        lease = self._lease
        try:
            async with asyncio.timeout(self._depot.connect_seconds):
                upstream = await self._depot.pool.connect(lease.runner_id, lease.host, lease.port)
        except TimeoutError:
            self._fail("runner_connection_timeout", "the runner does not accept connections")
        except ConnectionRefusedError:
            self._fail("runner_connection_refused", "the runner refuses connections: its app has stopped listening")
        except OSError as error:
            self._fail("runner_connection_error", f"the runner cannot be reached: {error}")
        else:
            self._task = None
            if upstream.lost:  # before it had an asker who could be told
                self._fail("runner_disconnected", "the runner closed the connection at once")
            else:
                self._ask(upstream)

    def _ask(self, upstream: Upstream) -> None:
        """Write the request's head, with what is here of the body."""
        exchange = self._exchange
        self._upstream = upstream
        upstream.ask(self, bodyless=exchange.method == b"HEAD")
        if self._sent:  # the second try
            upstream.transport.write(self._sent)
            return
        call = self._call
        body = b""
        if exchange.upgrade:
            framing = b"connection: upgrade\r\nupgrade: websocket\r\n"
            self._sent_end = True
        else:
            body = exchange.take()
            self._sent_end = exchange.complete
            if call.length is not None:
                framing = b"content-length: %d\r\n" % call.length
            elif not exchange.complete:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
            else:
                framing = b"content-length: %d\r\n" % len(body) if body else b""
        head = b"%b %b HTTP/1.1\r\n%b%b%bx-fal-endpoint: %b\r\nx-fal-request-id: %b\r\n\r\n" % (
            exchange.method,
            call.path,
            call.fields,
            framing,
            exchange.carrier.forwarded,
            call.path.partition(b"?")[0],
            self._request_id.encode(),
        )
        if self._chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        data = head + body
        if self._sent_end and upstream.reused:
            self._sent = data
        upstream.transport.write(data)

    # What the client's side tells.

    def on_body(self) -> None:
        """Pass on what came of the body, as long as the runner keeps up."""
        upstream = self._upstream
        if upstream is None or self._runner_slow or self._sent_end or upstream.transport.is_closing():
            return
        exchange = self._exchange
        body = exchange.take()
        self._sent_end = exchange.complete
        if not self._chunked:
            if body:
                upstream.transport.write(body)
            return
        if body:
            for part in (b"%x\r\n" % len(body), body, b"\r\n"):
                upstream.transport.write(part)
        if self._sent_end:
            upstream.transport.write(b"0\r\n\r\n")

    def on_client_gone(self) -> None:
        """Break off, so that the app sees it too."""
        self._end(Outcome.CLIENT_GONE)

    def on_client_slow(self) -> None:
        """Read the answer no faster than the client does."""
        if self._upstream is not None and not self._upstream.transport.is_closing():
            self._paused = True
            self._upstream.transport.pause_reading()

    def on_client_ready(self) -> None:
        """Read on."""
        if self._paused and self._upstream is not None:
            self._paused = False
            if not self._upstream.transport.is_closing():
                self._upstream.transport.resume_reading()

    # What the runner's side tells.

    def on_runner_slow(self) -> None:
        """Leave the body in the exchange, which stops reading when it is full."""
        self._runner_slow = True

    def on_runner_ready(self) -> None:
        """Go on with the body."""
        self._runner_slow = False
        self.on_body()

    def on_answer(self) -> None:
        """Pass on what came."""
        upstream, exchange = self._upstream, self._exchange
        assert upstream is not None
        if not exchange.started:
            if upstream.switched:
                self._switch(upstream)
                return
            self._start(upstream)
        body = upstream.take()
        if not upstream.complete:
            # A head that says how long the body is goes out with its first part: servers often write them one by one.
            if body or not self._sized:
                exchange.send(body, end=False)
            return
        if self._paused:
            self.on_client_ready()
        self._upstream = None
        upstream.done(reusable=self._sent_end)
        exchange.sink = None
        if upstream.status in (502, 504) and self._outcome is Outcome.DONE:
            self._depot.deadlines.discard(self, self._seconds)
            self._over = True
            self._depot.spawn(self._probe())
        else:
            self._end(self._outcome)
        exchange.send(body, end=True)

    def on_broken(self, detail: str) -> None:
        """Try once more where that is safe; else tell the client, in a way that it cannot take for a whole answer."""
        upstream = self._upstream
        assert upstream is not None
        if upstream.reused and not upstream.answered and self._sent and self._exchange.method in _IDEMPOTENT:
            # A kept connection that the runner closed as the request was on its way.
            self._drop()
            self._task = self._depot.spawn(self._connect())
        else:
            self._fail("runner_incomplete_response" if upstream.answered else "runner_disconnected", detail)

    def _start(self, upstream: Upstream) -> None:
        fields, length = self._fields(upstream)
        self._sized = length is not None
        if upstream.status == 503:
            self._outcome = Outcome.RUNNER_FAILED
        self._exchange.start(upstream.status, fields, length, phrase=upstream.phrase)

    def _fields(self, upstream: Upstream) -> tuple[bytes, int | None]:
        """The answer's header lines for the client, and its length."""
        fields: list[bytes] = []
        length: int | None = None
        hints: str | None = None
        health_check = False
        nominated: list[bytes] = []
        for name, value in upstream.headers:
            if name not in _NOT_PASSED:
                fields.append(b"%b: %b\r\n" % (name, value))
                if name == b"x-fal-runner-hints":
                    hints = value.decode("latin-1")
            elif name == b"content-length":
                length = int(value)
            elif name == b"connection":
                nominated = tokens(value)
            elif name == b"x-fal-stop-runner" and value == b"1":
                self._outcome = Outcome.STOP_RUNNER
            elif name == b"x-fal-runner-health-check":
                health_check = value != b"0"
        for token in nominated:
            if token not in (b"close", b"keep-alive", b"upgrade"):
                fields = [line for line in fields if not line.startswith(token + b":")]
        if upstream.status >= 500 and not any(name == b"x-fal-error-type" for name, _ in upstream.headers):
            fields.append(b"x-fal-error-type: %b\r\n" % error_type_of(upstream.status).encode())
        fields.append(b"x-fal-request-id: %b\r\n" % self._request_id.encode())
        self._depot.dispatcher.answered(self._lease, hints, health_check=health_check)
        return b"".join(fields), length

    def _switch(self, upstream: Upstream) -> None:
        """Join the two connections: the client and the app speak WebSocket with one another from here on."""
        exchange = self._exchange
        if not exchange.upgrade:
            self._fail("runner_connection_error", "the runner answered 101 to a request without Upgrade")
            return
        self._depot.deadlines.discard(self, self._seconds)
        fields, _ = self._fields(upstream)
        early = exchange.take()
        outer = Splice(exchange.carrier.registry, lambda: self._end(self._outcome))
        inner = Splice(None, lambda: self._end(self._outcome))
        self._upstream = upstream.asker = None
        upstream.transport.set_protocol(inner)
        inner.connection_made(upstream.transport)
        exchange.switch(fields + b"connection: upgrade\r\nupgrade: websocket\r\n", outer)
        if early:
            outer.data_received(early)
        if late := upstream.take():
            inner.data_received(late)
        outer.join(inner)

    # Ending.

    def time_out(self) -> None:
        """The request has taken longer than it may: which ends the runner, unless the caller held it up."""
        bound = f"within the app's request_timeout of {self._seconds:g} s"
        with_runner = self._upstream is None or self._runner_slow or self._sent_end or self._exchange.complete
        if self._paused or not with_runner:
            refusal = HttpError(408, "request_timeout", f"the request's body did not come whole {bound}")
            self._answer_failure(Outcome.CLIENT_GONE, refusal)
        else:
            self._answer_failure(Outcome.TIMED_OUT, HttpError(504, "request_timeout", f"there was no answer {bound}"))

    def _fail(self, error_type: str, detail: str) -> None:
        self._answer_failure(Outcome.RUNNER_FAILED, HttpError(503, error_type, detail))

    def _answer_failure(self, outcome: Outcome, refusal: HttpError) -> None:
        exchange = self._exchange
        _log.warning(
            "request %s to %s on runner %s: %s: %s",
            *(self._request_id, self._call.app, self._lease.runner_id, refusal.error_type, refusal.detail),
        )
        exchange.sink = None
        self._end(outcome)
        if exchange.reattach():
            refuse(exchange, self._request_id, refusal)
        else:
            exchange.abort()

    def _end(self, outcome: Outcome) -> None:
        """Give the lease back and let go of the runner."""
        if self._over:
            return
        self._over = True
        self._depot.deadlines.discard(self, self._seconds)
        self._drop()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self._depot.dispatcher.release(self._lease, outcome)

    def _drop(self) -> None:
        """Break the connection to the runner, where it is not given back yet."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.done(reusable=False)

    async def _probe(self) -> None:
        """After 502 or 504: does the runner still accept connections?"""
        outcome = Outcome.RUNNER_FAILED
        try:
            async with asyncio.timeout(self._depot.connect_seconds):
                upstream = await self._depot.pool.connect(self._lease.runner_id, self._lease.host, self._lease.port)
            upstream.transport.abort()
            outcome = Outcome.DONE
        except OSError:
            pass
        finally:
            self._depot.dispatcher.release(self._lease, outcome)
