"""The gateway: which runner gets a request, what of it is passed on, and what comes back."""

from __future__ import annotations

import json
import uuid

from fal_server.core.routing import Outcome
from tests.http.support import App, answering, echo, house, read_message, runner


async def test_a_request_reaches_the_app_without_its_prefix_and_comes_back() -> None:
    async with house() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello/a/b?x=1&y=%20 HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody")
        first, fields, body = await read_message(reader)
        assert first == b"HTTP/1.1 200 OK"
        assert fields[b"x-app"] == b"yes"
        assert body.startswith(b"POST /a/b?x=1&y=%20 HTTP/1.1\n")
        assert b"host: here\n" in body
        assert body.endswith(b"\n\nbody")
        assert await h.ledger.ended() == [Outcome.DONE]
