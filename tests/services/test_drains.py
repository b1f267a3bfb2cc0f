"""Log drains: each line at least once and in order. The cursor follows accepted lines, and drains are independent."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

import pytest

from fal_server.core.accounts import Account, AccountKind, KnownAccounts
from fal_server.core.drains import LogDrain
from fal_server.core.faults import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.core.outbound import OutboundCall, Receipt
from fal_server.http.outbound.client import HttpOutboundClient
from fal_server.http.outbound.destinations import Destinations
from fal_server.http.outbound.drain_formats import written
from fal_server.live.unsent_lines import UnsentLines
from fal_server.ports.drains import DrainStore
from fal_server.services.draining import RETRIES, Draining
from fal_server.services.drains import MOST_DRAINS, Drains
from fal_server.services.logs import Logs
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import SCOPE, START
from tests.fakes.platform import Platform

URL = "https://user:pass@receiver.test/in?key=secret"
SIGNING_KEY = "k" * 64
OTHER = replace(SCOPE, account=AccountId("other"))


class Clock:
    def __init__(self) -> None:
        self.time = START

    def now(self):
        return self.time

    wall = now


class Receiver:
    """An OutboundClient that keeps accepted lines, after giving `answers`."""

    def __init__(self) -> None:
        self.calls: list[OutboundCall] = []
        self.answers: list[Receipt | Exception] = []
        self.lines: list[str] = []
        self.most_bytes = 10**9

    async def post(self, call: OutboundCall) -> Receipt:
        self.calls.append(call)
        answer = self.answers.pop(0) if self.answers else Receipt(status=204)
        if isinstance(answer, Exception):
            raise answer
        if len(call.body) > self.most_bytes:
            return Receipt(status=413)
        if answer.taken:
            self.lines += [json.loads(line)["message"] for line in call.body.splitlines()]
        return answer

    async def why_forbidden(self, host: str, port: int) -> str:
        return ""


class CrashingStore:
    """The real store of drains. It fails before it moves a cursor if the test sets that."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store.drains
        self.crashes = 0

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    async def advance(self, *arguments) -> None:
        if self.crashes:
            self.crashes -= 1
            raise Unavailable("the process was killed")
        await self._store.advance(*arguments)


@dataclass
class Desk:
    store: SqlStore
    drain_store: CrashingStore
    clock: Clock
    unsent: UnsentLines
    drains: Drains
    logs: Logs
    receiver: Receiver
    written: int = 0

    async def create(self, name="d", **options) -> LogDrain:
        return (await self.drains.create(SCOPE, name, options.pop("url", URL), **options)).drain

    def at_work(self, drain: LogDrain) -> Draining:
        """Return the services of a controller that has just started."""
        self.unsent.leave(drain.drain_id)
        known = KnownAccounts(
            [Account(id=LOCAL, nickname="me", kind=AccountKind.USER, user_id="local|local", full_name="")]
        )
        return Draining(
            drain,
            self.unsent.follow(drain),
            self.drains,
            cast("DrainStore", self.drain_store),
            self.receiver,
            written,
            known,
            self.clock,
        )

    async def write(self, *messages: str, runner="r", app="a", level=LogLevel.INFO) -> None:
        entries = []
        for message in messages:
            self.written += 1
            entries.append(
                LogEntry(
                    runner_id=runner,
                    sequence=self.written,
                    timestamp=self.clock.now(),
                    level=level,
                    source=LogSource.STDOUT,
                    message=message,
                    account=LOCAL,
                    app_name=app,
                    revision_id="v",
                )
            )
        await self.logs.ingest(entries)

    async def view(self, name="d"):
        return await self.drains.get(SCOPE, name)


async def send_all(work: Draining) -> float | None:
    """Step until nothing is left to do, or there is a wait. Return the wait's seconds."""
    while (pause := await work.step()) == 0:
        pass
    return pause


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    vault = AesVault(bytes(range(32)))
    store = await open_store(None, vault)
    clock, unsent = Clock(), UnsentLines()
    drain_store = CrashingStore(store)
    yield Desk(
        store=store,
        drain_store=drain_store,
        clock=clock,
        unsent=unsent,
        drains=Drains(store.drains, unsent, vault, clock),
        logs=Logs(store.logs, store, clock, stored=unsent.stored),
        receiver=Receiver(),
    )
    await store.close()


