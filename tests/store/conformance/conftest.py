"""The databases of the conformance suite. A new one is one more case of `target`."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from fal_server.store import AesVault, SqlStore, open_store
from tests.support.postgresql import Postgresql, postgresql

KEY = bytes(range(32))
Opener = Callable[[], Awaitable[SqlStore]]
DURABLE = ["file", "postgresql"]


@pytest.fixture(scope="session")
def server() -> Iterator[Postgresql]:
    """Run a PostgreSQL server for this process's tests. The first test that needs it starts it."""
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as running:
        yield running


def target(kind: str, request: pytest.FixtureRequest, directory: Path) -> Path | str | None:
    """Return the argument of `open_store`, the same database throughout a test."""
    match kind:
        case "file":
            return directory / "store.db"
        case "memory":
            return None
        case _:
            return request.getfixturevalue("server").make(directory.name)


@pytest.fixture(params=["memory", *DURABLE])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str | None:
    """Return a database of each kind."""
    return target(request.param, request, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str | None:
    """Return a database of each kind that outlives a process."""
    return target(request.param, request, tmp_path)


@pytest.fixture
def contents(request: pytest.FixtureRequest, durable: Path | str | None) -> Callable[[], bytes]:
    """Return a durable database's content, as its files or its dump."""
    if isinstance(durable, Path):
        return lambda: b"".join(file.read_bytes() for file in durable.parent.rglob("*") if file.is_file())
    return lambda: request.getfixturevalue("server").dump(make_url(str(durable)).database)


@pytest.fixture
async def store(database: Path | str | None) -> AsyncIterator[SqlStore]:
    opened = await open_store(database, AesVault(KEY))
    yield opened
    await opened.close()


@pytest.fixture
async def beside(database: Path | str | None, store: SqlStore) -> AsyncIterator[SqlStore]:
    """Return another store on the same database. If the database allows one controller, return the same store."""
    if not isinstance(database, Path):
        yield store
        return
    opened = await open_store(database, AesVault(KEY))
    yield opened
    await opened.close()


@pytest.fixture
async def reopen(durable: Path | str | None) -> AsyncIterator[Opener]:
    """Open a durable database again at each call, as after a restart."""
    opened: list[SqlStore] = []

    async def again() -> SqlStore:
        if opened:
            await opened.pop().close()
        opened.append(await open_store(durable, AesVault(KEY)))
        return opened[-1]

    yield again
    for store in opened:
        await store.close()
