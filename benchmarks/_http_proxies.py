"""Run a bare reverse proxy before one port. It has one HTTP server and one client to apps.

It has no keys, routes or counts, so it shows the cost of server and client alone.
"""

# pyright: reportMissingImports=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator

import aiohttp  # in an environment of its own
import uvicorn
import uvloop
from aiohttp import web
from starlette.types import Receive, Scope, Send

from fal_server.core.addresses import RunnerAddress
from fal_server.http.gateway.upstream import Pool, Upstream, straight
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.http.server.listener import Listener

_HOST = "127.0.0.1"
_KEPT_SECONDS = 4
_CONNECT_SECONDS = 5.0
_OWN_LINES = (b"host", b"connection", b"keep-alive")


class ResponseWaiter:
    """A request on a connection of `upstream.Pool`."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.broken = ""

    def on_response(self) -> None:
        self.changed.set()

    def on_broken(self, detail: str) -> None:
        self.broken = detail
        self.changed.set()

    def on_runner_slow(self) -> None: ...

    def on_runner_ready(self) -> None: ...


class OwnClient:
    """An ASGI application that passes requests on with the gateway's own client."""

    def __init__(self, port: int) -> None:
        self.pool = Pool(straight)
        self.port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upstream: Upstream = self.pool.get("app") or await self.pool.connect(
            "app", RunnerAddress(_HOST, self.port), seconds=_CONNECT_SECONDS
        )
        waiter = ResponseWaiter()
        upstream.start_request(waiter, bodyless=False)
        lines = b"".join(b"%b: %b\r\n" % line for line in scope["headers"] if line[0] not in _OWN_LINES)
        head = b"%b %b HTTP/1.1\r\nhost: app\r\n%b\r\n" % (scope["method"].encode(), scope["raw_path"], lines)
        message = await receive()
        upstream.transport.write(head + message["body"])
        while message.get("more_body"):
            message = await receive()
            upstream.transport.write(message["body"])
        started = False
        while not (started and upstream.complete):
            await waiter.changed.wait()
            waiter.changed.clear()
            if waiter.broken:
                raise ConnectionError(waiter.broken)
            if not started:
                headers = [line for line in upstream.headers if line[0] not in _OWN_LINES]
                await send({"type": "http.response.start", "status": upstream.status, "headers": headers})
                started = True
            body, more = upstream.take_body(), not upstream.complete
            await send({"type": "http.response.body", "body": body, "more_body": more})
        upstream.end_request(reusable=True)

    async def close(self) -> None:
        self.pool.close()


def session() -> aiohttp.ClientSession:
    """Return aiohttp's client as a proxy uses it. It keeps connections and interprets nothing."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_SECONDS, use_dns_cache=True)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


class AiohttpClient:
    """An ASGI application that passes requests on with aiohttp's client."""

    def __init__(self, port: int) -> None:
        self.session = session()
        self.base = f"http://{_HOST}:{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()

        async def rest() -> AsyncIterator[bytes]:
            yield first["body"]
            message = first
            while message.get("more_body"):
                message = await receive()
                yield message["body"]

        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if name != b"host"
        ]
        data = rest() if first.get("more_body") else first["body"]
        url = self.base + scope["raw_path"].decode("latin-1")
        async with self.session.request(
            scope["method"], url, data=data, headers=headers, allow_redirects=False
        ) as answer:
            raw = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in _OWN_LINES]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def close(self) -> None:
        await self.session.close()


async def serve_own(app: OwnClient | AiohttpClient) -> None:
    """Serve with the controller's own server. An ASGI application takes the router's place."""
    adapter = AsgiAdapter(app)
    listener = Listener(adapter, f"{_HOST}:1")
    listening = socket.create_server((_HOST, 0), backlog=1024)
    await listener.start([listening])
    print(listening.getsockname()[1], flush=True)
    await end_of_input()
    await listener.close(1)
    await adapter.close()
    await app.close()


async def serve_uvicorn(app: OwnClient | AiohttpClient) -> None:
    """Serve with uvicorn on httptools, as for apps."""
    config = uvicorn.Config(app, host=_HOST, port=0, access_log=False, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await end_of_input()
    server.should_exit = True
    await serving
    await app.close()


async def serve_aiohttp(port: int) -> None:
    """Serve with aiohttp's low-level server and its client."""
    client = session()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        url = f"http://{_HOST}:{port}{request.raw_path}"
        headers = [(name, value) for name, value in request.headers.items() if name.lower() != "host"]
        data = request.content if request.body_exists else None
        async with client.request(request.method, url, data=data, headers=headers, allow_redirects=False) as answer:
            response = web.StreamResponse(status=answer.status, headers=answer.headers)
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response

    server = web.Server(handle, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, _HOST, 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await end_of_input()
    listening.close()
    await server.shutdown(1)
    await client.close()


async def end_of_input() -> None:
    """Wait until the parent closes this process's input."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def read() -> None:
        if not os.read(0, 64) and not ended.done():
            ended.set_result(None)

    loop.add_reader(0, read)
    await ended
    loop.remove_reader(0)


async def serve(server: str, client: str, port: int) -> None:
    """Print the port, then serve until the input ends."""
    if server == "aiohttp":
        await serve_aiohttp(port)
        return
    app = OwnClient(port) if client == "own" else AiohttpClient(port)
    await (serve_own(app) if server == "own" else serve_uvicorn(app))


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
