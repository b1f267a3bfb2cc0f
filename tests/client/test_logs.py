"""Log lines of a runner, stored and followed. Our rpcs and HTTP read them, on both sides."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from fal.api import AsyncServerlessClient, SyncServerlessClient
from fal.rest import Rest
from fal.rest_aio import AsyncRest
from fal_grpc.adapter.log import LogLevel, LogOrigin, LogQuery
from fal_grpc.channel import ChannelOptions
from fal_grpc.credentials import KeyCredentials
from fal_grpc.errors import (
    ArgumentError,
    CallError,
    InsecureChannelError,
    NotFoundError,
    UnavailableError,
    UnknownError,
)
from fal_grpc.v1 import log_pb2
from tests.client.support import HANG_SECONDS, FakeController, aborting, serving
from tests.client.test_api import answering

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Reader:
    """Reads all lines through one side of the client."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lines(self, host: str, **options: Any) -> list:
        if self.name == "asyncio":
            return asyncio.run(self._awaited(host, options))
        with SyncServerlessClient(host, "id:hidden-secret") as client:
            return list(client.runners.logs("r1", **options))

    async def _awaited(self, host: str, options) -> list:
        async with asyncio.timeout(HANG_SECONDS), AsyncServerlessClient(host, "id:hidden-secret") as client:
            return [entry async for entry in client.runners.logs("r1", **options)]

    def messages(self, host: str, **options: Any) -> list[str]:
        return [entry.message for entry in self.lines(host, **options)]


@pytest.fixture(params=["blocking", "asyncio"])
def reader(request) -> Reader:
    return Reader(request.param)


def entry(number: int) -> log_pb2.LogEntry:
    return log_pb2.LogEntry(
        runner_id="r1",
        sequence=number,
        message=str(number),
        level=log_pb2.INFO,
        timestamp=Timestamp(seconds=number),
    )


def pages(request, context):
    """Return two of five lines, in the wanted order. The token is the position."""
    numbers = [1, 2, 3, 4, 5]
    if request.order == log_pb2.ListLogsRequest.ORDER_NEWEST_FIRST:
        numbers.reverse()
    numbers = numbers[: request.lines or None]
    start = int(request.page_token or 0)
    token = str(start + 2) if start + 2 < len(numbers) else ""
    return log_pb2.ListLogsResponse(
        entries=[entry(number) for number in numbers[start : start + 2]], next_page_token=token
    )


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, "12345"),
        ({"lines": 3}, "345"),
        ({"lines": 3, "oldest": True}, "123"),
        ({"lines": 9}, "12345"),
    ],
)
def test_stored_lines_come_the_oldest_first(reader, fake, options, wanted):
    fake.answers["ListLogs"] = pages
    assert "".join(reader.messages(fake.host, **options)) == wanted


def test_what_is_asked_for_arrives(reader, fake):
    reader.lines(fake.host, since=NOW, until=NOW + timedelta(seconds=1), search="x")
    sent = fake.calls[0].request
    assert sent.since.ToDatetime(tzinfo=UTC) == NOW
    assert sent.until.ToDatetime(tzinfo=UTC) == NOW + timedelta(seconds=1)
    assert (sent.selector.search, sent.selector.runner_id) == ("x", "r1")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"lines": 0}, "lines"),
        ({"follow": True, "lines": 1, "oldest": True}, "oldest"),
        ({"sources": ["stdin"]}, "sources"),
        ({"follow": True, "until": NOW}, "until"),
        ({"since": NOW, "until": NOW - timedelta(seconds=1)}, "until"),
    ],
)
def test_contradictions_are_refused(reader, fake, options, argument):
    with pytest.raises(ArgumentError) as caught:
        reader.lines(fake.host, **options)
    assert caught.value.argument == argument
    assert fake.calls == []


@pytest.mark.parametrize(
    ("fields", "argument"),
    [
        ({}, "runner_id"),
        ({"runner_id": "r", "app": "a"}, "runner_id"),
        ({"runner_id": "r", "lines": 0}, "lines"),
        ({"runner_id": "r", "lines": 2**31}, "lines"),
        ({"runner_id": "r", "since": NOW, "until": NOW - timedelta(seconds=1)}, "until"),
    ],
)
def test_a_query_checks_its_fields(fields, argument):
    with pytest.raises(ArgumentError) as caught:
        LogQuery(**fields)
    assert caught.value.argument == argument


