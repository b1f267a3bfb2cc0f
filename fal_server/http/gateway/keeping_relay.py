"""Relays a request like any other. It keeps what it sent and got, for controllers that were asked to."""

from __future__ import annotations

import time

from fal_server.core.payloads import MOST_BYTES, EndedPayload
from fal_server.http.gateway.app_request import AppRequest
from fal_server.http.gateway.relay import Relay, RelayContext
from fal_server.http.server.exchange import Exchange
from fal_server.live.dispatch import Lease, RoutedApp
from fal_server.live.ended_payloads import EndedPayloads


class KeepingRelay(Relay):
    """Keeps both bodies up to a size. It is a class of its own, so that other controllers do not pay for it.

    Args:
        kept: receives the bodies at the end.
    """

    __slots__ = ("_account", "_input", "_output", "_payloads")

    def __init__(
        self,
        kept: EndedPayloads,
        context: RelayContext,
        exchange: Exchange,
        request: AppRequest,
        lease: Lease,
        request_id: str,
        app: RoutedApp,
        received: float | None,
    ) -> None:
        super().__init__(context, exchange, request, lease, request_id, app, received)
        self._payloads = kept
        self._account = app.app_id.account
        self._input = _Body()
        self._output = _Body()

    def _count(self, body: bytes) -> None:
        self._input.add(body)
        super()._count(body)

    def on_response(self) -> None:
        """Keep the parts of the body that this call passes on."""
        upstream = self._upstream
        if upstream is not None and not upstream.switched:
            for part in upstream.waiting_body:
                self._output.add(part)
        super().on_response()

    def _record(self) -> None:
        super()._record()
        code = self._exchange.code
        if code == 101:
            return  # a WebSocket has messages, not bodies
        succeeded = self._exchange.finished and code < 400
        bodies = self._input.content(), self._output.content()
        self._payloads.add(EndedPayload(self._account, self._request_id, time.monotonic(), succeeded, *bodies))


class _Body:
    """The parts of a body, until they are too large."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MOST_BYTES:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def content(self) -> bytes | None:
        return None if self._size > MOST_BYTES else b"".join(self._parts)