async def test_lines_are_sent_signed_and_with_headers(desk):
    drain = await desk.create(headers={"x-token": "t"}, signing_key=SIGNING_KEY)
    work = desk.at_work(drain)
    assert await send_all(work) is None
    await desk.write("one", "two")
    assert await send_all(work) is None
    (call,) = desk.receiver.calls
    headers = dict(call.headers)
    assert call.url == URL
    assert headers["content-type"] == "application/x-ndjson"
    assert headers["x-token"] == "t"
    assert headers["x-fal-signature"] == hmac.new(SIGNING_KEY.encode(), call.body, hashlib.sha256).hexdigest()
    assert desk.receiver.lines == ["one", "two"]
    view = await desk.view()
    assert (view.drain.sent_lines, view.unsent.lines, view.drain.last_sent_at) == (2, 0, START)


async def test_what_may_be_a_credential_is_sealed_and_not_shown(desk):
    drain = await desk.create(headers={"x-token": "t0ken"}, signing_key=SIGNING_KEY)
    shown = f"{drain} {desk.drains.target(drain)} {await desk.view()}"
    for secret in ("t0ken", SIGNING_KEY, "pass", "secret"):
        assert secret not in shown
        assert secret.encode() not in drain.sealed
    assert drain.shown_url == "https://receiver.test/in?..."


async def test_a_crash_before_the_cursor_moves_repeats_and_loses_nothing(desk):
    drain = await desk.create()
    await desk.write("one", "two")
    desk.drain_store.crashes = 1
    with pytest.raises(Unavailable):
        await send_all(desk.at_work(drain))
    assert (await desk.view()).drain.sent_lines == 0
    await desk.write("three")
    await send_all(desk.at_work(drain))
    assert desk.receiver.lines == ["one", "two", "one", "two", "three"]
    assert (await desk.view()).drain.sent_lines == 3


@pytest.mark.parametrize("answer", [Receipt(status=500), Receipt(status=400), Receipt(status=302), OSError("away")])
async def test_what_is_not_taken_is_sent_again_without_end(desk, answer):
    drain = await desk.create()
    work = desk.at_work(drain)
    await desk.write("one")
    desk.receiver.answers = [answer] * 30
    said = "away" if isinstance(answer, OSError) else f"the receiver answered {answer.status}"
    for _ in range(30):
        pause = await send_all(work)
        assert pause is not None
        assert 0 < pause <= RETRIES.longest_seconds
        view = await desk.view()
        assert (view.drain.last_error, view.drain.last_error_at) == (said, desk.clock.time)
        assert view.unsent.lines == 1
        desk.clock.time += timedelta(seconds=pause)
    assert await send_all(work) is None
    assert desk.receiver.lines == ["one"]
    assert (await desk.view()).drain.last_error is None


async def test_new_lines_do_not_shorten_the_pause(desk):
    work = desk.at_work(await desk.create())
    await desk.write("one")
    desk.receiver.answers = [Receipt(status=503, retry_after_seconds=120)]
    assert await send_all(work) == 120
    await desk.write("two")
    desk.clock.time += timedelta(seconds=50)
    assert await work.step() == 70
    assert len(desk.receiver.calls) == 1
    desk.clock.time += timedelta(seconds=70)
    await send_all(work)
    assert desk.receiver.lines == ["one", "two"]


async def test_a_receiver_cannot_ask_for_more_than_an_hour(desk):
    work = desk.at_work(await desk.create())
    await desk.write("one")
    desk.receiver.answers = [Receipt(status=429, retry_after_seconds=10**8)]
    assert await send_all(work) == 3600


async def test_a_receiver_that_takes_less_gets_smaller_batches(desk):
    work = desk.at_work(await desk.create())
    await desk.write(*(f"line {number}" for number in range(1000)))
    desk.receiver.most_bytes = 20_000
    assert await send_all(work) is None
    assert desk.receiver.lines == [f"line {number}" for number in range(1000)]


async def test_filters_choose_by_app_and_level(desk):
    drain = await desk.create(apps=["a"], least_level=LogLevel.WARNING)
    work = desk.at_work(drain)
    await desk.write("info")
    await desk.write("elsewhere", runner="r2", app="b", level=LogLevel.ERROR)
    await desk.write("warning", level=LogLevel.WARNING)
    await desk.write("debug", level=LogLevel.DEBUG)
    await send_all(work)
    await desk.write("error", level=LogLevel.ERROR)
    await send_all(work)
    assert desk.receiver.lines == ["warning", "error"]
    assert (await desk.view()).unsent.lines == 0


