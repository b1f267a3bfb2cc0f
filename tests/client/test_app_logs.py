"""Log lines of an app, on both sides."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fal.api import AsyncServerlessClient, SyncServerlessClient
from fal_grpc.errors import UnimplementedError
from fal_grpc.v1 import log_pb2
from tests.client.support import HANG_SECONDS, FakeController, serving
from tests.client.test_logs import Reader, ended, entry, pages, reader

__all__ = ["reader"]  # a fixture


def of_app(reader: Reader, host: str, **options: Any) -> list:
    async def awaited() -> list:
        async with asyncio.timeout(HANG_SECONDS), AsyncServerlessClient(host, "id:hidden-secret") as client:
            return [entry async for entry in client.apps.logs("shop", **options)]

    if reader.name == "asyncio":
        return asyncio.run(awaited())
    with SyncServerlessClient(host, "id:hidden-secret") as client:
        return list(client.apps.logs("shop", **options))


def test_the_lines_of_an_app(reader, fake):
    fake.answers["ListLogs"] = pages
    found = of_app(reader, fake.host, lines=3, environment_name="dev", sources=["stderr"], request_id="q1")
    assert [line.message for line in found] == ["3", "4", "5"]
    selector = fake.calls[0].request.selector
    assert (selector.app.app, selector.app.environment_name) == ("shop", "dev")
    assert (list(selector.sources), selector.request_id) == ([log_pb2.LogEntry.SOURCE_STDERR], "q1")


def test_the_lines_of_an_app_are_followed(reader, fake):
    fake.answers["FollowLogs"] = [log_pb2.FollowLogsResponse(entries=[entry(1)], cursor="1"), ended()]
    assert [line.message for line in of_app(reader, fake.host, follow=True)] == ["1"]
    assert fake.calls[0].request.selector.app.app == "shop"


@pytest.mark.parametrize("follow", [False, True])
def test_a_controller_that_knows_runners_alone_says_so(reader, follow):
    with (
        serving(FakeController(isolate_only=True)) as fake,
        pytest.raises(UnimplementedError, match="fal runners logs"),
    ):
        of_app(reader, fake.host, follow=follow)
