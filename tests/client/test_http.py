"""HTTP clients of both sides: redirects, large bodies, event streams, lazy imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal.http import HttpClient
from fal.http_aio import AsyncHttpClient
from fal.http_messages import EventParser, HttpRequest, ServerSentEvent, status_error
from fal.rest_aio import AsyncRest
from fal.rest_messages import segment
from fal_grpc.channel import ChannelOptions
from fal_grpc.credentials import KeyCredentials
from fal_grpc.errors import NotFoundError, UnavailableError, UnknownError
from tests.client.test_api import answering

LARGE = bytes(range(256)) * 20_000


def request(host: str, path: str = "/", method: str = "GET", content: bytes | None = None) -> HttpRequest:
    return HttpRequest(
        method=method,
        url=f"http://{host}{path}",
        content=content,
        headers={"Authorization": "Key s"},
        timeout_seconds=5,
    )


def both(wanted: HttpRequest):
    """Send a request through the blocking and the asyncio client. Compare the responses."""

    async def ask():
        client = AsyncHttpClient(ChannelOptions())
        try:
            return await client.send(wanted)
        finally:
            await client.close()

    one, other = HttpClient(ChannelOptions()).send(wanted), asyncio.run(ask())
    assert (one.status, one.content) == (other.status, other.content)
    return one


def test_a_large_body_comes_whole_on_both_sides():
    with answering(lambda method, path: (200, "application/octet-stream", LARGE)) as (host, asked):
        assert both(request(host)).content == LARGE
    assert {headers["Accept-Encoding"] for _, _, headers in asked} == {"identity"}


@pytest.mark.parametrize("name", [".", "..", "a/../b", "%2e%2e", "ä ?#"])
def test_a_name_is_one_part_of_a_path(name):
    with answering(lambda method, path: (200, "application/json", b"{}")) as (host, asked):
        both(request(host, f"/runners/{segment(name)}/end"))
    for _, path, _ in asked:
        assert [unquote(part) for part in path.split("/")] == ["", "runners", name, "end"]


def test_a_stream_knows_its_length_and_comes_in_chunks():
    with (
        answering(lambda method, path: (200, "application/octet-stream", LARGE)) as (host, _),
        HttpClient(ChannelOptions()).stream(request(host)) as stream,
    ):
        chunks = list(stream.chunks())
        assert (stream.length, b"".join(chunks), len(chunks) > 1) == (len(LARGE), LARGE, True)


def test_an_error_status_is_an_error_of_the_tree_on_both_sides():
    with answering(lambda method, path: (404, "application/json", b'{"detail": "no such thing"}')) as (host, _):
        with pytest.raises(NotFoundError, match="no such thing"):
            HttpClient(ChannelOptions()).send(request(host))
        with pytest.raises(NotFoundError, match="no such thing"):
            asyncio.run(AsyncHttpClient(ChannelOptions()).send(request(host)))


def test_a_redirect_is_followed_on_the_same_host_only():
    def answer(method: str, path: str):
        where = {"/near": "/found", "/far": "http://127.0.0.1:1/found", "/round": "/round"}.get(path)
        if where is None:
            return 200, "text/plain", method.encode()
        return 307, "text/plain", b"", {"Location": where}

    with answering(answer) as (host, asked):
        assert both(request(host, "/near", "POST", b"body")).content == b"POST"
        with pytest.raises(UnknownError, match="answered 307"):
            HttpClient(ChannelOptions()).send(request(host, "/far"))
        with pytest.raises(UnavailableError, match="redirects in a loop"):
            HttpClient(ChannelOptions()).send(request(host, "/round"))
    assert all(headers["Authorization"] == "Key s" for _, _, headers in asked)


def test_a_refused_connection_says_so_on_both_sides():
    for ask in (
        lambda: HttpClient(ChannelOptions()).send(request("127.0.0.1:1")),
        lambda: asyncio.run(AsyncHttpClient(ChannelOptions()).send(request("127.0.0.1:1"))),
    ):
        with pytest.raises(UnavailableError, match=r"Could not reach http://127\.0\.0\.1:1/: Connection refused"):
            ask()


def test_what_has_the_address_is_named(monkeypatch):
    client = HttpClient(ChannelOptions(named_by="FAL_HOST"))
    monkeypatch.setenv("FAL_RUN_HOST", "http://127.0.0.1:1/base")
    with pytest.raises(UnavailableError, match=r"the address is from FAL_RUN_HOST\.$"):
        client.send(request("127.0.0.1:1"))
    monkeypatch.delenv("FAL_RUN_HOST")
    with pytest.raises(UnavailableError, match=r"the address is from FAL_HOST\.$"):
        client.send(request("127.0.0.1:1"))


def test_tls_to_a_server_without_it_is_named_on_both_sides():
    with answering(lambda method, path: (200, "text/plain", b"")) as (host, asked):
        secure = replace(request(host), url=f"https://{host}/")
        for ask in (
            lambda: HttpClient(ChannelOptions()).send(secure),
            lambda: asyncio.run(AsyncHttpClient(ChannelOptions()).send(secure)),
        ):
            with pytest.raises(UnavailableError, match=r"does not speak TLS, so write http:// before its address"):
                ask()
    assert asked == []


def test_an_event_stream_through_asyncio():
    body = b'data: {"message": "a", "timestamp": "2026-01-01T00:00:00"}\n\ndata: nonsense\n\nevent: end\ndata: {}\n\n'

    async def read(host: str) -> list[str]:
        rest = AsyncRest(f"http://{host}", KeyCredentials("id", "s"), ChannelOptions())
        return [entry.message async for entry in rest.log_stream("r", since=None, search=None)]

    with answering(lambda method, path: (200, "text/event-stream", body)) as (host, _):
        assert asyncio.run(read(host)) == ["a", ""]


EVENTS = (
    b"event: first\ndata: one\ndata: two\n\n: a comment\r\nid: 7\r\ndata:\xe2\x80\xa8no new line\r\n\r\n"
    b"data\rdata: x\r\revent: without data\n\ndata: cut off"
)


@given(cuts=st.lists(st.integers(0, len(EVENTS)), max_size=12))
def test_events_are_the_same_however_the_stream_is_cut(cuts):
    parser, found = EventParser(), list[ServerSentEvent]()
    edges = [0, *sorted(cuts), len(EVENTS)]
    for start, end in pairwise(edges):
        found += parser.feed(EVENTS[start:end])
    assert [(event.name, event.data) for event in found] == [
        ("first", "one\ntwo"),
        ("message", "\u2028no new line"),
        ("message", "\nx"),
    ]


def test_httpx_is_loaded_by_the_first_call_only():
    code = "import sys, fal.api, fal.rest, fal.files, fal.queue, fal.gpus; print('httpx' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize(
    ("content_type", "body", "details", "alone"),
    [
        ("application/json", b'{"detail": "no such app"}', "no such app", True),
        ("application/json", b'{"detail": [{"loc": ["body", "n"], "msg": "too big"}]}', "n: too big", False),
        ("application/json", b'{"error": 1}', '{"error": 1}', False),
        ("text/plain", b"try later\n", "try later", False),
        ("text/html", b"<html>", "", False),
        ("application/json", b"{}", "", False),
    ],
)
def test_an_error_says_what_its_body_says(content_type: str, body: bytes, details: str, alone: bool) -> None:
    error = status_error(422, {"content-type": content_type}, body, "http://host/path?secret=x")
    answered = "http://host/path answered 422 Unprocessable"
    assert (error.details, error.http_status, str(error).startswith(answered)) == (details, 422, not alone)
    assert str(error).endswith(details)
    assert "secret" not in str(error)