def ended() -> log_pb2.FollowLogsResponse:
    return log_pb2.FollowLogsResponse(cursor="end", runner_ended=log_pb2.RunnerEnded(runner_id="r1", reason="stopped"))


def test_following_ends_with_the_runner(reader, fake):
    fake.answers["FollowLogs"] = [
        log_pb2.FollowLogsResponse(cursor="0"),
        log_pb2.FollowLogsResponse(entries=[entry(1), entry(2)], cursor="2"),
        ended(),
    ]
    assert reader.messages(fake.host, follow=True) == ["1", "2"]
    since = fake.calls[0].request.since.ToDatetime(tzinfo=UTC)
    assert timedelta(seconds=50) < datetime.now(UTC) - since < timedelta(seconds=90)


def test_a_cut_stream_goes_on_where_it_was(reader, fake):
    """Cut it twice, once with an error and once without. No line is lost or repeated."""

    def stream(request, context):
        start = int(request.cursor or 0)
        if start < 4:
            yield log_pb2.FollowLogsResponse(entries=[entry(start + 1), entry(start + 2)], cursor=str(start + 2))
            if start == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            return
        yield ended()

    fake.answers["FollowLogs"] = stream
    assert reader.messages(fake.host, follow=True, since=NOW) == ["1", "2", "3", "4"]
    assert [call.request.WhichOneof("start") for call in fake.calls] == ["since", "cursor", "cursor"]
    assert fake.calls[0].request.since.ToDatetime(tzinfo=UTC) == NOW


def test_reconnecting_is_logged(reader, fake, caplog):
    def stream(request, context):
        if request.cursor:
            yield ended()
        yield log_pb2.FollowLogsResponse(cursor="0")
        context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    fake.answers["FollowLogs"] = stream
    with caplog.at_level("INFO", logger="fal.api.logs"):
        assert reader.messages(fake.host, follow=True) == []
    broke, reached = [record.message for record in caplog.records if record.name == "fal.api.logs"]
    assert "broke" in broke
    assert "continues where it was" in reached


def test_the_newest_lines_and_then_those_that_come(reader, fake):
    """Lines 4 and 5 are stored. Lines 4 to 7 are followed, from the timestamp of 4 on."""
    fake.answers["ListLogs"] = pages
    fake.answers["FollowLogs"] = [
        log_pb2.FollowLogsResponse(entries=[entry(4), entry(5), entry(6)], cursor="6"),
        log_pb2.FollowLogsResponse(entries=[entry(7)], cursor="7"),
        ended(),
    ]
    assert reader.messages(fake.host, follow=True, lines=2) == ["4", "5", "6", "7"]
    (followed,) = [call.request for call in fake.calls if isinstance(call.request, log_pb2.FollowLogsRequest)]
    assert followed.since.ToDatetime(tzinfo=UTC) == datetime.fromtimestamp(4, UTC)


def test_lines_that_were_read_together_with_the_newest_are_not_new(reader, fake):
    together = [entry(number) for number in range(1, 7)]
    for line in together:
        line.timestamp.CopyFrom(together[0].timestamp)
    fake.answers["ListLogs"] = log_pb2.ListLogsResponse(entries=together[3:5][::-1])
    fake.answers["FollowLogs"] = [log_pb2.FollowLogsResponse(entries=together, cursor="6"), ended()]
    assert reader.messages(fake.host, follow=True, lines=2) == ["4", "5", "6"]


def test_where_nothing_is_stored_all_that_comes_is_new(reader, fake):
    fake.answers["ListLogs"] = log_pb2.ListLogsResponse()
    fake.answers["FollowLogs"] = [log_pb2.FollowLogsResponse(entries=[entry(1)], cursor="1"), ended()]
    assert reader.messages(fake.host, follow=True, lines=2) == ["1"]


