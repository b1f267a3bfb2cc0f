"""Apps' own metrics on the page. They come from real servers on the runners' metrics ports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fal_server.core.addresses import RunnerAddress
from fal_server.core.app_metrics import MOST_BYTES, BadPage
from fal_server.core.exposition import to_text
from fal_server.core.identity import Scope
from fal_server.core.runners import MetricsAccess
from fal_server.http.gateway.metrics_client import HttpMetricsReader
from fal_server.http.gateway.upstream import straight
from fal_server.services.app_metrics import AppMetrics
from tests.fakes.domain import SCOPE
from tests.fakes.platform import OTHER, Platform

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def metrics_port(answer: bytes, *, then: Callable[[asyncio.StreamWriter], object] | None = None):
    """Serve one answer to each request. Yield the port and the heads of the requests."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            if then is not None:
                await then(writer)  # type: ignore[misc]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


@pytest.fixture
async def one(platform: Platform) -> Callable[[int], Awaitable[None]]:
    """Deploy an app with a runner. Return a function that sets its metrics port."""
    await platform.deploy("a")
    await platform.get()

    async def listens_on(port: int) -> None:
        runner = platform.the_runner()
        await platform.fleet.change(runner.runner_id, lambda known: replace(known, host="127.0.0.1", metrics_port=port))

    return listens_on


async def page(platform: Platform, scope: Scope = SCOPE) -> str:
    metrics = AppMetrics(platform.fleet, HttpMetricsReader(straight))
    return to_text(await metrics.collect(scope, lambda name: f"me/{name}"))


def values(text: str) -> dict[str, tuple[float, dict[str, str]]]:
    return {s.name: (s.value, s.labels) for family in text_string_to_metric_families(text) for s in family.samples}


async def test_an_apps_own_metrics_are_on_the_page_with_its_name(platform: Platform, one) -> None:
    async with metrics_port(HEAD + b'# TYPE images counter\nimages{runner_id="x"} 3\nfal_app_runners 9\n') as (
        port,
        asked,
    ):
        await one(port)
        found = values(await page(platform))
    runner_id = platform.the_runner().runner_id
    mine = {"application": "me/a", "runner_id": runner_id}
    assert found["images_total"] == (3, {**mine, "exported_runner_id": "x"})
    assert found["fal_runner_metrics_up"] == (1, mine)
    assert found["exported_fal_app_runners"] == (9, mine)
    assert "fal_app_runners" not in found
    assert asked[0].startswith(b"GET /metrics HTTP/1.1\r\n")
    assert b"accept: text/plain;version=0.0.4\r\n" in asked[0]


async def test_other_accounts_see_nothing_of_it_and_ask_nobody(platform: Platform, one) -> None:
    async with metrics_port(HEAD + b"images 3\n") as (port, asked):
        await one(port)
        assert await page(platform, replace(SCOPE, account=OTHER)) == ""
    assert asked == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (HEAD + b"not metrics at all {{{\n", "malformed"),
        (HEAD + b"a\xff 1\n", "not_utf8"),
        (HEAD + b"# padding\n" * (MOST_BYTES // 10 + 1), "too_large"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\na 1\n", "not_200"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "not_200"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\na 1\n", "broken"),
        (b"SSH-2.0-OpenSSH\r\n", "broken"),
        (b"", "unreachable"),
    ],
)
async def test_a_bad_page_is_named_and_breaks_nothing(platform: Platform, one, answer: bytes, problem: str) -> None:
    async with metrics_port(answer) as (port, _):
        await one(port)
        found = values(await page(platform))
    mine = {"application": "me/a", "runner_id": platform.the_runner().runner_id}
    assert found == {
        "fal_runner_metrics_up": (0, mine),
        "fal_runner_metrics_problem": (1, {**mine, "reason": problem}),
    }


async def test_a_port_where_nobody_listens(platform: Platform, one) -> None:
    async with metrics_port(b"") as (port, _):
        pass
    await one(port)
    assert values(await page(platform))["fal_runner_metrics_problem"][1]["reason"] == "unreachable"


async def test_an_endless_page_ends_at_its_size_or_its_time() -> None:
    async def forever(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"# padding\n" * 1000)
            await writer.drain()

    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    reader = HttpMetricsReader(straight)
    for then, problem, seconds in ((forever, "too_large", 60), (silence, "timeout", 0.2)):
        async with metrics_port(HEAD + b"a 1\n", then=then) as (port, _):
            with pytest.raises(BadPage, match=problem):
                await reader.read(RunnerAddress("127.0.0.1", port), most_bytes=MOST_BYTES, seconds=seconds)


@pytest.mark.parametrize("access", [MetricsAccess.CLOSED, MetricsAccess.GATED])
async def test_another_program_on_the_port_is_not_believed(platform: Platform, one, access: MetricsAccess) -> None:
    async with metrics_port(HEAD + b"images 3\n") as (port, asked):
        await one(port)
        runner_id = platform.the_runner().runner_id
        await platform.fleet.change(runner_id, lambda known: replace(known, metrics_access=access))
        found = values(await page(platform))
    assert found["fal_runner_metrics_problem"][1]["reason"] == "unreachable"
    assert "images" not in found
    assert access is MetricsAccess.GATED or asked == []
