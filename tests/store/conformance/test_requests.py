"""The request history, in every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.payloads import KeptPayload
from fal_server.core.requests import MinuteKey, RequestQuery, RequestRecord, RequestStats, RequestStatus
from fal_server.store import SqlStore
from tests.fakes.history import NOON, record

OTHER = AccountId("other")


def stats(*records: RequestRecord) -> RequestStats:
    made = RequestStats()
    for each in records:
        made.add(each)
    return made


async def ids(store: SqlStore, **query: object) -> list[str]:
    page = await store.requests.page(LOCAL, RequestQuery(**query))  # type: ignore[arg-type]
    return [each.request_id for each in page.records]


async def test_rows_come_back_as_they_were(store: SqlStore) -> None:
    records = [
        record("1"),
        record("2", ended=1, started_at=None, runner_id=None, key_id=None, code=None, error_type="x", attempt=0),
        record("3", ended=2, queued=True, cold_start=True, code=503, error_type="runner_server_error"),
        record("4", account=OTHER),
    ]
    await store.requests.add(records, {})
    assert await store.requests.page(LOCAL, RequestQuery()) == await store.requests.page(LOCAL, RequestQuery(limit=3))
    assert (await store.requests.page(LOCAL, RequestQuery())).records == (records[2], records[1], records[0])
    assert (await store.requests.page(OTHER, RequestQuery())).records == (records[3],)
    await store.requests.add([record("1", code=500)], {})
    assert (await store.requests.page(LOCAL, RequestQuery(request_id="1"))).records == (records[0],)


async def test_many_rows_at_once(store: SqlStore) -> None:
    records = [record(f"{number}", ended=number) for number in range(2 * (256 + 64 + 16 + 4 + 1))]
    await store.requests.add(records[5:9], {})
    await store.requests.add(records, {})
    page = await store.requests.page(LOCAL, RequestQuery(oldest_first=True, limit=1_000))
    assert list(page.records) == records


async def test_each_filter(store: SqlStore) -> None:
    await store.requests.add(
        [
            record("1", app_name="b", endpoint="/x"),
            record("2", ended=1, code=404, runner_id="other"),
            record("3", ended=2, code=500, key_id="other"),
            record("4", ended=3, code=None),
            record("5", ended=4, code=302),
        ],
        {},
    )
    assert await ids(store, app_name="b") == ["1"]
    assert await ids(store, endpoint="/x") == ["1"]
    assert await ids(store, runner_id="other") == ["2"]
    assert await ids(store, key_id="other") == ["3"]
    assert await ids(store, request_id="3") == ["3"]
    assert await ids(store, since=NOON + timedelta(seconds=3)) == ["5", "4"]
    assert await ids(store, until=NOON + timedelta(seconds=1)) == ["1"]
    by_status = {status: await ids(store, status=status) for status in RequestStatus}
    assert by_status == {
        RequestStatus.SUCCESS: ["5", "1"],
        RequestStatus.USER_ERROR: ["2"],
        RequestStatus.ERROR: ["3"],
        RequestStatus.LEFT: ["4"],
    }


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_pages_have_each_request_once(store: SqlStore, oldest_first: bool) -> None:
    records = [record(f"{number}", ended=number // 3) for number in range(10)]
    await store.requests.add(records, {})
    seen: list[RequestRecord] = []
    cursor: str | None = None
    more = True
    while more:
        page = await store.requests.page(LOCAL, RequestQuery(limit=4, after=cursor, oldest_first=oldest_first))
        seen += page.records
        cursor, more = page.cursor, page.more
    assert seen == sorted(records, key=lambda each: (each.ended_at, each.request_id), reverse=not oldest_first)
    end = await store.requests.page(LOCAL, RequestQuery(after=cursor, oldest_first=oldest_first))
    assert (end.records, end.cursor, end.more) == ((), cursor, False)


@pytest.mark.parametrize("cursor", ["x", "W10", "WzEsMl0", "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwLCJhIl0"])
async def test_what_is_no_cursor_is_refused(store: SqlStore, cursor: str) -> None:
    with pytest.raises(InvalidArgument, match="page token"):
        await store.requests.page(LOCAL, RequestQuery(after=cursor))


async def test_numbers_of_a_minute_add_up(store: SqlStore) -> None:
    some = [record("1", took=0.5), record("2", code=500, error_type="runner_server_error", cold_start=True)]
    later = [record("3", took=3, code=None, error_type="client_disconnected", started_at=None)]
    key = MinuteKey(LOCAL, "a", "/", NOON)
    next_minute = key._replace(at=NOON + timedelta(minutes=1))
    of_other = key._replace(account=OTHER)
    await store.requests.add([], {key: stats(*some), of_other: stats(some[0])})
    await store.requests.add([], {key: stats(*later), next_minute: stats(some[0])})
    until = NOON + timedelta(hours=1)
    found = await store.requests.minutes(LOCAL, "a", NOON, until)
    assert found == [(key, stats(*some, *later)), (next_minute, stats(some[0]))]
    assert await store.requests.minutes(LOCAL, None, NOON + timedelta(minutes=1), until) == found[1:]
    assert await store.requests.minutes(LOCAL, None, NOON, NOON + timedelta(minutes=1)) == found[:1]
    assert await store.requests.minutes(LOCAL, "b", NOON, until) == []
    assert await store.requests.minutes(OTHER, None, NOON, until) == [(of_other, stats(some[0]))]


async def test_what_is_old_is_forgotten(store: SqlStore) -> None:
    old, new = record("1"), record("2", ended=60)
    keys = [MinuteKey(LOCAL, "a", "/", NOON), MinuteKey(LOCAL, "a", "/", NOON + timedelta(minutes=1))]
    await store.requests.add([old, new], dict(zip(keys, [stats(old), stats(new)], strict=True)))
    assert await store.requests.forget(NOON + timedelta(seconds=1)) == 1
    assert await ids(store) == ["2"]
    assert await store.requests.minutes(LOCAL, None, NOON, NOON + timedelta(hours=1)) == [(keys[1], stats(new))]
    assert await store.requests.forget(NOON + timedelta(seconds=1)) == 0


async def test_payloads_come_back_for_their_account_until_they_are_forgotten(store: SqlStore) -> None:
    first = KeptPayload(account=LOCAL, request_id="1", ended_at=NOON, input=b'{"a":1}', output=b"2")
    second = KeptPayload(account=LOCAL, request_id="2", ended_at=NOON + timedelta(hours=1), input=None, output=b"[]")
    await store.requests.add_payloads([first, second])
    await store.requests.add_payloads([replace(first, input=b"other")])
    assert await store.requests.payload(LOCAL, "1") == first
    assert await store.requests.payload(LOCAL, "2") == second
    assert await store.requests.payload(OTHER, "1") is None
    await store.requests.forget(NOON + timedelta(minutes=1))
    assert await store.requests.payload(LOCAL, "1") is None
    assert await store.requests.payload(LOCAL, "2") == second