@pytest.mark.parametrize("follow", [False, True])
def test_sources_and_request_are_sent(reader, fake, follow):
    fake.answers["FollowLogs"] = [ended()]
    reader.lines(fake.host, follow=follow, sources=["stdout", "system"], request_id="q1")
    selector = fake.calls[0].request.selector
    assert list(selector.sources) == [log_pb2.LogEntry.SOURCE_STDOUT, log_pb2.LogEntry.SOURCE_SYSTEM]
    assert selector.request_id == "q1"


def test_a_stream_that_never_began_is_not_taken_up_again(reader, fake):
    fake.answers["FollowLogs"] = aborting(grpc.StatusCode.UNAVAILABLE, "starting")
    with pytest.raises(UnavailableError, match="starting"):
        reader.lines(fake.host, follow=True)
    assert len(fake.calls) == 1


def test_another_error_ends_it(reader, fake):
    fake.answers["FollowLogs"] = aborting(grpc.StatusCode.NOT_FOUND, "no such runner")
    with pytest.raises(NotFoundError):
        reader.lines(fake.host, follow=True)


# Over HTTP: a controller without our rpcs.


@pytest.fixture
def foreign(monkeypatch):
    """Serve a controller without our rpcs."""
    from fal.settings import Settings

    with serving(FakeController(isolate_only=True)) as fake:
        yield fake, Settings


def http_reader(reader: Reader, fake: FakeController, rest_host: str, **options: Any) -> list:
    """Read over HTTP on another port. The fake controller's port serves only gRPC."""

    class Beside(SyncServerlessClient):
        def rest(self):
            return Rest(f"http://{rest_host}", self._credentials, ChannelOptions())

    class BesideAsync(AsyncServerlessClient):
        async def rest(self):
            return AsyncRest(f"http://{rest_host}", self._credentials, ChannelOptions())

    async def awaited() -> list:
        async with asyncio.timeout(HANG_SECONDS), BesideAsync(fake.host, "id:hidden-secret") as client:
            return [entry async for entry in client.runners.logs("r1", **options)]

    if reader.name == "asyncio":
        return asyncio.run(awaited())
    with Beside(fake.host, "id:hidden-secret") as client:
        return list(client.runners.logs("r1", **options))


class History:
    """Answers with ten lines, three on a page, newest first. The published contract does so."""

    started_at = NOW
    lines = tuple(
        {
            "timestamp": (NOW + timedelta(seconds=n)).isoformat(),
            "level": "error",
            "message": f"line {n}",
            "source": "stderr",
        }
        for n in range(10)
    )

    def __call__(self, method: str, path: str) -> tuple[int, str, bytes]:
        address, query = urllib.parse.urlsplit(path), {}
        query = dict(urllib.parse.parse_qsl(address.query))
        if address.path == "/runners/r1":
            return 200, "application/json", json.dumps({"started_at": NOW.isoformat(), "ended_at": None}).encode()
        if address.path == "/logs/history":
            assert query["job_id"] == "r1"
            until = datetime.fromisoformat(query["until"]) if "until" in query else datetime.max.replace(tzinfo=UTC)
            since = datetime.fromisoformat(query["since"])
            inside = [
                line
                for line in reversed(self.lines)
                if since <= datetime.fromisoformat(line["timestamp"]) < until
                and query.get("search", "") in line["message"]
            ]
            following = inside[2]["timestamp"] if len(inside) > 3 else None
            return 200, "application/json", json.dumps({"items": inside[:3], "next_until": following}).encode()
        if address.path == "/logs/stream":
            events = [": hello\n\n", "data: \n\n", "data: no json\n\n"]
            events += [f"data: {json.dumps(line)}\n\n" for line in self.lines[:3]]
            return 200, "text/event-stream", "".join(events).encode()
        return 404, "application/json", b'{"detail": "no such thing"}'


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, range(10)),
        ({"lines": 4}, range(6, 10)),
        ({"lines": 4, "oldest": True}, range(4)),
        ({"since": NOW + timedelta(seconds=7)}, range(7, 10)),
        ({"until": NOW + timedelta(seconds=5), "since": NOW - timedelta(hours=1)}, range(5)),
        ({"search": "line 3"}, [3]),
    ],
)
def test_stored_lines_over_http(reader, foreign, options, wanted):
    with answering(History()) as (rest_host, asked):
        found = http_reader(reader, foreign[0], rest_host, **options)
    assert [line.message for line in found] == [f"line {n}" for n in wanted]
    assert (found[0].level, found[0].source, found[0].runner_id) == (LogLevel.ERROR, LogOrigin.STDERR, "r1")
    assert found[0].timestamp == NOW + timedelta(seconds=next(iter(wanted)))
    assert {headers["Authorization"] for _, _, headers in asked} == {"Key id:hidden-secret"}
    assert {headers["User-Agent"].partition("/")[0] for _, _, headers in asked} == {"fal-grpc"}
    assert next(headers.get("Content-Length") for method, _, headers in asked if method == "POST") == "0"


