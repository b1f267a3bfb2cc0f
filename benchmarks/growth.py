"""Measure what grows with apps, runners, waiting requests, followers and log lines.

The store is a SQLite file, and everything above it is real. The table has the CPU time of each operation, how it grows,
and the longest time for which the event loop was blocked. `make bench-growth` writes it into
docs/explanation/performance/growth.md, with a plot.
"""

from __future__ import annotations

import asyncio
import os
import platform as machine
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks import _growth_page
from benchmarks._growth_page import Measured
from benchmarks.routing import place
from fal_grpc.v1.app_pb2 import ListAliasesRequest
from fal_grpc.v1.runner_pb2 import ListRunnersRequest, ListRunnersResponse, WatchRunnersRequest
from fal_server.composition.gc_tuning import freeze_startup_objects
from fal_server.core.identity import LOCAL, Principal
from fal_server.core.logs import LogEntry, LogLevel, LogQuery, LogSource
from fal_server.core.machines import MachineTypes
from fal_server.core.runners import RunnerState
from fal_server.grpc.apps import AppHandlers
from fal_server.grpc.caller import Caller
from fal_server.grpc.runners import RunnerHandlers, runner_info
from fal_server.live.runner_view import RunnerView
from fal_server.services.logs import MOST_FOLLOWERS, READS_AT_ONCE
from fal_server.services.nodes import Nodes
from fal_server.services.runners import MOST_ON_A_PAGE
from fal_server.store import AesVault, open_store
from tests.fakes.domain import SCOPE, app_id, make_app, make_runner
from tests.fakes.platform import KEY, Platform
from tests.fakes.queueing import Queueing

COUNTS = (10, 100, 1_000, 10_000)
FULL_COUNTS = (*COUNTS, 100_000)
MOST_LIVING = 10_000
# The least of as many runs: what takes microseconds needs several, and what takes seconds would take minutes.
_RUNS = {10: 3, 100: 3, 1_000: 2}
_TOGETHER = 1_000
_REPEATS = 50
_TURN_SECONDS = 0.0005
_LINES_FOLLOWED = 20
_FOLLOWED = "3f0c1c52-7d8e-4d52-9f2e-000000000009"


