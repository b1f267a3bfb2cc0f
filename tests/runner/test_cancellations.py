"""A cancellation reaches the app's code after its request. It does so whichever is read first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import anyio.to_thread
import fastapi.routing
import pytest
from fastapi import FastAPI, HTTPException

from fal_runner.worker.request_output import RequestStreams, _Tagged
from tests.fakes.platform import HANG_SECONDS


class OrderedApp:
    """An app that records the order in which its endpoints start."""

    def __init__(self, streams: RequestStreams) -> None:
        self.order: list[str] = []
        self.stop = asyncio.Event()
        api = FastAPI()
        api.post("/slow")(self.slow)
        api.post("/slow/cancel")(self.cancel)
        api.post("/thread")(self.thread)
        api.post("/thread/cancel")(self.cancel)
        api.post("/failing")(self.failing)
        api.post("/failing/cancel")(self.cancel)
        self.tagged: Any = _Tagged(api, streams)

    async def slow(self) -> None:
        self.order.append("request")
        await self.stop.wait()

    def thread(self) -> None:
        self.order.append("request")

    async def failing(self) -> None:
        raise HTTPException(418)

    async def cancel(self) -> None:
        self.order.append("cancel")
        self.stop.set()

    async def post(self, path: str, *fields: tuple[bytes, bytes]) -> int:
        """Send a request with the id R. Return the status of its answer."""
        answer: list[dict[str, Any]] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answer.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"x-fal-request-id", b"R"), *fields], "http_version": "1.1", "scheme": "http",
            "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "root_path": "",
        }  # fmt: skip
        await asyncio.wait_for(self.tagged(scope, receive, send), HANG_SECONDS)
        return int(answer[0]["status"])

    async def cancelled(self, path: str) -> int:
        """Send the cancellation, like the controller."""
        return await self.post(path + "/cancel", (b"x-fal-cancellation", b"1"))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Generator[RequestStreams]:
    """Record the starts of FastAPI's endpoints, until the test ends."""
    monkeypatch.setattr(fastapi.routing, "run_endpoint_function", fastapi.routing.run_endpoint_function)
    streams = RequestStreams()
    streams.beginnings.watch(fastapi.routing)
    yield streams
    assert not streams.beginnings._started


async def test_a_word_that_is_read_first_waits_for_its_request(streams: RequestStreams) -> None:
    app = OrderedApp(streams)
    word = asyncio.create_task(app.cancelled("/slow"))
    await asyncio.sleep(0)
    request = asyncio.create_task(app.post("/slow"))
    assert (await word, await request) == (200, 200)
    assert app.order == ["request", "cancel"]


async def test_a_word_waits_until_a_thread_is_free_for_the_endpoint(streams: RequestStreams) -> None:
    app, busy = OrderedApp(streams), threading.Event()
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    other = asyncio.create_task(anyio.to_thread.run_sync(busy.wait))
    await asyncio.sleep(0)
    request = asyncio.create_task(app.post("/thread"))
    word = asyncio.create_task(app.cancelled("/thread"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert app.order == []
    busy.set()
    assert (await word, await request) == (200, 200)
    await other


async def test_a_word_waits_for_an_endpoint_behind_middleware(streams: RequestStreams) -> None:
    app = OrderedApp(streams)
    inner, held = app.tagged, asyncio.Event()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await held.wait()
        await inner._app(scope, receive, send)

    app.tagged = _Tagged(middleware, streams)
    request = asyncio.create_task(app.post("/slow"))
    word = asyncio.create_task(app.cancelled("/slow"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert app.order == []
    held.set()
    assert (await word, await request) == (200, 200)
    assert app.order == ["request", "cancel"]


async def test_a_request_that_ends_before_its_endpoint_holds_no_word_back(streams: RequestStreams) -> None:
    app = OrderedApp(streams)
    word = asyncio.create_task(app.cancelled("/failing"))
    await asyncio.sleep(0)
    assert await app.post("/failing") == 418
    assert await word == 200


async def test_an_endpoint_that_a_caller_calls_waits_for_nothing(streams: RequestStreams) -> None:
    app = OrderedApp(streams)
    assert await app.post("/slow/cancel") == 200


async def test_of_other_frameworks_the_whole_request_is_enough() -> None:
    app = OrderedApp(RequestStreams())
    word = asyncio.create_task(app.cancelled("/slow"))
    await asyncio.sleep(0)

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith("/cancel"):
            await receive()
            app.order.append("request")
            await app.stop.wait()
        else:
            await app.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    app.tagged._app = plain
    request = asyncio.create_task(app.post("/slow"))
    assert (await word, await request) == (200, 200)
    assert app.order == ["request", "cancel"]
