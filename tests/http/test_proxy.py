"""The endpoint of `proxyUrl`: targets, refusals, and what pages may read. The pages are of other origins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.http.routes.proxy import target_of
from fal_server.http.server.errors import HttpError
from tests.http.support import KEY, App, Server, ask, echo, runner, running_server


async def send(h: Server, url: bytes, *, method: bytes = b"GET", fields: bytes = b"") -> tuple[int, dict, bytes]:
    head = b"%b /proxy HTTP/1.1\r\nHost: x\r\nX-Fal-Target-Url: %b\r\n%b\r\n" % (method, url, fields)
    return await ask(h, head)


async def test_an_app_is_called_as_if_by_its_own_path() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), port)
        status, fields, body = await send(h, b"https://fal.run/me/hello/deep?a=1", fields=KEY)
        assert (status, fields[b"x-app"]) == (200, b"yes")
        assert body.startswith(b"GET /deep?a=1 HTTP/1.1\n")
        assert b"x-fal-target-url" not in body.lower()


async def test_it_has_no_key_of_its_own() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), port)
        assert (await send(h, b"https://fal.run/me/hello"))[0] == 401
        wrong = b"Authorization: Key good:wrong\r\n"
        assert (await send(h, b"https://fal.run/me/hello", fields=wrong))[0] == 401
        assert h.ledger.asked == []


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (b"https://queue.fal.run/me/hello/requests/1/status?logs=1", b"/queue/me/hello/requests/1/status"),
        (b"https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3", b"/storage/upload/initiate"),
        (b"https://rest.alpha.fal.ai/tokens/", b"/tokens/"),
        (b"https://fal.run/tokens/", b"/tokens/"),
        (b"https://fal.run/proxy", b"/proxy"),
    ],
)
async def test_the_hosts_of_the_cloud_lead_to_the_routes_here(url: bytes, path: bytes) -> None:
    async with running_server() as h:
        for host in (b"x", b"queue.x"):
            head = b"GET /proxy/ HTTP/1.1\r\nHost: %b\r\nX-Fal-Target-Url: %b\r\n\r\n" % (host, url)
            assert (await ask(h, head))[2] == path + b"|"


@pytest.mark.parametrize(
    "url",
    [
        b"http://fal.run/me/hello",
        b"https://fal.run.evil.example/me/hello",
        b"https://evil.example/fal.run",
        b"https://me@fal.run/me/hello",
        b"https://fal.run:444/me/hello",
        b"https://127.0.0.1/latest",
        b"https://fal.run/me/hel lo",
        b"https://fal.run/\xc3\xa9",
        b"//fal.run/me/hello",
        b"https://[fal.run/",
        b"file:///etc/passwd",
        b"",
    ],
)
async def test_everything_else_is_refused_and_says_what_is_not(url: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        status, fields, body = await send(h, url, fields=KEY)
        assert (status, fields[b"access-control-allow-origin"]) == (403, b"*")
        assert b"https://queue.fal.run" in body
        assert h.ledger.asked == []


@pytest.mark.parametrize("fields", [b"", b"X-Fal-Target-Url: https://fal.run/a/b\r\n" * 2])
async def test_without_one_address_it_says_what_it_is(fields: bytes) -> None:
    async with running_server() as h:
        status, _, body = await ask(h, b"POST /proxy HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n%b\r\n" % fields)
        assert status == 400
        assert b"proxyUrl" in body


@given(st.text(alphabet=st.characters(codec="latin-1"), max_size=60))
def test_only_paths_come_out_of_it(text: str) -> None:
    for url in (text.encode("latin-1"), f"https://fal.run{text}".encode("latin-1")):
        try:
            target = target_of(url)
        except HttpError:
            continue
        assert target.startswith(b"/")
        assert not target.startswith(b"//")
        assert not any(byte <= 32 or byte > 126 for byte in target)


async def test_pages_of_other_origins_may_ask_and_read() -> None:
    asked = (
        b"Connection: close\r\nOrigin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n"
        b"Access-Control-Request-Headers: authorization,x-fal-target-url\r\n"
    )
    async with running_server() as h:
        for path in (b"/proxy", b"/queue/me/hello", b"/storage/upload/1"):
            status, fields, _ = await ask(h, b"OPTIONS %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, asked))
            assert (status, fields[b"access-control-allow-headers"]) == (204, b"authorization,x-fal-target-url")
        status, fields, _ = await send(h, b"https://queue.fal.run/me/hello")
        assert (status, fields[b"access-control-allow-origin"]) == (200, b"*")
        assert fields[b"access-control-expose-headers"] == b"*"