@asynccontextmanager
async def holds() -> AsyncGenerator[list[float]]:
    """Collect the event loop's CPU times between two turns, in milliseconds."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(_TURN_SECONDS)  # not 0, because a spinning loop uses CPU time while it waits
            found.append((time.thread_time() - before) * 1000)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(_TURN_SECONDS)
    try:
        yield found
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def measured(work: Callable[[], Awaitable[int]], expected: int, *, times: int = 1) -> Measured:
    """Measure the work, which returns how many items it handled.

    Args:
        times: how often the work does the operation whose time is wanted.
    """
    freeze_startup_objects()  # as the controller does after loading its state
    async with holds() as found:
        started = time.process_time()
        done = await work()
        seconds = time.process_time() - started
        await asyncio.sleep(_TURN_SECONDS)  # ends the turn in which the work ended
    assert done == expected, (done, expected)
    return Measured(seconds=seconds / times, held_milliseconds=max(found))


async def _accept() -> None:
    """Ignore the metadata: the call is not a stream."""


async def list_runners(platform: Platform, count: int) -> dict[str, Measured]:
    """List ended runners at once as published clients do, and in pages."""
    since = platform.clock.now() - timedelta(hours=20)
    ended = replace(make_runner(), state=RunnerState.TERMINATED)
    for first in range(0, count, _TOGETHER):
        times = [(n, since + timedelta(seconds=n / 2)) for n in range(first, min(count, first + _TOGETHER))]
        await platform.store.save_runners(
            [replace(ended, runner_id=f"r{n:06}", created_at=at, ended_at=at) for n, at in times]
        )

    async def shown(views: list[RunnerView]) -> int:
        for number, view in enumerate(views):
            runner_info(view, {}).SerializeToString()
            if not number % 200:
                await asyncio.sleep(0)
        return len(views)

    async def at_once() -> int:
        request = ListRunnersRequest(list_pending=True)
        request.start_time.FromDatetime(since)
        principal = Principal(scope=SCOPE, key_id="bench")
        caller = Caller(principal=principal, request_id="bench", accept=_accept)
        handlers = RunnerHandlers(platform.runners, Nodes(platform.fleet, platform.engine.nodes, MachineTypes()))
        answer = await handlers.list_runners(request, caller)
        # In a thread, because a client parses it: that holds no event loop of a controller.
        return await asyncio.to_thread(lambda: len(ListRunnersResponse.FromString(answer).runners))

    async def in_pages() -> int:
        token, done = "", 0
        while True:
            page = await platform.runners.page(
                SCOPE, None, "", since=since, include_pending=True, size=MOST_ON_A_PAGE, token=token
            )
            done += await shown(list(page.views))
            token = page.next_token
            if not token:
                return done

    return {
        "ended runners listed at once": await measured(at_once, count),
        "ended runners listed in pages": await measured(in_pages, count),
    }


async def list_living(directory: Path, count: int) -> dict[str, Measured]:
    """List and watch apps, and plan for them. Each has one ready runner."""
    store = await open_store(directory / f"living-{count}.db", AesVault(KEY))
    platform = Platform(store, directory / f"living-{count}")
    try:
        return await _living(platform, count)
    finally:
        await platform.dispatcher.close()
        await store.close()


async def _living(platform: Platform, count: int) -> dict[str, Measured]:
    revision = (await platform.deploy("a00000", scaling={"min_concurrency": 1})).revision_id
    for number in range(1, count):
        await platform.store.save_app(make_app(f"a{number:05}", revision, min_concurrency=1))
    await platform.catalog.load()
    runners = [
        make_runner(f"x{n:05}", RunnerState.IDLE, revision_id=revision, app_name=f"a{n:05}", port=n)
        for n in range(count)
    ]
    await platform.fleet.add(runners)
    caller = Caller(principal=Principal(scope=SCOPE, key_id="bench"), request_id="bench", accept=_accept)
    handlers = RunnerHandlers(platform.runners, Nodes(platform.fleet, platform.engine.nodes, MachineTypes()))
    apps = AppHandlers(platform.apps, platform.explainer)

    async def runners_listed() -> int:
        answer = await handlers.list_runners(ListRunnersRequest(list_pending=True), caller)
        return len(answer) and count

    async def apps_listed() -> int:
        return len(await apps.list_aliases(ListAliasesRequest(), caller)) and count

    async def runners_watched() -> int:
        seen = 0
        async with aclosing(handlers.watch_runners(WatchRunnersRequest(), caller)) as messages:
            async for message in messages:
                seen += len(message.runners)
                message.SerializeToString()
                await asyncio.sleep(0)  # for gRPC to send it
                if message.version:
                    return seen
        return seen

    async def planned() -> int:
        await platform.reconciler.planned()
        return count

    found = {
        "runners listed": await measured(runners_listed, count),
        "runners watched": await measured(runners_watched, count),
        "apps listed": await measured(apps_listed, count),
        "first plan": await measured(planned, count),
    }
    return found | {"plan at rest": await measured(planned, count)}


async def choose_runner(directory: Path, count: int) -> dict[str, Measured]:
    """Give a request one of an app's runners, and take it back. Half of the runners are busy."""
    store = await open_store(directory / f"one-{count}.db", AesVault(KEY))
    platform = Platform(store, directory / f"one-{count}")
    try:
        scaling = {"max_concurrency": max(COUNTS), "max_multiplexing": 2}
        revision = (await platform.deploy("a", scaling=scaling)).revision_id
        idle = [make_runner(f"x{n:05}", RunnerState.IDLE, revision_id=revision, port=1000) for n in range(count)]
        await platform.fleet.add(idle)
        for _ in range(count // 2):
            place(platform)

        async def slots() -> int:
            for _ in range(_REPEATS):
                place(platform)()
            return count

        return {"a request's runner, of one app's": await measured(slots, count, times=_REPEATS)}
    finally:
        await platform.dispatcher.close()
        await store.close()


async def follow_lines(platform: Platform, count: int) -> dict[str, Measured]:
    """Print lines that all followers of an app get."""
    query = LogQuery(app_name="a")

    async def follow(opened: asyncio.Event) -> int:
        seen = 0
        async with aclosing(platform.logs.follow(SCOPE, query, from_now=True)) as batches:
            async for batch in batches:
                opened.set()
                seen += len(batch.entries)
                if seen == _LINES_FOLLOWED:
                    return seen
        return seen

    opened = [asyncio.Event() for _ in range(count)]
    followers = [asyncio.create_task(follow(one)) for one in opened]
    for one in opened:
        await one.wait()

    async def printed() -> int:
        for number in range(_LINES_FOLLOWED):
            line = replace(_line(1, platform.clock.now()), runner_id=_FOLLOWED, sequence=number + 1)
            await platform.logs.ingest([line])
        return sum(await asyncio.gather(*followers)) // _LINES_FOLLOWED

    return {"a line, to each follower": await measured(printed, count, times=_LINES_FOLLOWED)}


async def wait_in_queue(platform: Platform, count: int, path: Path) -> dict[str, Measured]:
    """Load waiting requests, accept others behind them, and cancel all."""
    queueing = Queueing(platform, await platform.store.webhook_signer())
    await queueing.submit()
    with closing(sqlite3.connect(path)) as database, database:  # adding thousands one by one would take minutes
        columns = [str(row[1]) for row in database.execute("pragma table_info(requests)")]
        copied = ", ".join("printf('q%06d', n)" if column == "request_id" else column for column in columns)
        numbers = "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < ?)"
        database.execute(f"{numbers} insert into requests select {copied} from requests, numbers", (count - 1,))
    queueing = Queueing(platform, await platform.store.webhook_signer())
    queueing.quotas = replace(queueing.quotas, queued_requests=0)  # which bounds nothing

    async def loaded() -> int:
        await queueing.queue.load()
        return count

    async def accepted() -> int:
        for _ in range(_REPEATS):
            await queueing.submit()
        return count

    return {
        "waiting requests loaded at a start": await measured(loaded, count),
        "one more request accepted": await measured(accepted, count, times=_REPEATS),
        "waiting requests flushed": await measured(lambda: queueing.queue.flush(app_id("a")), count + _REPEATS),
    }


def _line(number: int, at: datetime) -> LogEntry:
    return LogEntry(
        account=LOCAL,
        runner_id=f"3f0c1c52-7d8e-4d52-9f2e-{number % 4:012}",
        sequence=number // 4 + 1,
        timestamp=at + timedelta(milliseconds=number),
        level=LogLevel.INFO,
        source=LogSource.STDOUT,
        message=f"{number:0100}",
        app_name="a",
        revision_id="8a1f2f0e-6f7b-4b30-a9e8-5a4f6f0f6a11",
    )


async def read_lines(platform: Platform, count: int) -> dict[str, Measured]:
    """Store lines and read the newest ones. Search all for a text that none has."""
    begin = platform.clock.now() - timedelta(hours=1)

    async def stored() -> int:
        for first in range(1, count + 1, _TOGETHER):
            lines = [_line(number, begin) for number in range(first, min(count + 1, first + _TOGETHER))]
            await platform.store.logs.append(lines)
        return count

    async def newest() -> int:
        for _ in range(_REPEATS):
            page = await platform.logs.page(SCOPE, LogQuery(app_name="a", newest_first=True, limit=10))
            assert len(page.entries) == 10
        return count

    async def search() -> int:
        query = LogQuery(app_name="a", search="needle", newest_first=True, reads=READS_AT_ONCE)
        while True:
            page = await platform.logs.page(SCOPE, query)
            assert not page.entries
            if not page.more:
                return count
            query = replace(query, after=page.cursor)

    async def seal() -> int:
        await platform.store.logs.seal(platform.clock.now(), count)
        return count

    return {
        "lines stored": await measured(stored, count),
        "lines sealed": await measured(seal, count),
        "the newest ten lines": await measured(newest, count, times=_REPEATS),
        "lines searched": await measured(search, count),
    }


async def measure(directory: Path, count: int) -> dict[str, Measured]:
    """Return the figures for one count."""
    store = await open_store(directory / f"{count}.db", AesVault(KEY))
    platform = Platform(store, directory / str(count))
    try:
        await platform.deploy("a")
        found = await list_runners(platform, count)
        found |= await wait_in_queue(platform, count, directory / f"{count}.db")
        found |= await read_lines(platform, count)
        if count <= MOST_FOLLOWERS:
            found |= await follow_lines(platform, count)
        if count > MOST_LIVING:
            return found
        return found | await list_living(directory, count) | await choose_runner(directory, count)
    finally:
        await platform.dispatcher.close()
        await store.close()


def least(count: int) -> dict[str, Measured]:
    """Return the figures for one count. Each is of the run in which it took the least time."""
    memory = Path("/dev/shm")  # leaves out the cost of durable writes
    found: dict[str, list[Measured]] = {}
    for _ in range(_RUNS.get(count, 1)):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
            for name, one in asyncio.run(measure(Path(directory), count)).items():
                found.setdefault(name, []).append(one)
    return {name: min(each, key=lambda one: one.seconds) for name, each in found.items()}


def _about() -> str:
    return (
        f"CPython {machine.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.0f} from other "
        "work; CPU time, the least of three runs of ten and of a hundred, of two of a thousand, and of one of more."
    )


def main() -> None:
    """Measure, up to 100,000, and print the table."""
    print(_growth_page.table({count: least(count) for count in FULL_COUNTS}), _about(), sep="\n\n")


def write() -> None:
    """Measure, and put the table and the plot into the page."""
    found = {count: least(count) for count in COUNTS}
    print(_growth_page.write(found, _about()))


if __name__ == "__main__":
    write() if "write" in sys.argv[1:] else main()