def test_followed_lines_over_http(reader, foreign):
    with answering(History()) as (rest_host, _):
        found = http_reader(reader, foreign[0], rest_host, follow=True)
        assert [line.message for line in found] == ["line 0", "line 1", "line 2"]
        found = http_reader(reader, foreign[0], rest_host, follow=True, search="LINE 1")
        assert [line.message for line in found] == ["line 1"]


def test_an_error_within_a_stream_is_raised(reader, foreign):
    with (
        answering(lambda method, path: (200, "text/event-stream", b"event: error\ndata: gone\n\n")) as (rest_host, _),
        pytest.raises(UnknownError, match="gone"),
    ):
        http_reader(reader, foreign[0], rest_host, follow=True)


def test_a_runner_that_is_not_there_over_http(reader, foreign):
    with (
        answering(lambda method, path: (404, "application/json", b'{"detail": "Runner r1 not found"}')) as (
            rest_host,
            _,
        ),
        pytest.raises(NotFoundError, match="Runner r1 not found"),
    ):
        http_reader(reader, foreign[0], rest_host)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, b"{}", "UNAUTHENTICATED"),
        (403, b"not json", "PERMISSION_DENIED"),
        (429, b"[]", "RESOURCE_EXHAUSTED"),
        (500, b"", "INTERNAL"),
        (418, b"", "UNKNOWN"),
    ],
)
def test_http_statuses_become_errors_of_the_tree(status, body, code):
    with answering(lambda method, path: (status, "application/json", body)) as (host, _):
        rest = Rest(f"http://{host}", KeyCredentials("id", "hidden-secret"), ChannelOptions())
        with pytest.raises(CallError, match=f"answered {status}") as caught:
            rest.teams()
    assert caught.value.code == code
    assert "hidden-secret" not in str(caught.value)


def test_what_is_no_json_is_said():
    with answering(lambda method, path: (200, "text/html", b"<html>")) as (host, _):
        rest = Rest(f"http://{host}", KeyCredentials("id", "s"), ChannelOptions())
        with pytest.raises(UnknownError, match="did not answer with JSON"):
            rest.teams()


def test_a_body_is_sent_as_it_is():
    with answering(lambda method, path: (200, "application/json", b"")) as (host, asked):
        rest = Rest("https://elsewhere", KeyCredentials("id", "s"), ChannelOptions(), account_url=f"http://{host}")
        assert rest.send("PUT", "/files/x", b"bytes", "application/octet-stream", timeout_seconds=5) is None
    ((method, path, headers),) = asked
    assert (method, path, headers["Content-Type"], headers["Content-Length"]) == (
        "PUT",
        "/files/x",
        "application/octet-stream",
        "5",
    )


def test_keys_do_not_leave_in_plaintext_or_to_others(monkeypatch):
    key = KeyCredentials("id", "s")
    with pytest.raises(InsecureChannelError):
        Rest("http://example.com", key, ChannelOptions())
    with pytest.raises(InsecureChannelError):
        Rest("https://example.com", key, ChannelOptions(), account_url="http://example.com")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering(lambda method, path: (200, "application/json", b"[]")) as (host, asked):
        assert Rest(f"http://{host}", key, ChannelOptions()).teams() == []
        assert len(asked) == 1


def test_an_http_side_that_is_not_there():
    rest = Rest("http://127.0.0.1:1", KeyCredentials("id", "s"), ChannelOptions())
    with pytest.raises(UnavailableError, match=r"Could not reach http://127\.0\.0\.1:1/users/teams"):
        rest.teams()
