"""Relays one request to a runner and the response back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Protocol

from fal_server.core.faults import CONTROLLER_FAILED, NodeTrouble
from fal_server.core.requests import CALLER_LEFT, DirectRequest
from fal_server.core.routing import Outcome, error_type_of
from fal_server.http.gateway.app_request import AppRequest
from fal_server.http.gateway.deadlines import Deadlines
from fal_server.http.gateway.passing import kept_in_app
from fal_server.http.gateway.upstream import Pool, Upstream, stays_open
from fal_server.http.gateway.waiting import BodyClock, too_slow
from fal_server.http.server.errors import HttpError, send_error
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import HOP_BY_HOP, origin_form, tokens
from fal_server.http.server.splice import Splice
from fal_server.live.dispatch import Dispatcher, Lease, RoutedApp, RunnerFailure
from fal_server.live.ended_requests import EndedRequests

_log = logging.getLogger(__name__)
_NOT_PASSED = HOP_BY_HOP | {b"content-length", b"x-fal-request-id", b"x-fal-stop-runner", b"x-fal-runner-health-check"}
_OF_ONE_APP = frozenset({b"service-worker-allowed", b"set-cookie"})
# RFC 9110, 9.2.2: these may be sent again if it is unknown whether they arrived.
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})


class RelayContext(Protocol):
    """The state that relays share: the gateway."""

    dispatcher: Dispatcher
    pool: Pool
    deadlines: Deadlines
    connect_seconds: float
    body_seconds: float
    ended: EndedRequests | None

    def caller_left(self, lease: Lease, request_id: str, path: bytes) -> None:
        """Handle a caller's disconnect while its complete request is on a runner."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run in the background; the gateway keeps the task until it ends."""
        ...


