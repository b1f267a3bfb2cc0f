"""A backup is a directory that a controller can start from. It is complete or absent."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from fal_server.composition.backup import back_up
from fal_server.composition.identity import claim_directory
from fal_server.composition.state import StateDir
from fal_server.core.faults import AlreadyExists, NotFound, Unavailable
from fal_server.core.identity import LOCAL
from fal_server.store import AesVault, open_store
from tests.store import strategies as some

VAULT = AesVault(bytes(range(32)))


@pytest.fixture
async def state(tmp_path):
    """Return a state directory with a key, code, files, data, and secrets. It has files that are not backed up, too."""
    state = StateDir(tmp_path / "state")
    store = await open_store(state.database, VAULT)
    await store.add_key(some.key("k"))
    with state.held():
        claim_directory(state, adopt_copy=False)
    for name in ("blobs/ab/code", "app-files/f", "objects/o/content", "accounts/a1/app-files/g", "data/d/model"):
        path = state.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    for name in ("master.key", "admin.key", "environments/e/python", "cache/uv/wheel"):
        path = state.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the key itself")
        path.chmod(0o600)
    yield state
    await store.close()


def everything(root):
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("fal.db-")
    }


def make(state, target, **more):
    return back_up(state.root, target, **{"database": None, "data": False, "keys": False} | more)


CONTENT = {"fal.db", "directory.json", "blobs/ab/code", "app-files/f", "objects/o/content", "accounts/a1/app-files/g"}


async def in_thread(*arguments, **more):
    """Back up as a command does, without a running event loop."""
    import asyncio

    return await asyncio.to_thread(make, *arguments, **more)


async def test_what_is_in_it_while_the_store_is_open(state, tmp_path):
    made = await in_thread(state, tmp_path / "backup")
    assert everything(tmp_path / "backup") == CONTENT
    assert set(made.left_out) == {"master.key", "admin.key", "data"}
    assert (made.files, made.bytes) == (
        5,
        sum((tmp_path / "backup" / name).stat().st_size for name in CONTENT - {"fal.db"}),
    )
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "backup" / "fal.db").stat().st_mode) == 0o600
    assert b"the key itself" not in b"".join(
        path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file()
    )


async def test_all_of_it(state, tmp_path):
    made = await in_thread(state, tmp_path / "backup", data=True, keys=True)
    assert everything(tmp_path / "backup") == CONTENT | {"data/d/model", "master.key", "admin.key"}
    assert made.left_out == ()


async def test_a_store_opens_on_it_and_it_is_known_as_a_copy(state, tmp_path):
    await in_thread(state, tmp_path / "backup")
    copy = StateDir(tmp_path / "backup")
    with copy.held():
        with pytest.raises(Unavailable, match="--adopt-copy"):
            claim_directory(copy, adopt_copy=False)
        assert claim_directory(copy, adopt_copy=True)
    store = await open_store(copy.database, VAULT)
    assert await store.get_key(LOCAL, "k") == some.key("k")
    await store.close()


async def test_a_damaged_database_is_no_backup(state, tmp_path):
    with closing(sqlite3.connect(state.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'keys'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with state.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(Unavailable, match=r"malformed|damaged"):
        await in_thread(state, tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


async def test_a_disk_that_takes_no_more_leaves_nothing(state, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(Unavailable, match="backup could not be written: No space left"):
        await in_thread(state, tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


async def test_a_place_that_takes_nothing_is_named(state):
    with pytest.raises(Unavailable, match=r"the backup /proc/x could not be written: No such file"):
        await in_thread(state, Path("/proc/x"))


async def test_what_is_refused(state, tmp_path):
    with pytest.raises(AlreadyExists, match="exists already"):
        await in_thread(state, tmp_path)
    with pytest.raises(Unavailable, match="in the state directory"):
        await in_thread(state, state.root / "backup")
    with pytest.raises(NotFound, match="--state-dir"):
        back_up(tmp_path / "none", tmp_path / "b", database=None, data=False, keys=False)
    assert not (tmp_path / "none").exists()


async def test_what_a_broken_off_one_left_is_removed(state, tmp_path):
    left = tmp_path / "backup.unfinished"
    left.mkdir()
    (left / "fal.db").write_text("half")
    await in_thread(state, tmp_path / "backup")
    assert not left.exists()
