"""Generate HTTP/1.1 load in its own process. Print requests a second and the time of each.

`_http_load PORT CONNECTIONS SECONDS [GATE_KEY]`: the request comes on standard input. With the key of a runner's gate,
each connection opens the gate first.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import partial
from typing import cast

import httptools
import uvloop

from fal_server.http.gateway.upstream import knock_and_proof


class Client(asyncio.Protocol):
    """A connection that sends the next request after each answer."""

    def __init__(
        self, request: bytes, until: float, times: list[float], done: asyncio.Future[None], gate_key: str
    ) -> None:
        self.request = request
        self.until = until
        self.times = times
        self.done = done
        self.knock, self.proof = knock_and_proof(gate_key) if gate_key else (b"", b"")
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.knock:
            self.transport.write(self.knock)
        else:
            self.ask()

    def ask(self) -> None:
        self.started = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self.proof:
            if not self.proof.startswith(data):
                self.done.set_exception(RuntimeError(f"the gate answered {data!r}"))
                self.transport.abort()
            self.proof = self.proof[len(data) :]
            if not self.proof:
                self.ask()
            return
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self.parser.get_status_code() != 200:
            self.done.set_exception(RuntimeError(f"status {self.parser.get_status_code()}"))
            return
        self.times.append(now - self.started)
        if now < self.until:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


async def load(port: int, request: bytes, connections: int, seconds: float, gate_key: str) -> dict[str, float]:
    """Send requests on some connections for some seconds."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    started = time.perf_counter()
    waits: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    clients = [
        await loop.create_connection(
            partial(Client, request, started + seconds, times, wait, gate_key), "127.0.0.1", port
        )
        for wait in waits
    ]
    await asyncio.gather(*waits)
    took = time.perf_counter() - started
    for transport, _ in clients:
        transport.close()
    times.sort()
    return {
        "per_second": len(times) / took,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[int(len(times) * 0.99)] * 1000,
    }


if __name__ == "__main__":
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    gate_key = sys.argv[4] if len(sys.argv) > 4 else ""
    print(json.dumps(uvloop.run(load(port, sys.stdin.buffer.read(), connections, seconds, gate_key))))
