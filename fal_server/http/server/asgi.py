"""Runs an ASGI application on exchanges. It is for routes that need no special speed."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import CONTROLLER_FAILED
from fal_server.http.server.errors import HttpError, send_error
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import HOP_BY_HOP, origin_form
from fal_server.http.server.request_ids import RequestIds
from fal_server.http.server.rules import Limits

_log = logging.getLogger(__name__)
EXCHANGE = "exchange"
"""The key of the exchange in a request's state."""
REQUEST_ID = "request_id"
"""The key of the request's id, used in the controller's log and in the response, in the same state."""
# A page of another origin may read what its key permits: no response depends on credentials that a browser adds.
_FOR_PAGES = b"access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n"
# These fields of a stored response come from the app, for the page that queued the request; a browser refuses
# duplicates.
_OF_PAGES = b"access-control-"


class AsgiAdapter:
    """Answers each exchange with an ASGI application, in a separate task.

    The application finds an event in `scope["state"]["draining"]`: once it is set, endless responses must end.

    Args:
        body_seconds: how long to wait for more of a request's body before it fails with 408.
        for_pages: whether pages of other origins may read the responses.
    """

    def __init__(self, app: ASGIApp, *, body_seconds: float = Limits().body_seconds, for_pages: bool = True) -> None:
        self._app = app
        self._for_pages = _FOR_PAGES if for_pages else b""
        self._body_seconds = body_seconds
        self._ids = RequestIds()
        self._draining = asyncio.Event()
        self._tasks = TaskSet(_log)

    def handle(self, exchange: Exchange) -> None:
        """Start the application for an exchange."""
        run = _AsgiRun(exchange, self._ids.next(), self._draining, self._body_seconds, self._for_pages)
        exchange.driver = run
        self._tasks.spawn(run.run(self._app))

    def drain(self) -> None:
        """Tell endless responses to end, because the listener is closing."""
        self._draining.set()

    async def close(self) -> None:
        """Cancel running tasks; close the listener first."""
        await self._tasks.close()


class _AsgiRun:
    """Drives one response with the application."""

    def __init__(
        self, exchange: Exchange, request_id: str, draining: asyncio.Event, body_seconds: float, for_pages: bytes
    ) -> None:
        self._exchange = exchange
        self._for_pages = for_pages
        self._body_seconds = body_seconds
        self._draining = draining
        self._request_id = request_id
        self._wake = asyncio.Event()
        self._body_given = self._given_up = False
        self._may_write = asyncio.Event()
        self._may_write.set()

    # Called by the connection.

    def on_body(self) -> None:
        self._wake.set()

    def on_client_gone(self) -> None:
        self._wake.set()
        self._may_write.set()

    def on_client_slow(self) -> None:
        self._may_write.clear()

    def on_client_ready(self) -> None:
        self._may_write.set()

    async def run(self, app: ASGIApp) -> None:
        """Call the application. The client gets a complete response or a broken connection."""
        exchange = self._exchange
        try:
            await app(self._scope(), self._receive, self._send)
        except Exception:  # noqa: BLE001 - whatever the application raises, the client gets a response
            if exchange.gone or self._given_up:
                return
            _log.exception("%s %s failed", exchange.method.decode("latin-1"), exchange.target.decode("latin-1"))
        if exchange.finished or exchange.gone:
            return
        exchange.driver = None
        if exchange.started:
            exchange.abort()
        else:
            send_error(exchange, self._request_id, HttpError(500, "internal_error", CONTROLLER_FAILED))

    def _scope(self) -> Scope:
        exchange = self._exchange
        target = exchange.target if exchange.target.startswith(b"/") else origin_form(exchange.target)
        path, _, query = target.partition(b"?")
        transport = exchange.connection.transport
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1" if exchange.http11 else "1.0",
            "method": exchange.method.decode("latin-1"),
            "scheme": "http" if transport.get_extra_info("ssl_object") is None else "https",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "state": {"draining": self._draining, EXCHANGE: exchange, REQUEST_ID: self._request_id},
            "headers": exchange.headers,
            "client": _host_and_port(transport.get_extra_info("peername")),
            "server": _host_and_port(transport.get_extra_info("sockname")),
        }

    async def _receive(self) -> Message:
        exchange = self._exchange
        exchange.accept_body()
        while True:
            self._wake.clear()
            if exchange.gone or exchange.finished:
                return {"type": "http.disconnect"}
            if not self._body_given:
                body = exchange.take_body()
                if body or exchange.complete:
                    self._body_given = exchange.complete
                    return {"type": "http.request", "body": body, "more_body": not exchange.complete}
            try:
                async with asyncio.timeout(None if self._body_given else self._body_seconds):
                    await self._wake.wait()
            except TimeoutError:
                self._give_up()

    def _give_up(self) -> None:
        """Answer a client that stopped sending its body. To the application it has left."""
        exchange = self._exchange
        self._given_up = True
        if exchange.started:
            exchange.abort()
        else:
            detail = f"nothing more of the request's body came within {self._body_seconds:g} seconds"
            send_error(exchange, self._request_id, HttpError(408, "bad_request", detail))

    async def _send(self, message: Message) -> None:
        exchange = self._exchange
        if exchange.gone or self._given_up:
            raise OSError("the client has gone")
        if message["type"] == "http.response.start":
            self._start(message)
            return
        exchange.send(message.get("body", b""), end=not message.get("more_body", False))
        if exchange.finished:
            self._wake.set()
        await self._may_write.wait()

    def _start(self, message: Message) -> None:
        fields: list[bytes] = []
        length: int | None = None
        request_id = self._request_id.encode()
        for name, value in message.get("headers", ()):
            lower = name.lower()
            if lower == b"content-length":
                length = int(value)
            elif lower == b"x-fal-request-id":
                request_id = value  # the response is about another request, which was queued
            elif lower not in HOP_BY_HOP and not lower.startswith(_OF_PAGES):
                fields.append(b"%b: %b\r\n" % (name, value))
        fields.append(b"%bx-fal-request-id: %b\r\n" % (self._for_pages, request_id))
        self._exchange.start(message["status"], b"".join(fields), length)
        if length is None:
            self._exchange.send(b"", end=False)  # a stream may be silent for long before its first part


def _host_and_port(address: object) -> tuple[str, int] | None:
    """Return an address in ASGI's form. That of a unix socket has neither host nor port."""
    match address:
        case (str(host), int(port), *_):
            return host, port
        case _:
            return None
