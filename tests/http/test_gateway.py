"""The gateway: the choice of a runner, the forwarded request, the answer."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from starlette.requests import Request

from fal_server.core.faults import NotFound, StartTimedOut, Unavailable
from fal_server.core.routing import Outcome
from fal_server.http.routes.hosts import AllowedHosts
from fal_server.http.routes.submission import passed_on
from tests.http.support import KEY, App, answering, ask, echo, error_of, read_message, runner, running_server

HOST = b"Host: here\r\n"


async def test_a_request_reaches_the_app_without_its_prefix_and_comes_back() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        status, fields, body = await ask(
            h,
            b"POST /me/hello/a/b?x=1&y=%20 HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n"
            b"X-Fal-Endpoint: /made-up\r\n\r\nbody",
        )
        assert status == 200
        assert fields[b"x-app"] == b"yes"
        assert body.startswith(b"POST /a/b?x=1&y=%20 HTTP/1.1\n")
        assert b"host: here\n" in body
        assert b"x-fal-endpoint: /a/b\n" in body
        assert b"made-up" not in body
        assert body.endswith(b"\n\nbody")
        assert await h.ledger.ended() == [Outcome.DONE]


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        (b"/me/hello", b"/"),
        (b"/me/hello/", b"/"),
        (b"/me/hello?q=/a/b", b"/?q=/a/b"),
        (b"/me/hello//x//", b"//x//"),
        (b"/m%65/h%65llo/%2e%2E/x", b"/%2e%2E/x"),
        (b"http://anywhere/me/hello/x", b"/x"),
    ],
)
async def test_targets(target: bytes, seen: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        _, _, body = await ask(h, b"GET " + target + b" HTTP/1.1\r\nHost: here\r\n\r\n")
        assert body.split(b"\n")[0] == b"GET " + seen + b" HTTP/1.1"


@pytest.mark.parametrize("host", [b"queue.fal.run", b"Queue.localhost:7400", b"queue.10.0.0.1:80"])
async def test_a_queue_host_is_for_the_queue(host: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        for target, seen in (
            (b"/me/hello/x?y=1", b"/queue/me/hello/x|"),
            (b"/queue/me/hello", b"/queue/me/hello|"),
            (b"/tokens/", b"/tokens/|"),
        ):
            _, _, body = await ask(h, b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            assert body == seen


@pytest.mark.parametrize("host", [b"fal.run", b"queue", b"queue:80", b"xqueue.fal.run", b"q.x"])
async def test_other_hosts_are_for_the_app(host: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        _, _, body = await ask(h, b"GET /me/hello/x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert body.startswith(b"GET /x HTTP/1.1")


async def test_an_old_client_without_a_host() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        _, _, body = await ask(h, b"GET /me/hello HTTP/1.0\r\n\r\n")
        assert b"host: localhost\n" in body


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
async def test_any_method(method: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        _, _, body = await ask(h, method + b" /me/hello/x HTTP/1.1\r\nHost: here\r\n\r\n")
        assert body.startswith(method + b" /x HTTP/1.1\n")


async def test_hop_by_hop_fields_are_not_passed_on() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        fields = (
            b"Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
            b"Proxy-Connection: x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Fal-Request-Id: mine\r\n"
            b"Cookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\n"
        )
        _, _, body = await ask(h, b"GET /me/hello HTTP/1.1\r\n" + HOST + fields + b"\r\n")
        head = body.split(b"\n\n")[0]
        names = {line.partition(b":")[0] for line in head.split(b"\n")[1:]}
        own = {b"x-forwarded-for", b"x-forwarded-proto", b"x-fal-request-id", b"x-fal-endpoint", b"traceparent"}
        assert names == {b"host", b"cookie", b"x-empty", *own}
        assert b"x-forwarded-for: 127.0.0.1" in head
        assert b"mine" not in head


SECRETS = [
    b"Key\tgood:secret",
    b"key  good:secret",
    b"Bearer\tgood:secret",
    b"Key: good:secret",
    b"Key:good:secret",
    b"good:secret",
]
FORGED = [
    b"X_Forwarded_For", b"X-Real-IP", b"Forwarded", b"X-Forwarded-Host", b"X_Fal_Caller_User_Id", b"x_fal_request_id",
    b"X-Fal-Caller-User-Id", b"X_FAL_ENDPOINT", b"X_Real_IP", b"Transfer_Encoding", b"Content_Length",
]  # fmt: skip


@pytest.mark.parametrize("value", SECRETS)
async def test_no_spelling_of_a_key_reaches_an_app(value: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        status, _, body = await ask(
            h, b"GET /me/hello HTTP/1.1\r\n" + HOST + b"Authorization: " + value + b"\r\nAuthorization: Basic x\r\n\r\n"
        )
        assert status == 200
        assert b"secret" not in body
        assert b"authorization: Basic x" in body, "what is no key is the app's"


@pytest.mark.parametrize("name", FORGED)
async def test_no_caller_speaks_for_the_platform(name: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        _, _, body = await ask(h, b"GET /me/hello HTTP/1.1\r\n" + HOST + name + b": 6.6.6.6\r\nX_Own: 1\r\n\r\n")
        assert b"6.6.6.6" not in body
        assert b"x_own: 1" in body


def test_the_queue_withholds_the_same_fields() -> None:
    fields = [(name.lower(), b"6.6.6.6") for name in FORGED] + [(b"authorization", value) for value in SECRETS]
    scope = {"type": "http", "scheme": "http", "client": None, "headers": [*fields, (b"x_own", b"1")]}
    assert passed_on(Request({**scope, "server": ("h", 80), "path": "/", "query_string": b""})) == (
        ("x_own", "1"),
        ("x-forwarded-proto", "http"),
    )


async def test_the_response_loses_fields_that_are_not_for_the_client() -> None:
    raw = (
        b"HTTP/1.1 203 Quite Fine\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Fal-Stop-Runner: 0\r\n"
        b"Set-Cookie: a\r\nSet-Cookie: b\r\nX-Fal-Request-Id: theirs\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    async with running_server() as h, runner(answering(raw)) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: here\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 203 quite fine\r\n")
        assert head.count(b"set-cookie") == 2
        for absent in (b"x-hop", b"stop-runner", b"theirs", b"x-trailer", b"connection"):
            assert absent not in head
        assert await reader.readexactly(13) == b"3\r\nabc\r\n0\r\n\r\n"


async def test_every_answer_has_an_id_of_its_own_and_the_app_sees_it() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        ids = set()
        for _ in range(600):  # more than one batch
            _, fields, body = await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            assert b"x-fal-request-id: " + fields[b"x-fal-request-id"] in body
            ids.add(uuid.UUID(fields[b"x-fal-request-id"].decode()))
        assert len(ids) == 600
        assert {identity.version for identity in ids} == {4}
        _, fields, _ = await ask(h, b"GET /me/none HTTP/1.1\r\nHost: here\r\n\r\n")
        assert uuid.UUID(fields[b"x-fal-request-id"].decode())


async def test_connections_to_the_runner_are_kept() -> None:
    opened = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await echo(reader, writer)

    async with running_server() as h, runner(counting) as port:
        h.ledger.add(App("hello"), port)
        for _ in range(5):
            assert (await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: here\r\n\r\n"))[0] == 200
        assert opened == 1


# Keys.


async def test_a_private_app_needs_a_valid_key() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), port)
        for field in (
            b"",
            b"Authorization: Key nonsense\r\n",
            b"Authorization: Key good:wrong\r\n",
            b"Authorization: Basic eDp5\r\n",
        ):
            status, fields, body = await ask(h, b"GET /me/hello HTTP/1.1\r\n" + HOST + field + b"\r\n")
            assert status == 401
            assert error_of(fields, body) == "bad_request"
            assert b"secret" not in body
            assert fields[b"www-authenticate"] == b"Key"
        assert h.ledger.asked == []
        for field in (KEY, b"authorization: bearer good:secret\r\n", KEY):
            status, _, body = await ask(h, b"GET /me/hello HTTP/1.1\r\n" + HOST + field + b"\r\n")
            assert status == 200
            assert b"authorization" not in body
        assert [asked["caller"] for asked in h.ledger.asked] == ["good"] * 3
        assert h.keys.asked.count("good") == 2  # for the wrong secret, and for the first call


@pytest.mark.parametrize("warm", [False, True])
async def test_a_key_that_may_not_call_apps(warm: bool) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), port)
        if warm:
            h.keys.warm.add("small")
        status, fields, body = await ask(
            h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\nAuthorization: Key small:secret\r\n\r\n"
        )
        assert status == 403
        assert error_of(fields, body) == "bad_request"


async def test_a_public_app_needs_no_key_and_never_sees_one() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        for field, seen in (
            (b"Authorization: Key a:b\r\n", False),
            (b"Authorization: Bearer a:b\r\n", False),
            (b"Authorization: Bearer its.own.token\r\n", True),
            (b"Authorization: Basic eDp5\r\n", True),
        ):
            status, _, body = await ask(h, b"GET /me/hello HTTP/1.1\r\n" + HOST + field + b"\r\n")
            assert status == 200
            assert (b"authorization" in body) is seen


# The platform's own headers.


async def test_the_hint_is_passed_on() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\nX-Fal-Runner-Hint: lora-7\r\n\r\n")
        assert h.ledger.asked[0]["hint"] == "lora-7"


@pytest.mark.parametrize("value", [b"0", b"-1", b"nan", b"inf", b"soon", b""])
async def test_an_invalid_start_timeout(value: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        status, fields, body = await ask(
            h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\nX-Fal-Request-Timeout: " + value + b"\r\n\r\n"
        )
        assert (status, error_of(fields, body)) == (400, "bad_request")


@pytest.mark.parametrize("asked", [b"X-Fal-Request-Timeout: 0.05\r\n", b""])
async def test_no_runner_in_the_start_timeout(asked: bytes) -> None:
    async with running_server() as h:
        h.ledger.add(App("hello", request_start_timeout=0 if not asked else 60), None)
        status, fields, body = await ask(
            h, b"POST /me/hello HTTP/1.1\r\nHost: x\r\n" + asked + b"Content-Length: 2\r\n\r\nhi"
        )
        assert (status, error_of(fields, body)) == (504, "request_timeout")
        assert fields[b"x-fal-request-timeout-type"] == b"user"
        assert h.ledger.outcomes == []


async def test_a_request_waits_for_a_runner() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), None)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\n" + KEY + b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n")
        await h.ledger.until(lambda: h.ledger.waiting)
        writer.write(b"2\r\ndy\r\n0\r\n\r\n")
        h.ledger.place("hello", port)
        first, _, body = await read_message(reader)
        assert first == b"HTTP/1.1 200 OK"
        assert body.endswith(b"\n\nbody")
        assert await h.ledger.ended() == [Outcome.DONE]


async def test_a_client_that_leaves_gives_up_its_place() -> None:
    async with running_server() as h:
        h.ledger.add(App("hello"), None)
        _, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        await h.ledger.until(lambda: h.ledger.waiting == 1)
        writer.close()
        await h.ledger.until(lambda: h.ledger.waiting == 0)
        assert h.ledger.outcomes == []


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        (Unavailable("the app's setup failed: no such module"), 503, "runner_scheduling_failure"),
        (StartTimedOut("not ready within startup_timeout 30 s"), 504, "startup_timeout"),
        (NotFound("app 'a'", "it was deleted"), 404, "bad_request"),
        (RuntimeError("a mistake of ours"), 500, "internal_error"),
    ],
)
async def test_faults_of_the_dispatcher(fault: Exception, status: int, word: str, caplog) -> None:
    async with running_server() as h:
        h.ledger.add(App("hello"), None)
        h.ledger.fault = fault
        got, fields, body = await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (got, error_of(fields, body)) == (status, word)
        assert (str(fault) in body.decode()) is (status != 500)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [(b"/me/other", 401), (b"/you/hello", 401), (b"/me/%ff", 401), (b"/me//hello", 404), (b"/me/", 404)],
)
async def test_what_is_not_there(target: bytes, wanted: int) -> None:
    """Without a key, a missing app is answered like a private one. Nobody learns which apps exist."""
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        status, fields, body = await ask(h, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, error_of(fields, body)) == (wanted, "bad_request")


PREFLIGHT = (
    b"OPTIONS /me/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: https://page.example\r\n"
    b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, x-fal-hint\r\n\r\n"
)


async def test_a_browser_may_ask_for_a_private_app_without_waking_it() -> None:
    async with running_server() as h:
        h.ledger.add(App("hello", public=False), None)
        status, fields, body = await ask(h, PREFLIGHT)
        assert status == 204
        assert body == b""
        assert fields[b"access-control-allow-origin"] == b"*"
        assert fields[b"access-control-allow-methods"] == b"POST"
        assert fields[b"access-control-allow-headers"] == b"authorization, x-fal-hint"
        assert h.ledger.asked == []
        status, fields, _ = await ask(h, b"OPTIONS /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, fields[b"access-control-allow-origin"]) == (401, b"*")
        assert b"date" in fields


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (b"a=1; Path=/", b"a=1; Path=/me/hello"),
        (b"a=1", b"a=1; Path=/me/hello"),
        (b"a=1; Path=/me/other; Secure", b"a=1; Secure; Path=/me/hello/me/other"),
        (b"a=1; path = /me/hello/x; HttpOnly", b"a=1; HttpOnly; Path=/me/hello/x"),
        (b"a=1; Path=/me/hello2", b"a=1; Path=/me/hello/me/hello2"),
        (b"a=1; Domain=example.com; Path=/x", b"a=1; Path=/me/hello/x"),
        (b"a=1; Path=/me/hello; Path=/", b"a=1; Path=/me/hello"),
    ],
)
async def test_cookies_and_service_workers_of_an_app_stay_in_its_paths(sent: bytes, got: bytes) -> None:
    raw = b"HTTP/1.1 200 OK\r\nService-Worker-Allowed: /\r\nSet-Cookie: " + sent + b"\r\nContent-Length: 0\r\n\r\n"
    async with running_server() as h, runner(answering(raw)) as port:
        h.ledger.add(App("hello"), port)
        _, fields, _ = await ask(h, b"GET /me/hello/deep?x=/ HTTP/1.1\r\nHost: here\r\n\r\n")
        assert fields[b"set-cookie"] == got
        assert b"service-worker-allowed" not in fields


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"box.example", 200),
        (b"Box.Example.:7400", 200),
        (b"ws.box.example", 200),
        (b"127.0.0.1:7400", 200),
        (b"[::1]:7400", 200),
        (b"localhost:7400", 200),
        (b"hello.localhost", 200),
        (b"fal.run", 200),
        (b"evil.example", 421),
        (b"queue.evil.example", 421),
        (b"box.example.evil.example", 421),
        (b"evil.example:80@box.example", 421),
    ],
)
async def test_a_name_that_another_site_gave_this_machine_is_not_answered(host: bytes, status: int) -> None:
    """DNS rebinding: evil.example's page calls apps here as its own origin."""
    async with running_server(hosts=AllowedHosts(["box.example"])) as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        assert (await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"))[0] == status
