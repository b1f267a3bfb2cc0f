"""Measure operations on 1 to 100 thousand items: lists, watches, flushed queues, searched logs.

The store is a SQLite file, and everything above it is real. The table has the time of each operation, the time of an
item relative to the smallest count, and the longest time for which the event loop was blocked.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

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
from fal_server.services.logs import READS_AT_ONCE
from fal_server.services.nodes import Nodes
from fal_server.services.runners import MOST_ON_A_PAGE
from fal_server.store import AesVault, open_store
from tests.fakes.domain import SCOPE, app_id, make_app, make_runner
from tests.fakes.platform import KEY, Platform
from tests.fakes.queueing import Queueing

COUNTS = (1_000, 10_000, 100_000)
MOST_LIVING = 10_000
MOST_HELD_MILLISECONDS = 50.0
_TOGETHER = 1_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How long an operation took, and the longest time for which it blocked the event loop."""

    seconds: float
    held_milliseconds: float


@asynccontextmanager
async def holds() -> AsyncGenerator[list[float]]:
    """Collect the CPU times of the event loop's iterations, in milliseconds."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            found.append((time.thread_time() - before) * 1000)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def measured(work: Callable[[], Awaitable[int]], expected: int) -> Measured:
    """Measure the work, which returns how many items it handled."""
    freeze_startup_objects()  # as the controller does after loading its state
    async with holds() as found:
        started = time.process_time()
        done = await work()
        seconds = time.process_time() - started
        await asyncio.sleep(0)  # ends the iteration in which the work ended
    assert done == expected, (done, expected)
    return Measured(seconds=seconds, held_milliseconds=max(found))


async def _accept() -> None:
    """Ignore the metadata: the call is not a stream."""


async def list_runners(platform: Platform, count: int) -> dict[str, Measured]:
    """List ended runners, all at once as published clients do, and in pages."""
    since = platform.clock.now() - timedelta(hours=20)
    ended = replace(make_runner(), state=RunnerState.TERMINATED)
    for first in range(0, count, _TOGETHER):
        times = [(n, since + timedelta(seconds=n / 2)) for n in range(first, min(count, first + _TOGETHER))]
        await platform.store.save_runners(
            [replace(ended, runner_id=f"r{n:06}", created_at=at, ended_at=at) for n, at in times]
        )

    async def shown(views: list[RunnerView]) -> int:
        for number, view in enumerate(views):
            runner_info(view).SerializeToString()
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
        "runners listed at once": await measured(at_once, count),
        "runners listed in pages": await measured(in_pages, count),
    }


async def list_living(directory: Path, count: int) -> dict[str, Measured]:
    """List and watch apps, each with one ready runner, and plan for them."""
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
        "living runners listed": await measured(runners_listed, count),
        "living runners watched": await measured(runners_watched, count),
        "apps listed": await measured(apps_listed, count),
        "first plan": await measured(planned, count),
    }
    return found | {"plan at rest": await measured(planned, count)}


async def flush_requests(platform: Platform, count: int, path: Path) -> dict[str, Measured]:
    """Cancel waiting requests."""
    queueing = Queueing(platform, await platform.store.webhook_signer())
    await queueing.submit()
    with closing(sqlite3.connect(path)) as database, database:  # adding thousands one by one would take minutes
        columns = [str(row[1]) for row in database.execute("pragma table_info(requests)")]
        copied = ", ".join("printf('q%06d', n)" if column == "request_id" else column for column in columns)
        numbers = "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < ?)"
        database.execute(f"{numbers} insert into requests select {copied} from requests, numbers", (count - 1,))
    queueing = Queueing(platform, await platform.store.webhook_signer())
    await queueing.queue.load()
    return {"waiting requests flushed": await measured(lambda: queueing.queue.flush(app_id("a")), count)}


async def search_lines(platform: Platform, count: int) -> dict[str, Measured]:
    """Search for a text that no line has, step by step."""
    now = platform.clock.now()
    for first in range(1, count + 1, _TOGETHER):
        await platform.store.logs.append(
            [
                LogEntry(
                    account=LOCAL,
                    runner_id=f"3f0c1c52-7d8e-4d52-9f2e-{number % 4:012}",
                    sequence=number // 4 + 1,
                    timestamp=now + timedelta(milliseconds=number),
                    level=LogLevel.INFO,
                    source=LogSource.STDOUT,
                    message=f"{number:0100}",
                    app_name="a",
                    revision_id="8a1f2f0e-6f7b-4b30-a9e8-5a4f6f0f6a11",
                )
                for number in range(first, min(count + 1, first + _TOGETHER))
            ]
        )

    async def search() -> int:
        query = LogQuery(app_name="a", search="needle", newest_first=True, reads=READS_AT_ONCE)
        while True:
            page = await platform.logs.page(SCOPE, query)
            assert not page.entries
            if not page.more:
                return count
            query = replace(query, after=page.cursor)

    return {"log lines searched": await measured(search, count)}


async def measure(directory: Path, count: int) -> dict[str, Measured]:
    """Return the figures for one count."""
    store = await open_store(directory / f"{count}.db", AesVault(KEY))
    platform = Platform(store, directory / str(count))
    try:
        await platform.deploy("a")
        found = await list_runners(platform, count)
        found |= await flush_requests(platform, count, directory / f"{count}.db")
        found |= await search_lines(platform, count)
        return found | (await list_living(directory, count) if count <= MOST_LIVING else {})
    finally:
        await platform.dispatcher.close()
        await store.close()


def main() -> None:
    """Print the table."""
    memory = Path("/dev/shm")  # leaves out the cost of durable writes
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        found = {count: asyncio.run(measure(Path(directory), count)) for count in COUNTS}
    print(f"{'':28}" + "".join(f"{count:>26,}" for count in COUNTS))
    for name, least in found[COUNTS[0]].items():
        cells: list[str] = []
        for count in COUNTS:
            if (one := found[count].get(name)) is None:
                continue
            ratio = (one.seconds / count) / (least.seconds / COUNTS[0])
            cells.append(f"{one.seconds:8.2f} s {ratio:5.2f}x {one.held_milliseconds:5.1f} ms")
        most = max(one.held_milliseconds for of_count in found.values() if (one := of_count.get(name)) is not None)
        print(
            f"{name:28}"
            + "".join(f"{cell:>26}" for cell in cells)
            + ("" if most < MOST_HELD_MILLISECONDS else "  HELD")
        )
    print("seconds of CPU; the cost of one item beside the smallest count's; the longest hold of the event loop")


if __name__ == "__main__":
    main()
