"""Calls an app's HTTP endpoint over a WebSocket. Each message is the body of a request.

The response to a request is a `start` message with its id, the status and the header fields, then the parts of the body
as they arrive, then an `end` message. Requests of one connection are answered in order.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol

from websockets.frames import CloseCode

from fal_server.core.faults import DeadlineExceeded, Fault, NodeTrouble
from fal_server.core.requests import CALLER_LEFT, DirectRequest
from fal_server.core.routing import Outcome, error_type_of
from fal_server.core.tracing import traceparent_for_app
from fal_server.http.gateway.app_request import AppRequest
from fal_server.http.gateway.upstream import Pool, Upstream
from fal_server.http.server.errors import HttpError
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import HOP_BY_HOP
from fal_server.http.server.request_ids import RequestIds
from fal_server.http.server.websocket import WebSocketProtocol
from fal_server.live.dispatch import Dispatcher, Lease, RoutedApp
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.rates import Rates

_log = logging.getLogger(__name__)
MOST_MESSAGE_BYTES = 64 * 1024 * 1024
# A caller may send further messages while one is processed; more than this wait in its own socket.
_MOST_WAITING = 16
_NOT_PASSED = HOP_BY_HOP | {b"content-length", b"x-fal-stop-runner", b"x-fal-runner-health-check"}


def is_socket_host(host: str) -> bool:
    """Return whether a host is for WebSockets to HTTP endpoints. It may have its port."""
    return host[:3].lower() == "ws."


class SocketContext(Protocol):
    """The state that the sockets share: the gateway."""

    dispatcher: Dispatcher
    pool: Pool
    rates: Rates
    connect_seconds: float
    ended: EndedRequests | None

    def caller_left(self, lease: Lease, request_id: str, path: bytes) -> None:
        """Handle a caller's disconnect while its complete request is on a runner."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run in the background; the gateway keeps the task until it ends."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class _Message:
    """A message in progress, and its outcome.

    Attributes:
        received: when it arrived, by `time.monotonic`.
        lease: its slot on a runner, held since `started`; None before.
        code: of the response; None while there is none, and if the caller left before it was complete.
    """

    request_id: str
    body: bytes = field(repr=False)
    received: float
    lease: Lease | None = None
    started: float | None = None
    code: int | None = None
    error_type: str | None = None
    sent: int = 0


