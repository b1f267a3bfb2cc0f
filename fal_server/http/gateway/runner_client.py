"""Sends queued requests to runners, each on a separate connection."""

from __future__ import annotations

import asyncio

from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import NodeTrouble
from fal_server.core.openapi import cancel_path
from fal_server.core.queue import Answer, Condition, Content, Failure, QueuedRequest
from fal_server.core.tracing import TRACEPARENT, TRACESTATE, traceparent_among, traceparent_for_app
from fal_server.http.gateway.app_request import LIFECYCLE
from fal_server.http.gateway.upstream import Pool, Upstream, Ways, stays_open
from fal_server.http.server.messages import HOP_BY_HOP, tokens
from fal_server.ports.queue import AnswerTooLarge

MOST_ANSWER_BYTES = 64 * 1024 * 1024
# How long an app may take to answer a cancellation.
_CANCEL_SECONDS = 30.0
# Tells the worker that this is a cancellation, not a request of its own.
_CANCELLATION = ("x-fal-cancellation", "1")
_NOT_KEPT = HOP_BY_HOP | {b"content-length", b"date", b"server", b"x-fal-request-id"}


class HttpRunnerClient:
    """Implements the port RunnerClient over HTTP/1.1.

    Args:
        ways: see Pool.
        connect_seconds: how long a runner may take to accept a connection.
        most_bytes: the largest body of a response.
        lifecycle: the default lifetime of files, as JSON, for apps whose caller requests none.
        exports_spans: whether our spans are the parents of the apps'.
    """

    def __init__(
        self,
        ways: Ways,
        *,
        connect_seconds: float = 5,
        most_bytes: int = MOST_ANSWER_BYTES,
        lifecycle: str = "",
        exports_spans: bool = False,
    ) -> None:
        self._lifecycle = lifecycle
        self._exports_spans = exports_spans
        self._pool = Pool(ways)
        self._connect_seconds = connect_seconds
        self._most_bytes = most_bytes

    async def send(
        self,
        address: RunnerAddress,
        request: QueuedRequest,
        content: Content,
        timeout_seconds: float,
        sent: asyncio.Event,
    ) -> Answer | Failure:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._send(address, request.method, request.path, request.request_id, content, sent)
        except TimeoutError:
            detail = f"the app did not answer within its request_timeout of {timeout_seconds:g} s"
            return Failure(condition=Condition.TIMEOUT, error_type="request_timeout", detail=detail)

    async def cancel(self, address: RunnerAddress, request_id: str, path: str) -> int | None:
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                # Servers refuse requests without a host (RFC 9112, 3.2).
                content = Content(headers=(("host", f"{address.host}:{address.port}"), _CANCELLATION))
                answer = await self._send(address, "POST", cancel_path(path), request_id, content)
        except TimeoutError:
            return None
        return answer.status if isinstance(answer, Answer) else None

    async def accepts(self, address: RunnerAddress) -> bool:
        try:
            upstream = await self._pool.connect("probe", address, seconds=self._connect_seconds)
        except NodeTrouble:
            return True  # this says nothing about the runner
        except OSError:
            return False
        return await stays_open(upstream)

    async def _send(
        self,
        address: RunnerAddress,
        method: str,
        path: str,
        request_id: str,
        content: Content,
        sent: asyncio.Event | None = None,
    ) -> Answer | Failure:
        try:
            upstream = await self._pool.connect(request_id, address, seconds=self._connect_seconds)
        except TimeoutError:
            return _failure("runner_connection_timeout", "the runner does not accept connections")
        except ConnectionRefusedError:
            return _failure("runner_connection_refused", "the runner refuses connections: its app stopped listening")
        except OSError as error:
            return _failure("runner_connection_error", f"the runner cannot be reached: {error}")
        answer = _WholeAnswer(upstream, self._most_bytes)
        try:
            upstream.start_request(answer, bodyless=method == "HEAD")
            if upstream.lost:
                return _failure("runner_disconnected", "the runner closed the connection at once")
            upstream.transport.write(
                _head(method, path, request_id, content, self._lifecycle, exports_spans=self._exports_spans)
            )
            upstream.transport.write(content.body)
            if sent is not None:
                sent.set()
            await answer.ended.wait()
        finally:
            upstream.end_request(reusable=False)
        return answer.result()


class _WholeAnswer:
    """Collects the response to one request."""

    def __init__(self, upstream: Upstream, most_bytes: int) -> None:
        self.ended = asyncio.Event()
        self._upstream = upstream
        self._most_bytes = most_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._broken: Failure | None = None

    def on_response(self) -> None:
        part = self._upstream.take_body()
        self._size += len(part)
        self._parts.append(part)
        if self._upstream.switched:
            self._broken = _failure("runner_connection_error", "the runner answered 101 to a request without Upgrade")
        if self._upstream.complete or self._broken or self._size > self._most_bytes:
            self.ended.set()

    def on_broken(self, detail: str) -> None:
        kind = "runner_incomplete_response" if self._upstream.answered else "runner_disconnected"
        self._broken = _failure(kind, detail)
        self.ended.set()

    def on_runner_slow(self) -> None:
        """Do nothing, because the whole request is already written."""

    def on_runner_ready(self) -> None:
        """Do nothing, because the whole request is already written."""

    def result(self) -> Answer | Failure:
        """Return the response, or why there is none.

        Raises:
            AnswerTooLarge: the response exceeds the size limit.
        """
        if self._broken is not None:
            return self._broken
        if self._size > self._most_bytes:
            raise AnswerTooLarge(
                f"the app's answer is larger than the {self._most_bytes} bytes that the queue keeps of one: "
                "have it answer with the address of a file"
            )
        return Answer(status=self._upstream.status, headers=_kept(self._upstream), body=b"".join(self._parts))


def _head(method: str, path: str, request_id: str, content: Content, lifecycle: str, *, exports_spans: bool) -> bytes:
    parent = traceparent_among(content.headers)
    dropped = (TRACEPARENT,) if parent else (TRACEPARENT, TRACESTATE)
    fields = "".join(f"{name}: {value}\r\n" for name, value in content.headers if name not in dropped)
    parent = traceparent_for_app(request_id, parent, exported=exports_spans)
    fields += f"{TRACEPARENT}: {parent}\r\n"
    if lifecycle and all(name != LIFECYCLE for name, _ in content.headers):
        fields += f"{LIFECYCLE}: {lifecycle}\r\n"
    framing = f"content-length: {len(content.body)}\r\n" if content.body or method != "GET" else ""
    return (
        f"{method} {path} HTTP/1.1\r\n{fields}{framing}"
        f"x-fal-endpoint: {path.partition('?')[0]}\r\n"
        f"x-fal-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    ).encode("latin-1")


def _kept(upstream: Upstream) -> tuple[tuple[str, str], ...]:
    """Return the response's header fields without those about the connection."""
    nominated = {token for name, value in upstream.headers if name == b"connection" for token in tokens(value)}
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in upstream.headers
        if name not in _NOT_KEPT and name not in nominated
    )


def _failure(error_type: str, detail: str) -> Failure:
    return Failure(condition=Condition.CONNECTION_ERROR, error_type=error_type, detail=detail)
