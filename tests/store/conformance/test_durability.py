"""Acknowledged writes survive a crash."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from fal_server.core.faults import Fault
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogQuery
from fal_server.store import AesVault, open_store
from tests.store import strategies as some

# Writes forever, and prints the number of each acknowledged write.
WRITER = """
import asyncio, itertools, sys
sys.path.insert(0, sys.argv[2])
from fal_server.store import AesVault, open_store
from tests.store import strategies as some

async def main():
    store = await open_store(sys.argv[1], AesVault(bytes(range(32))))
    for n in itertools.count(1):
        await store.register(some.revision(f"r{n}"), some.app("hello", f"r{n}"))
        await asyncio.gather(*(store.save_runners([some.runner(f"{name}{n}")]) for name in "nm"))
        await store.logs.append([some.line(10 * n + i) for i in range(10)])
        print(n, flush=True)

asyncio.run(main())
"""


async def test_reopening_finds_everything(reopen):
    store = await reopen()
    main = await store.list_environments(LOCAL)
    await store.register(some.revision("r1"), some.app("hello", "r1"))
    await store.logs.append([some.line(1)])
    store = await reopen()
    assert await store.get_revision(LOCAL, "r1") == some.revision("r1")
    assert await store.get_app(LOCAL, "hello") == some.app("hello", "r1")
    assert await store.logs.last_sequence(LOCAL, "a") == 1
    assert await store.list_environments(LOCAL) == main


async def opened(database):
    """Open the database, once the session of a killed writer has ended."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await open_store(database, AesVault(bytes(range(32))))
            except Fault as refused:
                if "another controller uses this database" not in refused.message:
                    raise


@pytest.mark.parametrize("writes", [1, 40])
async def test_killed_writer(durable, writes):
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(durable), str(root), cwd=root, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(writes):
        assert await process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    printed = await process.stdout.read()
    await process.wait()
    acknowledged = max([writes, *(int(number) for number in printed.split())])
    store = await opened(durable)
    try:
        revisions = {revision.revision_id for revision in await store.list_revisions(LOCAL, None, None)}
        assert revisions >= {f"r{n}" for n in range(1, acknowledged + 1)}
        app = await store.get_app(LOCAL, "hello")
        assert app is not None
        assert app.revision_id == f"r{len(revisions)}"
        for n in range(1, acknowledged + 1):
            for name in "nm":
                assert await store.get_runner(LOCAL, f"{name}{n}") == some.runner(f"{name}{n}")
        lines = (await store.logs.page(LOCAL, LogQuery(runner_id="a", limit=10_000))).entries
        assert len(lines) >= 10 * acknowledged
        assert len(lines) % 10 == 0
    finally:
        await store.close()
