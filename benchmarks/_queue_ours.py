"""This project's side of `queue_peers`: queue and store on PostgreSQL. Its runner answers at once."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from benchmarks._queue_load import BODY, CONCURRENCY, measured
from fal_server.core.identity import LOCAL
from fal_server.services.environments import Environments
from fal_server.store import AesVault, open_store
from tests.fakes.platform import KEY, Platform, running
from tests.fakes.queueing import Queueing, queueing


async def run(url: str, jobs: int, at_once: int) -> None:
    """Measure on a database."""
    store = await open_store(url, AesVault(KEY))
    try:
        with tempfile.TemporaryDirectory() as directory:
            platform = Platform(store, Path(directory))
            await Environments(store, platform.clock).bootstrap(LOCAL)
            async with running(platform):
                scaling = {"max_concurrency": 1, "min_concurrency": 1, "max_multiplexing": CONCURRENCY}
                await platform.deploy("a", scaling=scaling)
                async with queueing(platform) as q:
                    await measured(lambda: _submit(q), jobs=jobs, at_once=at_once)
    finally:
        await store.close()


async def _submit(q: Queueing) -> asyncio.Event:
    request_id = await q.submit(body=BODY.encode())
    live = q.backlog.get(request_id)
    if live is not None:
        return live.finished
    ended = asyncio.Event()
    ended.set()
    return ended


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
