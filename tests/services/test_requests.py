"""The request history: ended requests are stored in batches, listed, and aggregated."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from fal_server.core.faults import InvalidArgument, NotFound, Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.payloads import EndedPayload
from fal_server.core.queue import Answer
from fal_server.core.requests import (
    OTHER_ENDPOINTS,
    DirectRequest,
    MinuteKey,
    RequestPage,
    RequestQuery,
    RequestRecord,
    RequestStats,
    RequestStatus,
)
from fal_server.live.ended_payloads import EndedPayloads
from fal_server.live.ended_requests import EndedRequests
from fal_server.services.request_payloads import RequestPayloads
from fal_server.services.request_recording import RequestRecording
from fal_server.services.requests import Requests
from fal_server.store.sql.requests import SqlRequestStore
from tests.fakes.domain import SCOPE, START, app_id, make_app, make_revision
from tests.fakes.platform import Platform
from tests.fakes.queueing import queueing

NOW = 1000.0
OPENAPI = {"openapi": {"paths": {"/": {"post": {}}, "/items/{item}": {"get": {}}, "/items/new": {"get": {}}}}}


class History:
    """The history of a platform, whose monotonic clock stands still at NOW."""

    def __init__(
        self,
        platform: Platform,
        share: float = 1.0,
        store: SqlRequestStore | None = None,
        most: int = 100,
        payloads: RequestPayloads | None = None,
    ) -> None:
        self.ended = EndedRequests(most)
        self.store = store or platform.store.requests
        self.recording = RequestRecording(
            self.ended, self.store, platform.catalog, platform.clock, share, payloads=payloads, monotonic=lambda: NOW
        )
        self.requests = Requests(self.store, self.recording, platform.catalog, platform.clock)

    def end(self, request_id: str = "1", **changes: object) -> None:
        made = DirectRequest(
            app_id("a"), request_id, "runner", "unknown", b"/", b"POST", "k", NOW - 3, NOW - 2, NOW - 1, 200, None, 5,
            7, False,
        )  # fmt: skip
        self.ended.add(made._replace(**changes))

    async def ids(self, **query: object) -> list[str]:
        page = await self.requests.page(SCOPE, RequestQuery(**query))  # type: ignore[arg-type]
        return [record.request_id for record in page.records]


async def test_a_request_is_listed_as_soon_as_it_has_ended(idle: Platform) -> None:
    history = History(idle)
    history.end(path=b"/x?secret=1", cold_start=True)
    found = await history.requests.get(SCOPE, "1")
    assert found == RequestRecord(
        account=SCOPE.account,
        request_id="1",
        app_name="a",
        revision_id="unknown",
        runner_id="runner",
        endpoint="/x",
        method="POST",
        key_id="k",
        queued=False,
        received_at=START - timedelta(seconds=3),
        started_at=START - timedelta(seconds=2),
        ended_at=START - timedelta(seconds=1),
        code=200,
        error_type=None,
        bytes_in=5,
        bytes_out=7,
        attempt=1,
        cold_start=True,
    )
    assert (found.wait_seconds, found.run_seconds, found.seconds) == (1, 1, 2)
    with pytest.raises(NotFound, match="fal requests list"):
        await history.requests.get(SCOPE, "2")


async def test_an_endpoint_is_the_path_that_the_app_describes(idle: Platform) -> None:
    await idle.deploy("a", metadata=OPENAPI)
    revision_id = idle.app("a").revision_id
    history = History(idle)
    for number, path in enumerate([b"/", b"/items/7?x=1", b"/items/new", b"/else", b"/items/"]):
        history.end(f"{number}", path=path, revision_id=revision_id)
    history.end("none", revision_id=None, runner_id=None, started=None, code=503, error_type="x")
    found = await history.requests.page(SCOPE, RequestQuery())
    endpoints = {record.request_id: record.endpoint for record in found.records}
    assert endpoints == {
        "0": "/", "1": "/items/{item}", "2": "/items/new", "3": "/else", "4": "/items/", "none": "/",
    }  # fmt: skip
    (refused,) = [record for record in found.records if record.request_id == "none"]
    assert (refused.revision_id, refused.attempt, refused.run_seconds) == (revision_id, 0, None)


async def test_endpoints_that_callers_make_up_are_counted_together(idle: Platform) -> None:
    history = History(idle, most=1000)
    for number in range(210):
        history.end(f"{number:03}", path=b"/%d" % number)
    stats = await history.requests.stats(SCOPE, "a", by_endpoint=True)
    assert len(stats) == 201
    (others,) = [each for each in stats if each.endpoint == OTHER_ENDPOINTS]
    assert others.stats.count == 10
    assert (await history.requests.get(SCOPE, "209")).endpoint == "/209"


async def test_a_sample_leaves_out_successes_alone_and_numbers_count_all(idle: Platform) -> None:
    history = History(idle, share=0.25, most=1000)
    for number in range(400):
        history.end(f"{number}", code=500 if number % 2 else 200, error_type="x" if number % 2 else None)
    successes = await history.ids(status=RequestStatus.SUCCESS, limit=1000)
    assert 20 < len(successes) < 80, "about a quarter of 200"
    assert len(await history.ids(status=RequestStatus.ERROR, limit=1000)) == 200
    (all_of_it,) = await history.requests.stats(SCOPE)
    assert all_of_it.stats.count == 400
    none = History(idle, share=0.0)
    none.end("left-out")
    assert "left-out" not in await none.ids(limit=1000)


async def test_what_finds_no_room_is_counted_and_told(idle: Platform, caplog: pytest.LogCaptureFixture) -> None:
    history = History(idle, most=2)
    for number in range(5):
        history.end(f"{number}")
    with caplog.at_level(logging.WARNING):
        assert await history.ids() == ["1", "0"]
        await history.recording.store()
    assert (history.ended.dropped, history.ended.added) == (3, 5)
    assert [record.getMessage() for record in caplog.records] == [
        "3 requests are missing in the request history: they ended faster than they could be stored"
    ]


class FullDisk(SqlRequestStore):
    """Stores nothing while it is full."""

    full = True

    async def add(self, records: Sequence[RequestRecord], minutes: Mapping[MinuteKey, RequestStats]) -> None:
        if self.full:
            raise Unavailable("the disk is full")
        await super().add(records, minutes)


async def test_what_the_database_refuses_is_counted_and_told(idle: Platform, caplog: pytest.LogCaptureFixture) -> None:
    store = FullDisk(idle.store.requests._database, idle.store.requests._vault)
    history = History(idle, store=store)
    history.end("1")
    with caplog.at_level(logging.WARNING):
        assert await history.ids() == []
    assert history.recording.lost == 1
    assert "1 requests are missing in the request history: the disk is full" in caplog.text
    store.full = False
    history.end("2")
    assert await history.ids() == ["2"]


async def test_numbers_of_a_span_in_steps(idle: Platform) -> None:
    history = History(idle)
    history.end("1")
    history.end("2", code=404, error_type="bad_request", path=b"/x")
    await history.recording.store()
    idle.clock.advance(120)
    history.end("3", code=None, error_type="client_disconnected", cold_start=True, started=NOW - 1.5)
    span = {"since": START - timedelta(minutes=5), "until": idle.clock.now()}
    (whole,) = await history.requests.stats(SCOPE, "a", **span)  # type: ignore[arg-type]
    assert whole.stats.count == 3
    assert [whole.stats.count_of(status) for status in RequestStatus] == [1, 1, 0, 1]
    assert whole.stats.cold.count == 1
    assert (whole.since, whole.until) == (span["since"].replace(second=0), span["until"])
    steps = await history.requests.stats(SCOPE, "a", **span, step=timedelta(minutes=1))  # type: ignore[arg-type]
    assert [each.stats.count for each in steps] == [2, 1]
    assert sum(each.stats.total.count for each in steps) == 3
    by_endpoint = await history.requests.stats(SCOPE, None, **span, by_endpoint=True)  # type: ignore[arg-type]
    assert {each.endpoint: each.stats.count for each in by_endpoint} == {"/": 2, "/x": 1}
    await idle.catalog.register(make_revision("rb", "b"), lambda _: make_app("b", "rb"))
    assert await history.requests.stats(SCOPE, "b", **span) == []  # type: ignore[arg-type]


async def test_what_cannot_be_asked(idle: Platform) -> None:
    requests = History(idle).requests
    with pytest.raises(InvalidArgument, match="page_size"):
        await requests.page(SCOPE, RequestQuery(limit=1001))
    with pytest.raises(InvalidArgument, match="until"):
        await requests.stats(SCOPE, since=START, until=START - timedelta(minutes=2))
    with pytest.raises(InvalidArgument, match="whole minutes"):
        await requests.stats(SCOPE, step=timedelta(seconds=90))
    with pytest.raises(InvalidArgument, match="1500 steps"):
        await requests.stats(SCOPE, since=START - timedelta(days=30), step=timedelta(minutes=1))


async def test_requests_of_the_queue_are_in_it_too(platform: Platform) -> None:
    await platform.deploy("a", scaling={"max_concurrency": 1})
    history = History(platform)
    async with queueing(platform) as q:
        history.ended = q.ended
        history.recording._ended = q.ended
        q.client.answers = [Answer(status=200, body=b"done")]
        request_id = await q.submit(path="/x?y=1", body=b"12345", caller="k")
        await q.completed(request_id)
        q.client.answers = [Answer(status=422, headers=(("x-fal-error-type", "mine"),))]
        platform.clock.advance(1)
        failed = await q.submit()
        await q.completed(failed)
    first = await history.requests.get(SCOPE, request_id)
    assert (first.queued, first.attempt, first.code, first.endpoint, first.key_id) == (True, 1, 200, "/x", "k")
    assert (first.bytes_in, first.bytes_out) == (5, 4)
    assert first.cold_start, "its runner was started for it"
    assert first.runner_id == platform.the_runner().runner_id
    assert first.revision_id == platform.app().revision_id
    second = await history.requests.get(SCOPE, failed)
    assert (second.code, second.error_type, second.cold_start) == (422, "mine", False)


async def test_pages_are_the_callers_own(idle: Platform) -> None:
    history = History(idle)
    history.end("1")
    page = await history.requests.page(SCOPE, RequestQuery())
    assert isinstance(page, RequestPage)
    assert len(page.records) == 1
    assert await history.requests.forget(timedelta(days=7)) == 0
    idle.clock.advance(8 * 86400)
    assert await history.requests.forget(timedelta(days=7)) == 1
    assert await history.ids() == []


async def test_an_app_that_never_was_is_not_found(idle: Platform) -> None:
    history = History(idle)
    history.end()
    for ask in (history.requests.page(SCOPE, RequestQuery(app_name="nosuch")), history.requests.stats(SCOPE, "nosuch")):
        with pytest.raises(NotFound, match="nosuch"):
            await ask
    # A deleted app, and one without requests, is not an error.
    assert await history.ids(app_name="a") == ["1"]
    assert [row.app_name for row in await history.requests.stats(SCOPE, "a")] == ["a"]


async def test_payloads_of_listed_requests_are_stored_without_credentials(idle: Platform) -> None:
    ended = EndedPayloads()
    payloads = RequestPayloads(ended, idle.store.requests, idle.clock, 0.0, monotonic=lambda: NOW)
    recording = RequestRecording(EndedRequests(), idle.store.requests, idle.catalog, idle.clock, payloads=payloads)
    ended.add(EndedPayload(LOCAL, "failed", NOW - 1, False, b'{"token": "t", "n": 1}', b"no JSON"))
    ended.add(EndedPayload(LOCAL, "not in the sample", NOW - 1, True, b"{}", b"{}"))
    ended.add(EndedPayload(LOCAL, "not JSON", NOW - 1, False, b"-", None))
    await recording.store()
    found = await payloads.get(LOCAL, "failed")
    assert found is not None
    assert (found.input, found.output) == (b'{"token":"[redacted]","n":1}', None)
    assert found.ended_at == idle.clock.now() - timedelta(seconds=1)
    assert [await payloads.get(LOCAL, each) for each in ("not in the sample", "not JSON")] == [None, None]


async def test_requests_are_recorded_whatever_becomes_of_their_payloads(
    idle: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise LookupError("not foreseen")

    monkeypatch.setattr("fal_server.services.request_payloads.redacted", broken)
    ended = EndedPayloads()
    payloads = RequestPayloads(ended, idle.store.requests, idle.clock, monotonic=lambda: NOW)
    history = History(idle, payloads=payloads)
    history.end()
    ended.add(EndedPayload(LOCAL, "1", NOW - 1, False, b"{}", None))
    assert await history.ids() == ["1"]
    assert payloads.lost == 1
