"""Asks runners whether they are well: one request on a connection of its own."""

from __future__ import annotations

import asyncio

from fal_server.core.revisions import HealthCheck
from fal_server.http.gateway.upstream import Pool, Upstream


class HttpHealthProber:
    """The HealthProber port over HTTP/1.1."""

    def __init__(self) -> None:
        self._pool = Pool()

    async def probe(self, host: str, port: int, check: HealthCheck) -> str | None:
        """Ask once; None where it is well, else what is wrong, in words."""
        asked = f"{check.method.value} {check.path}"
        try:
            async with asyncio.timeout(check.timeout_seconds):
                upstream = await self._pool.connect("health", host, port)
                return await self._ask(upstream, check, asked)
        except TimeoutError:
            return f"{asked} was not answered within {check.timeout_seconds} s"
        except OSError as error:
            return f"{asked}: the runner cannot be reached ({error.strerror or error})"

    async def _ask(self, upstream: Upstream, check: HealthCheck, asked: str) -> str | None:
        answer = _Answer(upstream)
        upstream.ask(answer, bodyless=False)
        length = "content-length: 0\r\n" if check.method.value == "POST" else ""
        head = (
            f"{asked} HTTP/1.1\r\nhost: localhost\r\nuser-agent: fal-health-check\r\n{length}connection: close\r\n\r\n"
        )
        upstream.transport.write(head.encode())
        try:
            await answer.known.wait()
        finally:
            upstream.done(reusable=False)
        if answer.broken:
            return f"{asked}: {answer.broken}"
        return None if 200 <= upstream.status < 300 else f"{asked} answered {upstream.status}"


class _Answer:
    """Waits for the head of an answer; its body is not read."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.known = asyncio.Event()
        self.broken = ""

    def on_answer(self) -> None:
        """The head is here."""
        self._upstream.take()
        self.known.set()

    def on_broken(self, detail: str) -> None:
        """There will be none."""
        if not self.known.is_set():
            self.broken = detail
            self.known.set()

    def on_runner_slow(self) -> None:
        """The request is with the transport already."""

    def on_runner_ready(self) -> None:
        """It is on its way."""
