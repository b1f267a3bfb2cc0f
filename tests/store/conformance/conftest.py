"""The databases that the conformance suite runs against. A new one is one more entry in FACTORIES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fal_server.store import AesVault, SqlStore, open_store

KEY = bytes(range(32))
Opener = Callable[[], Awaitable[SqlStore]]

# name -> a function from an empty directory to what `open_store` opens: the same database at every call.
FACTORIES: dict[str, Callable[[Path], Path | str | None]] = {
    "file": lambda directory: directory / "store.db",
    "memory": lambda _directory: None,
}


@pytest.fixture(params=FACTORIES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str | None:
    """What `open_store` opens."""
    return FACTORIES[request.param](tmp_path)


@pytest.fixture
async def store(target: Path | str | None) -> AsyncIterator[SqlStore]:
    opened = await open_store(target, AesVault(KEY))
    yield opened
    await opened.close()


@pytest.fixture
async def beside(target: Path | str | None, store: SqlStore) -> AsyncIterator[SqlStore]:
    """Another store on the database of `store`; the same one where the database is private to it."""
    if target is None:
        yield store
        return
    opened = await open_store(target, AesVault(KEY))
    yield opened
    await opened.close()


@pytest.fixture(params=[name for name in FACTORIES if name != "memory"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens a durable database anew at each call, as after a restart."""
    opened: list[SqlStore] = []

    async def again() -> SqlStore:
        if opened:
            await opened.pop().close()
        opened.append(await open_store(FACTORIES[request.param](tmp_path), AesVault(KEY)))
        return opened[-1]

    yield again
    for store in opened:
        await store.close()
