"""Runs an ASGI application on exchanges, for what is not worth a protocol of its own."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from fal_server.http.server.errors import FAILED, HttpError, refuse
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import HOP_BY_HOP, RequestIds, origin_form
from fal_server.http.server.rules import Limits

_log = logging.getLogger(__name__)

_NOT_PASSED = HOP_BY_HOP


class AsgiAdapter:
    """Answers exchanges with an ASGI application, each in a task of its own.

    Args:
        body_seconds: how long more of a request's body may be waited for; then the request is given up with 408.

    The application finds an event in `scope["state"]["draining"]`: once it is set, an answer without an end is to end.
    """

    def __init__(self, app: ASGIApp, *, body_seconds: float = Limits().body_seconds) -> None:
        self._app = app
        self._body_seconds = body_seconds
        self._ids = RequestIds()
        self._draining = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Start answering."""
        conversation = _Conversation(exchange, self._ids.next(), self._draining, self._body_seconds)
        exchange.sink = conversation
        task = asyncio.get_running_loop().create_task(conversation.run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drain(self) -> None:
        """The front door is closing."""
        self._draining.set()

    async def close(self) -> None:
        """Cancel what still runs; the front door is closed before."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Conversation:
    """One call of the application."""

    def __init__(self, exchange: Exchange, request_id: str, draining: asyncio.Event, body_seconds: float) -> None:
        self._exchange = exchange
        self._body_seconds = body_seconds
        self._draining = draining
        self._request_id = request_id
        self._news = asyncio.Event()
        self._body_given = self._given_up = False
        self._may_write = asyncio.Event()
        self._may_write.set()

    # What the connection tells.

    def on_body(self) -> None:
        """There is something to receive."""
        self._news.set()

    def on_client_gone(self) -> None:
        """The application learns it from `receive`, or when it sends."""
        self._news.set()
        self._may_write.set()

    def on_client_slow(self) -> None:
        """Let the application wait."""
        self._may_write.clear()

    def on_client_ready(self) -> None:
        """Go on."""
        self._may_write.set()

    async def run(self, app: ASGIApp) -> None:
        """Call the application, and see that the client gets a whole answer or a broken connection."""
        exchange = self._exchange
        try:
            await app(self._scope(), self._receive, self._send)
        except Exception:  # noqa: BLE001 - whatever the application raises, the client gets an answer
            if exchange.gone or self._given_up:
                return
            _log.exception("%s %s failed", exchange.method.decode("latin-1"), exchange.target.decode("latin-1"))
        if exchange.finished or exchange.gone:
            return
        exchange.sink = None
        if exchange.started:
            exchange.abort()
        else:
            refusal = HttpError(500, "internal_error", FAILED)
            refuse(exchange, self._request_id, refusal)

    def _scope(self) -> Scope:
        exchange = self._exchange
        target = exchange.target if exchange.target.startswith(b"/") else origin_form(exchange.target)
        path, _, query = target.partition(b"?")
        transport = exchange.carrier.transport
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
            "state": {"draining": self._draining},
            "headers": exchange.headers,
            "client": _host_and_port(transport.get_extra_info("peername")),
            "server": _host_and_port(transport.get_extra_info("sockname")),
        }

    async def _receive(self) -> Message:
        exchange = self._exchange
        exchange.accept_body()
        while True:
            self._news.clear()
            if exchange.gone or exchange.finished:
                return {"type": "http.disconnect"}
            if not self._body_given:
                body = exchange.take()
                if body or exchange.complete:
                    self._body_given = exchange.complete
                    return {"type": "http.request", "body": body, "more_body": not exchange.complete}
            try:
                async with asyncio.timeout(None if self._body_given else self._body_seconds):
                    await self._news.wait()
            except TimeoutError:
                self._give_up()

    def _give_up(self) -> None:
        """The client sends no more of what it said it would send; to the application it has left."""
        exchange = self._exchange
        self._given_up = True
        if exchange.started:
            exchange.abort()
        else:
            detail = f"nothing more of the request's body came within {self._body_seconds:g} seconds"
            refuse(exchange, self._request_id, HttpError(408, "bad_request", detail))

    async def _send(self, message: Message) -> None:
        exchange = self._exchange
        if exchange.gone or self._given_up:
            raise OSError("the client has gone")
        if message["type"] == "http.response.start":
            self._start(message)
            return
        exchange.send(message.get("body", b""), end=not message.get("more_body", False))
        if exchange.finished:
            self._news.set()
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
                request_id = value  # the answer is about another request, one that was queued
            elif lower not in _NOT_PASSED:
                fields.append(b"%b: %b\r\n" % (name, value))
        fields.append(b"x-fal-request-id: %b\r\n" % request_id)
        self._exchange.start(message["status"], b"".join(fields), length)
        if length is None:
            self._exchange.send(b"", end=False)  # a stream may be long silent before its first part


def _host_and_port(address: object) -> tuple[str, int] | None:
    """An address as ASGI wants it: an IPv6 one has two parts more, that of a unix socket none of these."""
    match address:
        case (str(host), int(port), *_):
            return host, port
        case _:
            return None
