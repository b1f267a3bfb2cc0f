"""Moves a state directory's database to PostgreSQL, or from there into it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from fal_server.composition.state import StateDir
from fal_server.core.faults import FailedPrecondition, NotFound
from fal_server.store.files.durable import sync_directory
from fal_server.store.sql.copying import CopyProgress, copy_database

_MOVED = ".moved"
_DRAFT = "fal.db.draft"

Report = Callable[[CopyProgress], None]


def move_out(state_dir: Path, url: str, report: Report) -> tuple[int, Path]:
    """Copy the directory's SQLite file to an empty database. Rename the file, so that no start uses it by mistake.

    Returns:
        The number of rows, and the file's new path.

    Raises:
        NotFound: the directory has no SQLite file.
        FailedPrecondition: a controller runs on the directory or the database, or the database has tables.
        Unavailable: one of the databases cannot be used; nothing was copied.
    """
    path = state_dir.expanduser().absolute() / "fal.db"
    if not path.exists():
        moved = path.with_name(path.name + _MOVED)
        raise NotFound(
            f"the database {path}",
            f"it was copied before, and is {moved} now"
            if moved.exists()
            else "--state-dir names the directory of the controller",
        )
    state = StateDir(state_dir)
    with state.held():
        rows = asyncio.run(copy_database(path, url, report=report))
        moved = _free(path.with_name(path.name + _MOVED))
        path.rename(moved)
        sync_directory(state.root)
        return rows, moved


def move_in(url: str, state_dir: Path, report: Report) -> tuple[int, Path]:
    """Copy a database into a new SQLite file of the directory. The database is unchanged.

    Returns:
        The number of rows, and the file.

    Raises:
        FailedPrecondition: a controller runs on the directory or the database, or the directory has a SQLite file.
        Unavailable: one of the databases cannot be used; nothing was copied.
    """
    with _kept_if_complete(state_dir.expanduser().absolute()):
        state = StateDir(state_dir)
        with state.held():
            if state.database.exists():
                raise FailedPrecondition(f"{state.database} is there already: move it away first")
            draft = state.database.with_name(_DRAFT)
            for ending in ("", "-wal", "-shm"):  # of an interrupted copy
                draft.with_name(draft.name + ending).unlink(missing_ok=True)
            rows = asyncio.run(copy_database(url, draft, report=report))
            draft.rename(state.database)
            sync_directory(state.root)
            return rows, state.database


@contextmanager
def _kept_if_complete(root: Path) -> Generator[None]:
    """Remove a directory that the block makes if the block fails. The parents that it made go too."""
    made = next((path for path in reversed((root, *root.parents)) if not path.exists()), None)
    try:
        yield
    except BaseException:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise


def _free(path: Path) -> Path:
    """Return the path, or a numbered one if the file exists."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found