async def test_many_lines_that_are_left_out_are_not_read_twice(desk, monkeypatch):
    monkeypatch.setattr("fal_server.services.draining._MOST_SKIPPED", 3)
    drain = await desk.create(least_level=LogLevel.ERROR)
    await desk.write("a", "b")
    await send_all(desk.at_work(drain))
    assert await desk.store.drains.behind(drain) == {"r"}
    await desk.write("c")
    await send_all(desk.at_work(drain))
    assert await desk.store.drains.behind(drain) == frozenset()


async def test_many_runners_get_their_turn(desk):
    work = desk.at_work(await desk.create())
    for number in range(120):
        await desk.write(f"of {number}", runner=f"r{number}")
    await send_all(work)
    assert sorted(desk.receiver.lines) == sorted(f"of {number}" for number in range(120))


async def test_drains_know_nothing_of_one_another(desk):
    first, second = await desk.create("first"), await desk.create("second")
    await desk.write("one")
    desk.receiver.answers = [OSError("away")]
    assert await send_all(desk.at_work(first))
    assert await send_all(desk.at_work(second)) is None
    assert (await desk.view("first")).unsent.lines == 1
    assert (await desk.view("second")).unsent.lines == 0


async def test_what_nobody_foresaw_is_told_and_tried_again(desk):
    work = desk.at_work(await desk.create())
    await desk.write("one")
    desk.receiver.answers = [RuntimeError("odd")]
    assert await send_all(work)
    assert (await desk.view()).drain.last_error == "the lines cannot be sent: RuntimeError"
    desk.clock.time += timedelta(seconds=10)
    await send_all(work)
    assert desk.receiver.lines == ["one"]


async def test_lines_that_may_be_stored_are_looked_for(desk):
    """A failed append may have stored its lines."""
    work = desk.at_work(await desk.create())
    await send_all(work)
    append = desk.store.logs.append

    async def stored_and_failed(entries):
        await append(entries)
        raise Unavailable("the answer was lost")

    desk.store.logs.append = stored_and_failed
    with pytest.raises(Unavailable):
        await desk.write("one")
    await send_all(work)
    assert desk.receiver.lines == ["one"]


async def test_other_accounts_do_not_see_a_drain(desk):
    await desk.create()
    assert await desk.drains.list(OTHER) == []
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: desk.drains.get(OTHER, "d"),
        lambda: desk.drains.delete(OTHER, "d"),
        lambda: desk.drains.pause(OTHER, "d", paused=True),
    ]
    for change in changes:
        with pytest.raises(NotFound, match="fal drains list"):
            await change()
    await desk.drains.create(OTHER, "d", URL)


async def test_nothing_more_is_sent_for_a_deleted_account(desk):
    await desk.create()
    await desk.drains.create(OTHER, "theirs", URL)
    looked = desk.drains.changed.count
    await desk.drains.end_account(LOCAL)
    assert desk.drains.changed.count > looked  # the loop ends the tasks of deleted drains
    assert [drain.account for drain in await desk.drains.every()] == [OTHER.account]


async def test_bounds(desk):
    with pytest.raises(InvalidArgument, match="name"):
        await desk.create("Not a name")
    await desk.create()
    with pytest.raises(AlreadyExists):
        await desk.create()
    for number in range(MOST_DRAINS - 1):
        await desk.create(f"d{number}")
    with pytest.raises(ResourceExhausted):
        await desk.create("one-more")


async def test_what_will_not_arrive_is_said_at_once(platform: Platform) -> None:
    await platform.deploy("a")
    client = HttpOutboundClient(Destinations())
    store, clock = platform.store.drains, platform.clock
    vault, catalog = AesVault(bytes(32)), platform.catalog
    drains = Drains(store, UnsentLines(), vault, clock, client=client, catalog=catalog)
    view = await drains.create(SCOPE, "d", "http://127.0.0.1/in", apps=["a", "b"])
    assert len(view.warnings) == 2
    assert "--webhook-allow" in view.warnings[0]
    assert "no app 'b' yet" in view.warnings[1]
    assert (await drains.get(SCOPE, "d")).warnings == ()
    await client.close()
