"""Checks the health of runners with one request on a separate connection."""

from __future__ import annotations

import asyncio

from fal_server.core.addresses import RunnerAddress
from fal_server.core.revisions import HealthCheck
from fal_server.http.gateway.upstream import Pool, Upstream, Ways


class HttpHealthProber:
    """Implements the port HealthProber over HTTP/1.1.

    Args:
        ways: see Pool.
    """

    def __init__(self, ways: Ways) -> None:
        self._pool = Pool(ways)

    async def probe(self, address: RunnerAddress, check: HealthCheck) -> str | None:
        endpoint = f"{check.method.value} {check.path}"
        until = asyncio.get_running_loop().time() + check.timeout_seconds
        try:
            upstream = await self._pool.connect("health", address, seconds=check.timeout_seconds)
            async with asyncio.timeout_at(until):
                return await self._ask(upstream, check, endpoint)
        except TimeoutError:
            return f"{endpoint} was not answered within {check.timeout_seconds} s"
        except OSError as error:
            return f"{endpoint}: the runner cannot be reached ({error.strerror or error})"

    async def _ask(self, upstream: Upstream, check: HealthCheck, endpoint: str) -> str | None:
        response = _ResponseHead(upstream)
        upstream.start_request(response, bodyless=False)
        length = "content-length: 0\r\n" if check.method.value == "POST" else ""
        fields = f"host: localhost\r\nuser-agent: fal-health-check\r\n{length}connection: close\r\n"
        upstream.transport.write(f"{endpoint} HTTP/1.1\r\n{fields}\r\n".encode())
        try:
            await response.known.wait()
        finally:
            upstream.end_request(reusable=False)
        if response.broken:
            return f"{endpoint}: {response.broken}"
        return None if 200 <= upstream.status < 300 else f"{endpoint} answered {upstream.status}"


class _ResponseHead:
    """Waits for the head of a response, and drops the body."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.known = asyncio.Event()
        self.broken = ""

    def on_response(self) -> None:
        self._upstream.take_body()
        self.known.set()

    def on_broken(self, detail: str) -> None:
        if not self.known.is_set():
            self.broken = detail
            self.known.set()

    def on_runner_slow(self) -> None:
        """Do nothing, because the whole request is already written."""

    def on_runner_ready(self) -> None:
        """Do nothing, because the whole request is already written."""
