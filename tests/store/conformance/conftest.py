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
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = await open_store(FACTORIES[request.param](tmp_path), AesVault(KEY))
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