class Relay:
    """Relays one request. It holds the lease from `start` to the end, and releases it once with the outcome."""

    __slots__ = (
        "_app_id",
        "_body_clock",
        "_chunked",
        "_context",
        "_exchange",
        "_lease",
        "_outcome",
        "_over",
        "_paused",
        "_received",
        "_request",
        "_request_id",
        "_runner_slow",
        "_seconds",
        "_sent",
        "_sent_end",
        "_sized",
        "_started",
        "_task",
        "_upstream",
    )

    def __init__(
        self,
        context: RelayContext,
        exchange: Exchange,
        request: AppRequest,
        lease: Lease,
        request_id: str,
        app: RoutedApp,
        received: float | None,
    ) -> None:
        """Prepare the relay.

        Args:
            received: when the request arrived, by `time.monotonic`; None means now.
        """
        self._context = context
        self._exchange = exchange
        self._request = request
        self._lease = lease
        self._request_id = request_id
        self._seconds: float = app.request_timeout
        self._app_id = app.app_id
        self._started = time.monotonic()
        self._received = self._started if received is None else received
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None
        self._body_clock: BodyClock | None = None
        self._sent = b""
        self._sent_end = self._chunked = self._runner_slow = self._paused = self._over = self._sized = False
        self._outcome = Outcome.DONE

    def start(self) -> None:
        """Send the request, on an idle connection or on a new one."""
        self._context.deadlines.add(self, self._seconds)
        if self._context.ended is not None:
            self._exchange.on_end = self._record
        self._exchange.driver = self
        self._exchange.accept_body()
        if not self._exchange.complete and not self._exchange.upgrade:
            self._body_clock = BodyClock(self, self._context.deadlines, self._context.body_seconds)
        upstream = self._context.pool.get(self._lease.runner_id)
        if upstream is None:
            self._task = self._context.spawn(self._connect())
        else:
            self._send(upstream)

    async def _connect(self) -> None:
        lease = self._lease
        try:
            upstream = await self._context.pool.connect(
                lease.runner_id, lease.address, seconds=self._context.connect_seconds
            )
        except NodeTrouble as fault:
            self._send_failure(Outcome.DONE, HttpError(503, "runner_scheduling_failure", fault.message))
        except TimeoutError:
            self._fail("runner_connection_timeout", "the runner does not accept connections")
        except ConnectionRefusedError:
            self._fail("runner_connection_refused", "the runner refuses connections: its app has stopped listening")
        except OSError as error:
            self._fail("runner_connection_error", f"the runner cannot be reached: {error}")
        except Exception:
            # In any case the client gets a response and the runner's slot is released; the log has the rest.
            self._send_failure(Outcome.DONE, HttpError(500, "internal_error", CONTROLLER_FAILED))
            raise
        else:
            self._task = None
            if upstream.lost:  # before it had a listener to notify
                self._fail("runner_disconnected", "the runner closed the connection at once")
            else:
                self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        """Write the request's head with the body's part that has arrived."""
        exchange = self._exchange
        self._upstream = upstream
        upstream.start_request(self, bodyless=exchange.method == b"HEAD")
        if self._sent:  # this is the second attempt
            upstream.transport.write(self._sent)
            return
        request = self._request
        body = b""
        if exchange.upgrade:
            framing = b"connection: upgrade\r\nupgrade: websocket\r\n"
            self._sent_end = True
        else:
            body = exchange.take_body()
            self._count(body)
            self._sent_end = exchange.complete
            if request.length is not None:
                framing = b"content-length: %d\r\n" % request.length
            elif not exchange.complete:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
            else:
                framing = b"content-length: %d\r\n" % len(body) if body else b""
        head = b"%b %b HTTP/1.1\r\n%b%b%bx-fal-endpoint: %b\r\nx-fal-request-id: %b\r\n\r\n" % (
            exchange.method,
            request.path,
            request.fields,
            framing,
            exchange.connection.forwarded,
            request.path.partition(b"?")[0],
            self._request_id.encode(),
        )
        if self._chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        data = head + body
        if self._sent_end and upstream.reused:
            self._sent = data
        upstream.transport.write(data)

    # Called by the client's connection.

    def on_body(self) -> None:
        upstream = self._upstream
        if upstream is None or self._runner_slow or self._sent_end or upstream.transport.is_closing():
            return
        exchange = self._exchange
        body = exchange.take_body()
        self._count(body)
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
        if self._upstream is None:
            self._end(Outcome.UNUSED)  # nothing was sent
            return
        self._end(Outcome.CLIENT_GONE)
        if self._sent_end:  # otherwise the app notices that it never gets the whole request
            self._context.caller_left(self._lease, self._request_id, self._request.path)

    def on_client_slow(self) -> None:
        if self._upstream is not None and not self._upstream.transport.is_closing():
            self._paused = True
            self._upstream.transport.pause_reading()

    def on_client_ready(self) -> None:
        if self._paused and self._upstream is not None:
            self._paused = False
            if not self._upstream.transport.is_closing():
                self._upstream.transport.resume_reading()

    # Called by the runner's connection.

    def on_runner_slow(self) -> None:
        """Leave the body in the exchange. That pauses reading when it is full."""
        self._runner_slow = True

    def on_runner_ready(self) -> None:
        self._runner_slow = False
        self.on_body()

    def on_response(self) -> None:
        upstream, exchange = self._upstream, self._exchange
        assert upstream is not None
        if not exchange.started:
            if upstream.switched:
                self._switch(upstream)
                return
            self._start(upstream)
        body = upstream.take_body()
        if not upstream.complete:
            # Servers often write head and body separately: a head with a length waits for the first part of the body.
            if body or not self._sized:
                exchange.send(body, end=False)
            return
        if self._paused:
            self.on_client_ready()
        self._upstream = None
        upstream.end_request(reusable=self._sent_end)
        exchange.driver = None
        if upstream.status in (502, 504) and self._outcome is Outcome.DONE:
            self._end_by_probe()
        else:
            self._end(self._outcome)
        exchange.send(body, end=True)

    def on_broken(self, detail: str) -> None:
        """Try once more if that is safe. Otherwise fail, so that the client does not see a complete response."""
        upstream = self._upstream
        assert upstream is not None
        if upstream.reused and not upstream.answered and self._sent and self._exchange.method in _IDEMPOTENT:
            # The runner closed an idle connection while the request was in transit.
            self._drop()
            self._task = self._context.spawn(self._connect())
        elif upstream.reused and not upstream.answered:
            # A server whose handler failed after the previous response does the same: that does not end the runner.
            self._fail_if_gone("runner_disconnected", detail)
        else:
            self._fail("runner_incomplete_response" if upstream.answered else "runner_disconnected", detail)

    def _start(self, upstream: Upstream) -> None:
        fields, length = self._fields(upstream)
        self._sized = length is not None
        if upstream.status == 503:
            self._outcome = Outcome.UNAVAILABLE
        self._exchange.start(upstream.status, fields, length, phrase=upstream.phrase)

    def _fields(self, upstream: Upstream) -> tuple[bytes, int | None]:
        """Return the response's header lines for the client, and its length."""
        fields: list[bytes] = []
        length: int | None = None
        hints: str | None = None
        health_check = False
        nominated: list[bytes] = []
        for name, value in upstream.headers:
            if name not in _NOT_PASSED:
                fields.append(self._kept(name, value) if name in _OF_ONE_APP else b"%b: %b\r\n" % (name, value))
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
        if upstream.status >= 400:
            named = next((value for name, value in upstream.headers if name == b"x-fal-error-type"), None)
            error_type = error_type_of(upstream.status) if named is None else named.decode("latin-1")
            self._exchange.error_type = error_type
            if named is None and upstream.status >= 500:
                fields.append(b"x-fal-error-type: %b\r\n" % error_type.encode())
        fields.append(b"x-fal-request-id: %b\r\n" % self._request_id.encode())
        self._context.dispatcher.answered(self._lease, hints, health_check=health_check)
        return b"".join(fields), length

    def _kept(self, name: bytes, value: bytes) -> bytes:
        """Return a field's line, restricted to the app's own paths, or nothing."""
        target = self._exchange.target
        path = (target if target.startswith(b"/") else origin_form(target)).partition(b"?")[0]
        kept = kept_in_app(name, value, b"/".join(path.split(b"/", 3)[:3]))
        return b"" if kept is None else b"%b: %b\r\n" % (name, kept)

    def _switch(self, upstream: Upstream) -> None:
        """Join the two connections. Client and app exchange WebSocket frames directly."""
        exchange = self._exchange
        if not exchange.upgrade:
            self._fail("runner_connection_error", "the runner answered 101 to a request without Upgrade")
            return
        self._context.deadlines.discard(self, self._seconds)
        fields, _ = self._fields(upstream)
        early = exchange.take_body()
        outer = Splice(exchange.connection.registry, self._end_switched, exchange.key_id)
        inner = Splice(None, lambda: self._end(self._outcome))
        self._upstream = upstream.listener = None
        upstream.transport.set_protocol(inner)
        inner.connection_made(upstream.transport)
        exchange.switch(fields + b"connection: upgrade\r\nupgrade: websocket\r\n", outer)
        if early:
            outer.data_received(early)
        if late := upstream.take_body():
            inner.data_received(late)
        outer.join(inner)

    # Ending.

    def _end_switched(self) -> None:
        """End a WebSocket."""
        self._end(self._outcome)
        self._exchange.end()

    def _record(self) -> None:
        """Record how the request ended. This is on the path of every call, so most of the work is deferred."""
        exchange, lease, ended = self._exchange, self._lease, self._context.ended
        assert ended is not None
        left = not exchange.finished and exchange.error_type is None
        ended.add(
            DirectRequest(
                self._app_id,
                self._request_id,
                lease.runner_id,
                lease.slot.revision_id,
                self._request.path,
                exchange.method,
                lease.caller,
                self._received,
                self._started,
                time.monotonic(),
                None if left else exchange.code,
                CALLER_LEFT if left else exchange.error_type,
                exchange.received,
                exchange.sent,
                lease.cold_start,
                self._request.trace,
            )
        )

    def time_out(self) -> None:
        """Fail a request that took too long. This ends the runner unless the caller caused the delay."""
        limit = f"within the app's request_timeout of {self._seconds:g} s"
        with_runner = self._upstream is None or self._runner_slow or self._sent_end or self._exchange.complete
        if self._paused or not with_runner:
            error = HttpError(408, "request_timeout", f"the request's body did not arrive whole {limit}")
            self._send_failure(Outcome.CLIENT_GONE, error)
        else:
            self._send_failure(Outcome.TIMED_OUT, HttpError(504, "request_timeout", f"there was no answer {limit}"))

    def waits_for_caller(self) -> bool | None:
        if self._over or self._sent_end or self._exchange.complete:
            return None
        return self._upstream is not None and not self._runner_slow and not self._exchange.started

    def body_too_slow(self, seconds: float) -> None:
        self._send_failure(Outcome.CLIENT_GONE, too_slow(seconds))

    def _count(self, body: bytes) -> None:
        if self._body_clock is not None:
            self._body_clock.received += len(body)

    def _stop_clocks(self) -> None:
        self._context.deadlines.discard(self, self._seconds)
        if self._body_clock is not None:
            self._body_clock.stop()

    def _fail(self, error_type: str, detail: str) -> None:
        """Fail because of the runner. The caller learns how it ended, which is only known a little later."""
        error = HttpError(503, error_type, detail)
        if self._exchange.undo_start():
            self._finish()
            failure = self._context.dispatcher.runner_failed(self._lease, error.detail)
            self._task = self._context.spawn(self._explain(error, failure))
        else:
            self._send_failure(Outcome.RUNNER_FAILED, error)

    def _fail_if_gone(self, error_type: str, detail: str) -> None:
        """Fail because of the connection. The runner ends only if it accepts no other."""
        error = HttpError(503, error_type, detail)
        self._exchange.undo_start()
        self._finish()
        self._task = self._context.spawn(self._explain_by_probe(error))

    async def _explain(self, error: HttpError, failure: asyncio.Task[RunnerFailure]) -> None:
        error.detail = (await asyncio.shield(failure)).detail
        self._answer_failure(error)

    async def _explain_by_probe(self, error: HttpError) -> None:
        dispatcher = self._context.dispatcher
        try:
            listens = await self._listens()
        except BaseException as failure:
            dispatcher.release(self._lease, Outcome.RUNNER_FAILED)
            if isinstance(failure, Exception):
                self._answer_failure(error)
            raise
        if listens:
            dispatcher.release(self._lease, Outcome.DONE)
            self._answer_failure(error)
        else:
            await self._explain(error, dispatcher.runner_failed(self._lease, error.detail))

    def _answer_failure(self, error: HttpError) -> None:
        self._task = None
        self._log_failure(error)
        self._exchange.driver = None
        send_error(self._exchange, self._request_id, error)

    def _log_failure(self, error: HttpError) -> None:
        _log.warning(
            "request %s to %s on runner %s: %s: %s",
            *(self._request_id, self._request.app, self._lease.runner_id, error.error_type, error.detail),
        )

    def _send_failure(self, outcome: Outcome, error: HttpError) -> None:
        exchange = self._exchange
        self._log_failure(error)
        exchange.driver = None
        self._end(outcome)
        if exchange.undo_start():
            send_error(exchange, self._request_id, error)
        else:
            exchange.code, exchange.error_type = error.status, error.error_type
            exchange.abort()

    def _end(self, outcome: Outcome) -> None:
        """Release the lease and the connection to the runner."""
        if self._over:
            return
        self._finish()
        self._context.dispatcher.release(self._lease, outcome)

    def _finish(self) -> None:
        """Release the connection to the runner, and the deadline."""
        self._over = True
        self._stop_clocks()
        self._drop()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _end_by_probe(self) -> None:
        """Release the connection, and the lease after a probe. The probe shows whether the runner still listens."""
        self._over = True
        self._stop_clocks()
        self._drop()
        self._context.spawn(self._probe())

    def _drop(self) -> None:
        """Break the connection to the runner unless the pool has it back."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.end_request(reusable=False)

    async def _probe(self) -> None:
        """Release the lease. This ends the runner if it no longer accepts connections."""
        outcome = Outcome.RUNNER_FAILED
        try:
            if await self._listens():
                outcome = Outcome.DONE
        finally:
            self._context.dispatcher.release(self._lease, outcome)

    async def _listens(self) -> bool:
        """Return whether the runner accepts connections, as far as can be determined."""
        try:
            upstream = await self._context.pool.connect(
                self._lease.runner_id, self._lease.address, seconds=self._context.connect_seconds
            )
        except NodeTrouble:
            return True  # this says nothing about the runner
        except OSError as error:
            _log.info("runner %s accepts no connections: %s", self._lease.runner_id, error)
            return False
        return await stays_open(upstream)