class MessageSocket(WebSocketProtocol):
    """Answers the messages of one connection.

    Args:
        http_error: turns a fault into the error for a plain request.
        ids: generates the requests' ids.
    """

    def __init__(
        self,
        context: SocketContext,
        exchange: Exchange,
        request: AppRequest,
        app: RoutedApp,
        *,
        caller: str | None,
        ids: RequestIds,
        http_error: Callable[[Fault | HttpError], HttpError],
    ) -> None:
        super().__init__(exchange, most_bytes=MOST_MESSAGE_BYTES, admitted_by=(caller,))
        self._context = context
        self._request = request
        self._app = app
        self._caller = caller
        self._ids = ids
        self._http_error = http_error
        self._address = exchange.address()
        self._waiting: deque[bytes] = deque()
        self._work: asyncio.Task[None] | None = None
        self._draining = False
        # Headers about the connection and its key do not belong in a request; each message has a trace of its own.
        fields = b"".join(
            line + b"\r\n"
            for line in request.fields.split(b"\r\n")
            if line and not line.startswith((b"sec-websocket-", b"content-type:", b"accept-encoding:", b"traceparent:"))
        )
        self._fields = fields + b"content-type: application/json\r\n"

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._waiting.clear()
        if self._work is not None:
            self._work.cancel()

    def drain(self) -> None:
        """Finish the received requests, then close."""
        self._draining = True
        if self._work is None:
            self._close()

    # Messages.

    def take(self, data: bytes, *, text: bool) -> None:
        if not self._draining:  # else the caller sends it again elsewhere: nothing of it was done
            self._waiting.append(data)

    def read_on(self) -> None:
        """Process the next message, and keep reading while few wait."""
        if self._work is None and self._waiting and not self.transport.is_closing():
            self._work = self._context.spawn(self._answer(self._waiting.popleft()))
        if len(self._waiting) >= _MOST_WAITING or sum(map(len, self._waiting)) >= MOST_MESSAGE_BYTES:
            self.transport.pause_reading()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    async def _answer(self, body: bytes) -> None:
        message = _Message(request_id=self._ids.next(), body=body, received=time.monotonic())
        try:
            await self._call(message)
        except (Fault, HttpError) as error:
            self._refuse(message, self._http_error(error))
        except ConnectionError:
            message.code, message.error_type = 503, "runner_incomplete_response"
            self.transport.abort()
        except Exception:  # noqa: BLE001 - whatever a service raises, the caller learns that there is no answer
            message.code, message.error_type = 500, "internal_error"
            _log.exception("a message to %s could not be answered", self._app.app_id)
            self.transport.abort()
        finally:
            self._record(message)
            self._work = None
            if self._draining and not self._waiting:
                self._close()
            self.read_on()

    def _record(self, message: _Message) -> None:
        """Record how a message ended."""
        if self._context.ended is None:
            return
        lease = message.lease
        error_type = message.error_type
        if message.code is None:
            error_type = CALLER_LEFT
        elif message.code >= 400 and error_type is None:
            error_type = error_type_of(message.code)
        self._context.ended.add(
            DirectRequest(
                app_id=self._app.app_id,
                request_id=message.request_id,
                runner_id=None if lease is None else lease.runner_id,
                revision_id=None if lease is None else lease.slot.revision_id,
                path=self._request.path,
                method=b"POST",
                key_id=self._caller,
                received=message.received,
                started=message.started,
                ended=time.monotonic(),
                code=message.code,
                error_type=error_type,
                bytes_in=len(message.body),
                bytes_out=message.sent,
                cold_start=lease is not None and lease.cold_start,
                trace=self._request.trace,
            )
        )

    async def _call(self, message: _Message) -> None:
        app, request = self._app, self._request
        self._context.rates.count(app, self._caller, lambda: self._address)
        timeout = app.request_start_timeout if request.start_timeout is None else request.start_timeout
        lease = await self._context.dispatcher.acquire(
            app.app_id, request_id=message.request_id, caller=self._caller, hint=request.hint, start_timeout=timeout
        )
        message.lease, message.started = lease, time.monotonic()
        outcome: Outcome | None = Outcome.CLIENT_GONE
        try:
            async with asyncio.timeout(app.request_timeout):
                outcome = await self._send(message, lease)
        except TimeoutError:
            outcome = Outcome.TIMED_OUT
            detail = f"there was no answer within the app's request_timeout of {app.request_timeout:g} s"
            raise HttpError(504, "request_timeout", detail) from None
        except HttpError as error:
            outcome = None  # this releases the slot
            error.detail = (await self._context.dispatcher.runner_failed(lease, error.detail)).detail
            raise
        except ConnectionError:
            outcome = Outcome.RUNNER_FAILED
            raise
        except NodeTrouble:
            outcome = Outcome.UNUSED  # nothing was sent
            raise
        finally:
            if outcome is not None:
                self._context.dispatcher.release(lease, outcome)

    async def _send(self, message: _Message, lease: Lease) -> Outcome:
        try:
            upstream = await self._context.pool.connect(
                lease.runner_id, lease.address, seconds=self._context.connect_seconds
            )
        except OSError as error:
            raise HttpError(503, "runner_connection_error", f"the runner cannot be reached: {error}") from error
        answer = _AnswerParts(upstream)
        try:
            upstream.start_request(answer, bodyless=False)
            if upstream.lost:
                raise HttpError(503, "runner_disconnected", "the runner closed the connection at once")
            path = self._request.path
            upstream.transport.write(
                b"POST %b HTTP/1.1\r\n%btraceparent: %b\r\n%bcontent-length: %d\r\nx-fal-endpoint: %b\r\n"
                b"x-fal-request-id: %b\r\n\r\n"
                % (
                    path,
                    self._fields,
                    self._traceparent(message.request_id).encode(),
                    self._exchange.connection.forwarded,
                    len(message.body),
                    path.partition(b"?")[0],
                    message.request_id.encode(),
                )
            )
            upstream.transport.write(message.body)
            try:
                await self._pass_on(answer, upstream, message, lease)
            except asyncio.CancelledError:
                if self.gone.is_set():
                    self._context.caller_left(lease, message.request_id, path)
                raise
        finally:
            upstream.end_request(reusable=False)
        return _outcome_of(upstream)

    def _traceparent(self, request_id: str) -> str:
        """Return the trace context for the app. The caller's, of the connection, is the parent of each message."""
        request = self._request
        return traceparent_for_app(
            request_id, request.traceparent.decode("latin-1"), exported=request.trace is not None
        )

    async def _pass_on(self, answer: _AnswerParts, upstream: Upstream, message: _Message, lease: Lease) -> None:
        started = False
        while True:
            part, complete = await answer.next()
            if not started:
                started = True
                fields = _fields(upstream)
                hints = fields.get("x-fal-runner-hints")
                asked = _value(upstream, b"x-fal-runner-health-check") not in (None, "0")
                self._context.dispatcher.answered(lease, hints, health_check=asked)
                message.error_type = fields.get("x-fal-error-type") if upstream.status >= 400 else None
                self._meta("start", message.request_id, upstream.status, fields)
            if part:
                message.sent += len(part)
                self.socket.send_binary(part)
                self.flush()
            if complete:
                message.code = upstream.status
                self._meta("end", message.request_id, upstream.status)
                return
            if not self.writable.is_set():
                upstream.transport.pause_reading()
                await self.writable.wait()
                upstream.transport.resume_reading()

    def _refuse(self, message: _Message, error: HttpError) -> None:
        """Answer a message that no runner answered."""
        message.code, message.error_type = error.status, error.error_type
        if self.transport.is_closing():
            return
        fields = {"content-type": "application/json", "x-fal-error-type": error.error_type}
        if isinstance(error.__cause__, DeadlineExceeded) or error.status == 504:
            fields["x-fal-request-timeout-type"] = "user"
        self._meta("start", message.request_id, error.status, fields)
        self.socket.send_binary(json.dumps({"detail": error.detail}).encode())
        self._meta("end", message.request_id, error.status)

    def _meta(self, kind: str, request_id: str, status: int, fields: dict[str, str] | None = None) -> None:
        message: dict[str, object] = {"type": kind, "request_id": request_id, "status": status}
        if fields is not None:
            message["headers"] = fields
        self.socket.send_text(json.dumps(message).encode())
        self.flush()

    def _close(self) -> None:
        self.close(CloseCode.GOING_AWAY, "the controller is stopping")


