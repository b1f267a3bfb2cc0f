"""The quota of log bytes: dropped lines and the log's note. The end of a window is here, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry, LogLevel, LogQuery, LogSource
from fal_server.core.quotas import Quotas
from fal_server.services.log_bounds import LogBounds
from fal_server.services.logs import Logs
from fal_server.store import AesVault, open_store

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE, BOB = AccountId("alice"), AccountId("bob")
MOST = 1000


class Clock:
    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at

    wall = now


def quotas_of(account: AccountId) -> Quotas:
    return Quotas(log_bytes_per_minute=MOST) if account == ALICE else Quotas()


def line(number: int, size: int = 36, runner: str = "r", account: AccountId = ALICE) -> LogEntry:
    return LogEntry(
        runner_id=runner, sequence=number, timestamp=NOON, level=LogLevel.INFO, source=LogSource.STDOUT,
        message="x" * size, account=account, app_name="a",
    )  # fmt: skip


def test_what_is_too_much_is_dropped_and_said_once() -> None:
    clock = Clock()
    bounds = LogBounds(quotas_of, clock)
    kept = [entry for number in range(1, 101) for entry in bounds.admitted([line(number)])]
    assert [entry.sequence for entry in kept] == list(range(1, 12)), "ten lines of 100 bytes, and the remark"
    remark = kept[-1]
    assert (remark.level, remark.source) == (LogLevel.WARNING, LogSource.SYSTEM)
    assert remark.message == "lines are dropped from here until 12:01:00 UTC: the account may log 1000 bytes a minute"
    assert bounds.used(ALICE) == MOST
    clock.at += timedelta(minutes=1)
    assert bounds.used(ALICE) == 0
    counted, first = bounds.admitted([line(101)])
    assert (counted.sequence, first.sequence) == (100, 101)
    assert counted.message == "90 lines dropped, which were more than the account's quota allows"
    assert bounds.admitted([line(102)]) == [line(102)]


def test_runners_share_the_account_and_accounts_share_nothing() -> None:
    bounds = LogBounds(quotas_of, Clock())
    assert len(bounds.admitted([line(number) for number in range(1, 11)])) == 10
    (remark,) = bounds.admitted([line(1, runner="other"), line(2, runner="other")])
    assert remark.runner_id == "other"
    others = [line(number, 5000, "b", BOB) for number in range(1, 50)]
    assert list(bounds.admitted(others)) == others


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 30)), max_size=80))
def test_no_minute_has_more_than_the_quota_and_numbers_rise(written: list[tuple[int, int]]) -> None:
    clock = Clock()
    bounds = LogBounds(quotas_of, clock)
    kept: list[tuple[datetime, LogEntry]] = []
    for number, (size, pause) in enumerate(written, 1):
        clock.at += timedelta(seconds=pause)
        kept += [(clock.at, entry) for entry in bounds.admitted([line(number, size)])]
    numbers = [entry.sequence for _, entry in kept]
    assert numbers == sorted(set(numbers))
    own = [(at, len(entry.message) + 64) for at, entry in kept if entry.source is LogSource.STDOUT]
    # A window begins with a line, so of two overlapping windows only one can be full.
    for begin, _ in own:
        assert sum(size for at, size in own if begin <= at < begin + timedelta(minutes=1)) <= 2 * MOST
    said = sum(entry.source is LogSource.SYSTEM for _, entry in kept)
    assert said or len(own) == len(written)


async def test_the_remarks_are_stored_and_a_batch_that_comes_again_changes_nothing() -> None:
    store, clock = await open_store(None, AesVault(bytes(32))), Clock()
    try:
        logs = Logs(store.logs, store, clock, bounds=LogBounds(quotas_of, clock))
        lines = [line(number) for number in range(1, 21)]
        await logs.ingest(lines)
        await logs.ingest(lines)
        clock.at += timedelta(minutes=2)
        await logs.ingest([line(21)])
        page = await store.logs.page(ALICE, LogQuery(runner_id="r"))
    finally:
        await store.close()
    numbers = [entry.sequence for entry in page.entries]
    assert numbers == [*range(1, 12), 20, 21]
    assert "lines are dropped from here" in page.entries[10].message
