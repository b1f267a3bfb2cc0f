"""Serve requests through uvicorn's protocol without sockets. For each line of the input, write the CPU time of one.

`_app_server bare|logging|silent|runner async|sync FD`: the times go to the descriptor, as the output is the server's.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import uvicorn
import uvicorn.config
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel
from uvicorn.server import ServerState

import fal
from fal.app import server as runner_server
from fal.app.served import Served
from fal_runner.log.frames import new_mark
from fal_runner.worker.request_output import COUNT_BYTES, COUNT_NAME, RequestStreams

_CONNECTIONS = 32
_REQUESTS = 1_500
_BODY = b'{"name": "Ada"}'
_HEAD = (
    "POST /{} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\n{}\r\n"
)
_SENT_BY_GATEWAY = (
    "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-fal-endpoint: /{}\r\n"
    "x-fal-request-id: 2a2ff52e-9d05-4b75-8c2d-6c1f3f1b8a11\r\n"
)


class Input(BaseModel):
    name: str


class Output(BaseModel):
    message: str


class Bench(fal.App):
    @fal.endpoint("/sync")
    def sync(self, request: Input) -> Output:
        return Output(message="Hello, " + request.name)

    @fal.endpoint("/async")
    async def asynchronous(self, request: Input) -> Output:
        return Output(message="Hello, " + request.name)


class _Transport(asyncio.Transport):
    """Takes a response, and counts it once its last part has come."""

    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__()
        self._answered = answered

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as its parent
        return ("127.0.0.1", 40000) if name in {"peername", "sockname"} else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data[-1:]) == b"}":
            self._answered()

    def is_closing(self) -> bool:
        return False


def bare(*, logs: bool) -> uvicorn.Config:
    """Return the endpoint in FastAPI alone."""
    api = FastAPI()

    @api.post("/sync")
    def sync(request: Input) -> Output:
        return Output(message="Hello, " + request.name)

    @api.post("/async")
    async def asynchronous(request: Input) -> Output:
        return Output(message="Hello, " + request.name)

    return uvicorn.Config(api, access_log=logs, log_level="info", lifespan="off", ws="none")


async def of_runner(*, logs: bool) -> uvicorn.Config:
    """Return the endpoint in an app's server, wrapped as the worker does."""
    streams = RequestStreams()
    streams.install()
    streams.begin(new_mark(), lambda: None)
    shared = os.memfd_create(COUNT_NAME)
    os.ftruncate(shared, COUNT_BYTES)
    streams.count_in(shared)
    streams.tag(uvicorn.config)
    import fastapi.routing

    streams.beginnings.watch(fastapi.routing)
    taken: list[uvicorn.Config] = []
    started = asyncio.Event()

    async def serve(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        server.config.load()
        taken.append(server.config)
        started.set()

    setattr(uvicorn.Server, "serve", serve)  # noqa: B010 - it listens on nothing
    await runner_server.serve(cast("Served", Bench(_allow_init=True)), version="", port=1, metrics_port=None)
    await started.wait()
    taken[0].access_log = logs
    return taken[0]


async def main() -> None:
    """Serve, and print."""
    kind, endpoint, results = sys.argv[1:]
    own = kind in {"silent", "runner"}
    config = await of_runner(logs=kind == "runner") if own else bare(logs=kind == "logging")
    if not config.loaded:
        config.load()
    sent = _SENT_BY_GATEWAY.format(endpoint)
    request = _HEAD.format(endpoint, len(_BODY), sent).encode() + _BODY
    loop = asyncio.get_running_loop()
    state = ServerState()
    left, running, done = 0, 0, asyncio.Event()

    def answered(number: int) -> None:
        nonlocal left, running
        running -= 1
        if left:
            left -= 1
            running += 1
            loop.call_soon(connections[number].data_received, request)
        elif not running:
            done.set()

    connections = []
    for number in range(_CONNECTIONS):
        connection = cast("Any", config.http_protocol_class)(config=config, server_state=state, app_state={})
        connection.connection_made(_Transport(partial(answered, number)))
        if kind == "silent":
            connection.access_log = False
        connections.append(connection)

    async def serve(count: int) -> None:
        nonlocal left, running
        left, running = count - _CONNECTIONS, _CONNECTIONS
        done.clear()
        for connection in connections:
            loop.call_soon(connection.data_received, request)
        await done.wait()

    await serve(_REQUESTS // 2)
    while await loop.run_in_executor(None, sys.stdin.readline):
        before = time.process_time()
        await serve(_REQUESTS)
        taken = (time.process_time() - before) / _REQUESTS * 1e6
        os.write(int(results), json.dumps(taken).encode() + b"\n")


if __name__ == "__main__":
    uvloop.run(main())
