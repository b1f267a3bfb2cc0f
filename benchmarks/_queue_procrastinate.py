"""procrastinate's side of `queue_peers`, in an environment without this project."""

# The type checkers' environment does not have procrastinate.
# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportFunctionMemberAccess=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import procrastinate
from procrastinate import jobs as procrastinate_jobs
from procrastinate.exceptions import AlreadyEnqueued

from benchmarks._queue_load import BODY, CONCURRENCY, CONNECTIONS, JOB_SECONDS, SLOTS, measured

# Shorter than its defaults (10 s and 30 s), so that a short run shows what becomes of the jobs of dead workers.
_HEARTBEAT, _STALLED = 1.0, 3.0
_PRODUCERS, _PAUSE = 4, 0.1


def opened(url: str) -> procrastinate.App:
    """Return an app on a database."""
    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=CONNECTIONS, max_size=CONNECTIONS)
    return procrastinate.App(connector=connector)


async def make(url: str) -> None:
    """Create its tables."""
    async with opened(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def rate(url: str, jobs: int, at_once: int) -> None:
    """Measure with producers and a worker in one process. The other side does so, too."""
    async with opened(url).open_async() as app:

        @app.task(name="job")  # type: ignore[untyped-decorator]
        async def job(body: str) -> None:
            """Do nothing, as the other side's runner."""

        ended: dict[int, asyncio.Event] = {}
        finish = app.job_manager.finish_job

        async def finished(job: procrastinate_jobs.Job, status: procrastinate_jobs.Status, *, delete_job: bool) -> None:
            await finish(job=job, status=status, delete_job=delete_job)
            assert job.id is not None
            ended.setdefault(job.id, asyncio.Event()).set()

        app.job_manager.finish_job = finished

        async def submit() -> asyncio.Event:
            return ended.setdefault(await job.defer_async(body=BODY), asyncio.Event())

        worker = asyncio.create_task(app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False))
        await measured(submit, jobs=jobs, at_once=at_once)
        worker.cancel()
        await asyncio.wait({worker})


def _task_of(app: procrastinate.App, ledger: str) -> Callable[..., Awaitable[object]]:
    """Declare the task of the faults; return its submit function."""

    @app.task(name="note")  # type: ignore[untyped-decorator]
    async def note(number: int) -> None:
        await asyncio.sleep(JOB_SECONDS)
        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{number}\n".encode())
        os.close(descriptor)

    async def submit(number: int) -> None:
        # The nearest to an idempotency key; it is valid while the job waits.
        await note.configure(queueing_lock=str(number)).defer_async(number=number)

    return submit


async def work(url: str, ledger: str) -> None:
    """Run a worker with the documented task for dead workers' jobs."""
    async with opened(url).open_async() as app:
        _task_of(app, ledger)

        @app.periodic(cron="* * * * * */2")  # type: ignore[untyped-decorator]
        @app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)  # type: ignore[untyped-decorator]
        async def retry_stalled(context: procrastinate.JobContext, timestamp: int) -> None:
            for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=_STALLED):
                await app.job_manager.retry_job(job)

        await app.run_worker_async(
            concurrency=SLOTS, update_heartbeat_interval=_HEARTBEAT, stalled_worker_timeout=_STALLED
        )


async def produce(url: str, first: int) -> None:
    """Submit jobs from a number on until standard input ends. Print the number of each accepted one."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with opened(url).open_async() as app:
        submit = _task_of(app, os.devnull)

        async def loop(number: int) -> None:
            while not ended.is_set():
                while True:
                    try:
                        await submit(number)
                    except AlreadyEnqueued:
                        break
                    except Exception as error:  # noqa: BLE001 - whatever it is, the job is handed in again
                        print(f"{time.time()} {error!r}", file=sys.stderr)
                        if ended.is_set():
                            return
                        await asyncio.sleep(_PAUSE)
                    else:
                        break
                print(number, flush=True)
                number += _PRODUCERS
                await asyncio.sleep(_PAUSE)

        await asyncio.gather(*(loop(first + turn) for turn in range(_PRODUCERS)))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    what, url, *rest = *sys.argv[1:], ""
    match what:
        case "versions":
            print(", ".join(f"{name} {version(name)}" for name in ("procrastinate", "psycopg")))
        case "make":
            asyncio.run(make(url))
        case "rate":
            asyncio.run(rate(url, int(rest[0]), int(rest[1])))
        case "work":
            asyncio.run(work(url, rest[0]))
        case _:
            asyncio.run(produce(url, int(rest[0])))
