"""Tokens in place of keys. They open WebSockets of their app, nothing else, and no app sees them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.identity import AppId
from fal_server.http.gateway.app_request import without_token
from tests.http.support import App, ask, read_head, runner, running_server

UPGRADE = (
    b"Host: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n"
)


class Tokens:
    async def caller(self, token: str, owner: str, app_id: AppId) -> str | None:
        return "key-1" if (token, owner, str(app_id)) == ("good", "me", "private") else None


async def test_a_token_opens_a_websocket_and_is_not_passed_on() -> None:
    heads: list[bytes] = []

    async def script(reader, writer) -> None:
        first, _ = await read_head(reader)
        heads.append(first)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with running_server() as h, runner(script) as port:
        setattr(h.gateway, "_tokens", Tokens())  # noqa: B010 - it has no setter
        h.ledger.add(App("private", public=False), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/private/realtime?a=1&fal_jwt_token=good&b=2 HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        first, _ = await read_head(reader)
        assert first == b"HTTP/1.1 101 Switching Protocols"
        assert heads == [b"GET /realtime?a=1&b=2 HTTP/1.1"]
        assert h.ledger.asked[0]["caller"] == "key-1"
        writer.close()


async def test_a_token_that_is_not_good_or_not_for_this_opens_nothing() -> None:
    async with running_server() as h:
        setattr(h.gateway, "_tokens", Tokens())  # noqa: B010 - it has no setter
        h.ledger.add(App("private", public=False), 1)
        h.ledger.add(App("second", public=False), 1)
        for target, fields in (
            (b"/me/private/realtime?fal_jwt_token=bad", UPGRADE),
            (b"/me/second/realtime?fal_jwt_token=good", UPGRADE),
            (b"/me/private/run?fal_jwt_token=good", b"Host: h\r\n"),
            (b"/me/private/realtime?fal_jwt_token=", UPGRADE),
        ):
            status, _, _ = await ask(h, b"GET " + target + b" HTTP/1.1\r\n" + fields + b"\r\n")
            assert status == 401, target


@given(
    before=st.lists(st.sampled_from([b"a=1", b"b", b"fal_jwt_tokens=x", b""]), max_size=3),
    token=st.sampled_from([b"x.y.z", b"", b"a%3Db"]),
    after=st.lists(st.sampled_from([b"c=2", b"d"]), max_size=3),
)
def test_the_token_alone_is_taken_out(before: list[bytes], token: bytes, after: list[bytes]) -> None:
    query = b"&".join([*before, b"fal_jwt_token=" + token, *after])
    path, found = without_token(b"/p?" + query)
    rest = b"&".join([*before, *after])
    assert path == (b"/p?" + rest if rest else b"/p")
    assert found == token.replace(b"%3D", b"=").decode()
    assert without_token(path) == (path, None)
