"""A shortage of this machine is not a runner's fault. No runner is ended, and the caller waits or gets 503."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import NodeTrouble
from fal_server.core.queue import Content
from fal_server.core.routing import Outcome
from fal_server.http.gateway.runner_client import HttpRunnerClient
from fal_server.http.gateway.upstream import Pool, straight
from tests.core.test_queue import request
from tests.http.support import App, read_message, runner, running_server


@contextmanager
def no_descriptors() -> Generator[None]:
    """Prevent this process from opening files while the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filled = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[0] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(filled[0])


async def _silent(reader, writer) -> None:
    await reader.read()


async def test_a_connection_waits_for_a_descriptor_and_then_blames_the_machine() -> None:
    async with runner(_silent) as port:
        pool = Pool(straight)
        with no_descriptors(), pytest.raises(NodeTrouble, match=r"Too many open files.*try again later"):
            await pool.connect("r", RunnerAddress("127.0.0.1", port), seconds=0.2)
        upstream = await pool.connect("r", RunnerAddress("127.0.0.1", port), seconds=5)
        upstream.transport.abort()


async def test_a_caller_hears_503_and_the_runner_stays() -> None:
    async with runner(_silent) as port, running_server(connect_seconds=0.2) as h:
        h.ledger.add(App("app", public=True), port)
        reader, writer = await h.connect()
        with no_descriptors():
            writer.write(b"GET /me/app/ HTTP/1.1\r\nHost: x\r\n\r\n")
            first, fields, _ = await read_message(reader)
        assert first.split()[1] == b"503"
        assert fields[b"x-fal-error-type"] == b"runner_scheduling_failure"
        assert h.ledger.outcomes == [Outcome.DONE]


async def test_a_queued_request_is_not_answered_for_it() -> None:
    client = HttpRunnerClient(straight, connect_seconds=0.2)
    async with runner(_silent) as port:
        with no_descriptors(), pytest.raises(NodeTrouble):
            await client.send(RunnerAddress("127.0.0.1", port), request(), Content(), 5, asyncio.Event())
        with no_descriptors():
            assert await client.accepts(RunnerAddress("127.0.0.1", port)), "nothing was learned of the runner"
