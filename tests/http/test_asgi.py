"""The controller's own ASGI application: failures, clients that leave, and backpressure."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import httpx
import pytest

from tests.http.support import error_of, read_head, read_message, running_server


async def test_an_unexpected_error_is_a_500_without_its_message(caplog) -> None:
    async def broken(scope, receive, send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        raise RuntimeError("private message")

    async with (
        running_server(rest=broken) as h,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{h.port}", trust_env=False) as client,
    ):
        answer = await client.get("/x")
        assert (answer.status_code, answer.json()["error_type"]) == (500, "internal_error")
        assert "private" not in answer.text
        assert "private message" in caplog.text
        with pytest.raises(httpx.HTTPError):
            await client.get("/late")


async def test_what_an_answer_says_about_pages_gives_way_to_the_controllers_own() -> None:
    async def stored(scope, receive, send) -> None:
        headers = [
            (b"Access-Control-Allow-Origin", b"https://other.example"),
            (b"access-control-allow-credentials", b"true"),
            (b"x-mine", b"1"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with (
        running_server(rest=stored) as h,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{h.port}", trust_env=False) as client,
    ):
        answer = await client.get("/x", headers={"origin": "https://page.example"})
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        assert answer.headers.get_list("access-control-expose-headers") == ["*"]
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["x-mine"] == "1"


async def test_the_application_is_told_that_the_client_has_left() -> None:
    asked, learned = asyncio.Event(), asyncio.Event()

    async def waiting(scope, receive, send) -> None:
        assert (await receive()) == {"type": "http.request", "body": b"ab", "more_body": False}
        asked.set()
        assert (await receive()) == {"type": "http.disconnect"}
        with pytest.raises(OSError, match="gone"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
        learned.set()

    async with running_server(rest=waiting) as h:
        _, writer = await h.connect()
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        await asked.wait()
        writer.close()
        await learned.wait()


@pytest.mark.parametrize("started", [False, True])
async def test_a_body_that_stops_arriving_times_out(started: bool, caplog) -> None:
    learned = asyncio.Event()

    async def reading(scope, receive, send) -> None:
        assert (await receive()) == {"type": "http.request", "body": b"a", "more_body": True}
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive()) == {"type": "http.disconnect"}
        learned.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async with running_server(rest=reading, body_seconds=0.05) as h:
        reader, writer = await h.connect()
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        if started:
            await read_head(reader)
            with suppress(ConnectionError):
                assert await reader.read() == b""
        else:
            first, fields, body = await read_message(reader)
            assert (first, error_of(fields, body)) == (b"HTTP/1.1 408 Request Timeout", "bad_request")
            assert await reader.read() == b""
        await learned.wait()
    assert not caplog.records


async def test_a_slow_client_pauses_the_application() -> None:
    held = asyncio.Event()

    async def eager(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(50):
            sending = asyncio.ensure_future(
                send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
            )
            done, _ = await asyncio.wait((sending,), timeout=0.3)
            if not done:
                held.set()
            await sending
        await send({"type": "http.response.body", "body": b""})

    async with running_server(rest=eager) as h:
        reader, writer = await h.connect()
        writer.write(b"GET /x HTTP/1.0\r\n\r\n")
        await held.wait()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert len(body) == 50 * 2**20
