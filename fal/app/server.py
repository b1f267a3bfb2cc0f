"""Serves an app in a runner.

The order is the platform's contract: setup() ends before the port opens, so an open port means "ready"; SIGTERM calls
handle_exit() at once; open requests finish; then teardown() runs and the process ends.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from fal.app.context import CDN_TOKEN_KEY, CURRENT, ReceivedRequest
from fal.app.joined_head import JoinedHeadProtocol
from fal.app.metrics import Metrics, serve_metrics
from fal.app.served import Served, print_traceback
from fal.app.server_log import LOGGING, write_access_lines_directly

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Message, Receive, Scope, Send

    from fal.app.minimal import MinimalServer

    Api: TypeAlias = FastAPI | MinimalServer

HOST_VARIABLE = "FAL_RUNNER_HOST"
STATE_VARIABLE = "FAL_RUNNER_STATE"
_KEEP_ALIVE_SECONDS = 300
_IPV4 = re.compile(rb"[0-9.]{7,15}")


@runtime_checkable
class HasLifespan(Protocol):
    """An App. It sets up before its requests and tears down after them."""

    def lifespan(self, app: Api) -> AbstractAsyncContextManager[None]:
        """Set up, yield, tear down."""
        ...

    def handle_exit(self) -> object:
        """React to the runner's stop."""
        ...

    def provide_hints(self) -> list[str] | None:
        """Return names of the things that the runner has loaded. They serve to route requests to it."""
        ...


async def serve(
    served: Served,
    *,
    version: str,
    port: int,
    metrics_port: int | None,
    limit_max_requests: int | None = None,
    sock: socket.socket | None = None,
    on_start: Callable[[uvicorn.Server], object] = lambda _server: None,
) -> None:
    """Serve until SIGTERM or SIGINT. The interface is that of FAL_RUNNER_HOST (all, if it is not set).

    Args:
        served: an App or a served function.
        version: the app's version in /metrics.
        port: the port of the app.
        metrics_port: the port of /metrics; None serves none.
        limit_max_requests: end after this many requests.
        sock: listen on this socket instead.
        on_start: called before setup() with the server, whose `handle_exit` stops it.

    Raises:
        Exception: setup() or teardown() raised it.
        SystemExit: the port cannot be opened; uvicorn has logged why.
    """
    host = os.environ.get(HOST_VARIABLE) or "0.0.0.0"  # noqa: S104 - a runner is reached from outside
    api = _build_api(served)
    metrics = Metrics(version=version)
    has_sockets = any(route.is_websocket for route in served.collect_routes())
    config = uvicorn.Config(
        _RequestMiddleware(api, served if isinstance(served, HasLifespan) else None, metrics),
        host=host,
        port=port,
        http=JoinedHeadProtocol,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        ws="auto" if has_sockets else "none",  # a start must not wait for something the app does not use
        log_config=LOGGING,
        proxy_headers=False,  # see _RequestMiddleware
        lifespan="off",  # `serve` runs it: its exceptions must end the runner, and it must notice a stop during setup()
        limit_max_requests=limit_max_requests,
    )
    write_access_lines_directly()
    server = _Server(config, served.handle_exit if isinstance(served, HasLifespan) else None)
    on_start(server)
    with server.catching_signals():
        if not isinstance(served, HasLifespan):
            await _listen(server, metrics, host, metrics_port, sock)
        else:
            async with served.lifespan(api):
                await _listen(server, metrics, host, metrics_port, sock)
                await server.exit_handled()
    sys.stdout.flush()
    sys.stderr.flush()


def _build_api(served: Served) -> Api:
    """Return FastAPI's server of an app. It is the minimal one if FastAPI is missing or too old here."""
    try:
        from fal.app.api import build_api
    except Exception as error:  # noqa: BLE001 - with an old pydantic, the import of FastAPI raises anything
        from fal.app.minimal import MinimalServer

        print(  # noqa: T201
            f"FastAPI cannot be used here ({type(error).__name__}: {error}): the minimal server serves the app, "
            "without WebSockets, forms and /openapi.json",
            flush=True,
        )
        return MinimalServer(served)
    return build_api(served)


async def _listen(
    server: _Server, metrics: Metrics, host: str, metrics_port: int | None, sock: socket.socket | None
) -> None:
    if server.should_exit:  # a signal arrived during setup()
        return
    endpoint = None if metrics_port is None else await serve_metrics(metrics, host, metrics_port)
    try:
        await server.serve(sockets=None if sock is None else [sock])
    finally:
        if endpoint is not None:
            endpoint.close()