class _AnswerParts:
    """Collects the parts of one response until they are taken."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._changed = asyncio.Event()
        self._broken: HttpError | None = None

    async def next(self) -> tuple[bytes, bool]:
        """Return the next part once it arrives. Also return whether it is the last.

        Raises:
            HttpError: the connection broke before the response started.
            ConnectionError: it broke later.
        """
        await self._changed.wait()
        self._changed.clear()
        if self._broken is not None:
            raise self._broken if not self._upstream.answered else ConnectionError(self._broken.detail)
        return self._upstream.take_body(), self._upstream.complete

    def on_response(self) -> None:
        if self._upstream.switched:
            self.on_broken("the runner answered 101 to a request without Upgrade")
        self._changed.set()

    def on_broken(self, detail: str) -> None:
        self._broken = HttpError(503, "runner_disconnected", detail)
        self._changed.set()

    def on_runner_slow(self) -> None:
        """Do nothing, because the whole request is already written."""

    def on_runner_ready(self) -> None:
        """Do nothing, because the whole request is already written."""


def _value(upstream: Upstream, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in upstream.headers if key == name), None)


def _fields(upstream: Upstream) -> dict[str, str]:
    """Return the response's header fields for the caller."""
    return {
        name.decode("latin-1"): value.decode("latin-1") for name, value in upstream.headers if name not in _NOT_PASSED
    }


def _outcome_of(upstream: Upstream) -> Outcome:
    if _value(upstream, b"x-fal-stop-runner") == "1":
        return Outcome.STOP_RUNNER
    return Outcome.UNAVAILABLE if upstream.status == 503 else Outcome.DONE
