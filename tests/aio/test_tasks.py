"""Background tasks are kept until they end. Their failures are reported once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fal_server.aio.retry import until_stored
from fal_server.aio.tasks import TaskSet, run_to_completion
from fal_server.core.faults import Unavailable

HANG_SECONDS = 20
log = logging.getLogger(__name__)


async def _fail() -> None:
    raise RuntimeError("poison")


async def test_a_failed_task_is_reported_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    tasks = TaskSet(log)
    tasks.spawn(_fail(), name="the check of x")
    assert len(tasks) == 1
    await tasks.wait()
    assert len(tasks) == 0
    [record] = caplog.records
    assert record.getMessage() == "the check of x failed"
    assert record.exc_info is not None


async def test_waiting_includes_tasks_that_tasks_add() -> None:
    tasks, ended = TaskSet(log), []

    async def second() -> None:
        await asyncio.sleep(0)
        ended.append("second")

    async def first() -> None:
        tasks.spawn(second())

    tasks.spawn(first())
    async with asyncio.timeout(HANG_SECONDS):
        await tasks.wait()
    assert ended == ["second"]


async def test_closing_cancels(caplog: pytest.LogCaptureFixture) -> None:
    tasks = TaskSet(log)
    task = tasks.spawn(asyncio.Event().wait())
    async with asyncio.timeout(HANG_SECONDS):
        await tasks.close()
    assert task.cancelled()
    assert not caplog.records


async def test_work_is_completed_though_its_caller_is_cancelled() -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    caller = asyncio.create_task(run_to_completion(work()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()
    go_on.set()
    async with asyncio.timeout(HANG_SECONDS):
        await done.wait()


async def test_a_write_is_repeated_until_it_is_stored_or_the_end_has_come() -> None:
    failures = [Unavailable("the disk is full")]
    stopping = asyncio.Event()

    async def write() -> str:
        if failures:
            raise failures.pop()
        return "stored"

    async def never() -> str:
        stopping.set()
        raise Unavailable("the disk is full")

    async with asyncio.timeout(HANG_SECONDS):
        assert await until_stored("it", write) == "stored"
        assert await until_stored("it", never, stopping=stopping) is None


async def test_an_unforeseen_error_of_a_write_is_raised_or_said_before_the_next_try() -> None:
    failures: list[Exception] = [RuntimeError("nobody foresaw this")] * 2
    said: list[int] = []

    async def write() -> str:
        if failures:
            raise failures.pop()
        return "stored"

    with pytest.raises(RuntimeError, match="nobody foresaw"):
        await until_stored("it", write)
    async with asyncio.timeout(HANG_SECONDS):
        assert await until_stored("it", write, unforeseen=lambda: said.append(len(failures))) == "stored"
    assert said == [0]