class _Server(uvicorn.Server):
    """A uvicorn server that calls the app's handle_exit immediately. It exits cleanly on signals."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], object] | None) -> None:
        super().__init__(config)
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._exiting: asyncio.Future[object] | None = None

    @contextmanager
    def catching_signals(self) -> Generator[None, None, None]:
        """Handle SIGTERM and SIGINT from before setup() until after teardown()."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in earlier.items():
                if signal.getsignal(number) == self.handle_exit:
                    signal.signal(number, handler)

        # A process forked by the app is not a server: SIGTERM must end it.
        os.register_at_fork(after_in_child=restore)
        try:
            yield
        finally:
            restore()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `catching_signals`: uvicorn's handlers would kill the process before teardown()."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Call the app's handler once, and stop accepting. A second Ctrl-C ends a running setup()."""
        first = not self.should_exit
        super().handle_exit(sig, frame)
        if not first and sig == signal.SIGINT and not self.started:
            raise KeyboardInterrupt
        if not first or self._on_exit is None:
            return
        try:
            result = self._on_exit()
        except Exception as error:  # noqa: BLE001 - an app's bug must not keep it from stopping
            print_traceback(error)
            return
        if inspect.iscoroutine(result):
            self._loop.call_soon_threadsafe(self._start, result)

    def _start(self, coroutine: object) -> None:
        assert inspect.iscoroutine(coroutine)
        self._exiting = self._loop.create_task(coroutine)

    async def exit_handled(self) -> None:
        """Wait for an `async def handle_exit`."""
        if self._exiting is None:
            return
        try:
            await self._exiting
        except Exception as error:  # noqa: BLE001 - teardown() must run all the same
            print_traceback(error)


class _RequestMiddleware:
    """Sets the caller's address and the context. Also adds hints, counts requests, and prints each traceback once."""

    def __init__(self, inner: Api, app: HasLifespan | None, metrics: Metrics) -> None:
        self._inner = inner
        self._app = app
        self._metrics = metrics
        # uvicorn's own middleware, for headers in another form than the controller's; it changes the scope and calls
        # nothing.
        trusted = os.environ.get("FORWARDED_ALLOW_IPS")
        self._takes_plainly = trusted is None
        self._proxied = ProxyHeadersMiddleware(_pass, trusted or "127.0.0.1")  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (self._takes_plainly and _take_forwarded(scope)):
            await self._proxied(scope, receive, send)  # type: ignore[arg-type]
        request = ReceivedRequest(scope["headers"])
        token = CURRENT.set(request)
        if scope["type"] != "http":
            try:
                await self._inner(scope, receive, send)
            finally:
                CURRENT.reset(token)
            return
        metrics = self._metrics
        answer = _Answer(self._app, request, send)
        started = time.perf_counter()
        metrics.in_progress += 1
        try:
            await self._inner(scope, receive, answer)
        except Exception:
            if not answer.finished:
                raise  # uvicorn then cuts the connection, which tells the caller that the stream broke
            # Otherwise the response was a 500 and the traceback is already printed; starlette raises again for the log.
        finally:
            CURRENT.reset(token)
            metrics.in_progress -= 1
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                metrics.count(scope["method"], route, answer.status, time.perf_counter() - started)


async def _pass(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


def _take_forwarded(scope: Scope) -> bool:
    """Set the caller's address and scheme from the controller's headers. Return False if they have another form."""
    client = scope.get("client")
    if client is None or client[0] != "127.0.0.1" or scope["type"] != "http":
        return False
    address = scheme = b""
    for name, value in scope["headers"]:
        if name == b"x-forwarded-for":
            if address or not _IPV4.fullmatch(value):
                return False
            address = value
        elif name == b"x-forwarded-proto":
            if scheme or value not in (b"http", b"https"):
                return False
            scheme = value
    if address:
        scope["client"] = (address.decode("ascii"), 0)
    if scheme:
        scope["scheme"] = scheme.decode("ascii")
    return True


class _Answer:
    """Sends the response with the app's hints, and records its status."""

    __slots__ = ("_app", "_request", "_send", "finished", "status")

    def __init__(self, app: HasLifespan | None, request: ReceivedRequest, send: Send) -> None:
        self._app = app
        self._request = request
        self._send = send
        self.status = 500
        self.finished = False

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message. This is no coroutine itself, which would cost more than the rest."""
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            extra = self._extra_headers()
            if extra:
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
        elif kind == "http.response.body" and not message.get("more_body", False):
            self.finished = True
        return self._send(message)

    def _extra_headers(self) -> list[tuple[bytes, bytes]]:
        extra: list[tuple[bytes, bytes]] = []
        hints = _hints(self._app)
        if hints is not None:
            extra.append((b"x-fal-runner-hints", hints))
        token = self._request.changed_token()
        if token:
            extra.append((CDN_TOKEN_KEY.encode(), token.encode("latin-1")))
        return extra


def _hints(app: HasLifespan | None) -> bytes | None:
    """Return an app's hints as a header. Report hints that no header can carry on stderr, and omit them."""
    if app is None:
        return None
    try:
        hints = app.provide_hints()
    except Exception as error:  # noqa: BLE001 - a bug in the hints must not fail the request
        print_traceback(error)
        return None
    if hints is None:
        return None
    sendable: list[bytes] = []
    for hint in hints:
        try:
            sendable.append(hint.encode("latin-1"))
        except UnicodeEncodeError:
            print(f"hint {hint!r} is left out: a header carries latin-1 only", file=sys.stderr)  # noqa: T201
    return b",".join(sendable)
