"""Reads the metrics pages of apps. Each takes one request on a separate connection."""

from __future__ import annotations

import asyncio

from fal_server.core.addresses import RunnerAddress
from fal_server.core.app_metrics import BadPage
from fal_server.core.faults import NodeTrouble
from fal_server.http.gateway.upstream import Pool, Upstream, Ways

_REQUEST = (
    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nuser-agent: fal-metrics\r\naccept: text/plain;version=0.0.4\r\n"
    b"connection: close\r\n\r\n"
)


class HttpMetricsReader:
    """Implements the port MetricsReader over HTTP/1.1. Redirects are not followed.

    Args:
        ways: see Pool.
    """

    def __init__(self, ways: Ways) -> None:
        self._pool = Pool(ways)

    async def read(self, address: RunnerAddress, *, most_bytes: int, seconds: float) -> bytes:
        until = asyncio.get_running_loop().time() + seconds
        try:
            upstream = await self._pool.connect("metrics", address, seconds=seconds)
            async with asyncio.timeout_at(until):
                return await _page(upstream, most_bytes)
        except TimeoutError:
            raise BadPage("timeout") from None
        except (OSError, NodeTrouble):
            raise BadPage("unreachable") from None


async def _page(upstream: Upstream, most_bytes: int) -> bytes:
    page = _Page(upstream, most_bytes)
    upstream.start_request(page, bodyless=False)
    try:
        if upstream.lost:
            raise BadPage("unreachable")
        upstream.transport.write(_REQUEST)
        await page.ended.wait()
    finally:
        upstream.end_request(reusable=False)
    if page.problem:
        raise BadPage(page.problem)
    return bytes(page.received)


class _Page:
    """Collects the response, up to a number of bytes."""

    def __init__(self, upstream: Upstream, most_bytes: int) -> None:
        self.ended = asyncio.Event()
        self.received = bytearray()
        self.problem = ""
        self._upstream = upstream
        self._most_bytes = most_bytes

    def on_response(self) -> None:
        self.received += self._upstream.take_body()
        if self._upstream.status != 200:
            self._end("not_200")
        elif len(self.received) > self._most_bytes:
            self._end("too_large")
        elif self._upstream.complete:
            self._end("")

    def on_broken(self, detail: str) -> None:
        self._end("broken" if self._upstream.answered else "unreachable")

    def on_runner_slow(self) -> None:
        """Do nothing, because the whole request is already written."""

    def on_runner_ready(self) -> None:
        """Do nothing, because the whole request is already written."""

    def _end(self, problem: str) -> None:
        if not self.ended.is_set():
            self.problem = problem
            self.ended.set()
