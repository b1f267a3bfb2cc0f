"""Backs up a state directory. A controller can start from the backup."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fal_server.composition.state import CONTENT, CONTENT_LINK, StateDir
from fal_server.core.faults import AlreadyExists, Fault, NotFound, Unavailable
from fal_server.store.files.durable import sync_directory
from fal_server.store.sql.copying import CopyProgress, back_up_file, copy_database

_SECRETS = ("master.key", "admin.key", "tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """The content of a backup.

    Attributes:
        files, bytes: of the content besides the database.
        left_out: excluded secrets and data, by their paths in the state directory.
    """

    files: int
    bytes: int
    left_out: tuple[str, ...]


def back_up(
    state_dir: Path,
    target: Path,
    *,
    database: str | None,
    data: bool,
    keys: bool,
    report: Callable[[str], None] | None = None,
) -> Backup:
    """Copy the database, then the code and files that it names. A controller may run meanwhile.

    Content is only deleted after it has been unused for days, so the copies are consistent.

    Args:
        target: a directory that does not exist; it appears when it is complete.
        database: a PostgreSQL database's URL; None for the SQLite file of the directory.
        data: whether to copy runners' /data.
        keys: whether to copy the master key, the administrator's key and the TLS CA.
        report: called with the current step.

    Raises:
        NotFound: the state directory has no database.
        AlreadyExists: the target exists.
        Unavailable: something cannot be read or written; the target does not exist then.
    """
    tell = report or _tell_nobody
    root, target = state_dir.expanduser().absolute(), target.expanduser().absolute()
    if not (root / "controller.lock").exists() or not (database or (root / "fal.db").exists()):
        raise NotFound(
            f"a database in {root}",
            "--state-dir names the directory of the controller; for one on PostgreSQL give --database or "
            "FAL_DATABASE_URL, too",
        )
    if target.exists():
        raise AlreadyExists(f"{target} exists already: give a directory that does not, such as one with the date")
    if target.is_relative_to(root):
        raise Unavailable(f"{target} is in the state directory: a backup belongs onto another disk")
    draft = target.with_name(f"{target.name}.unfinished")
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of an interrupted backup
        draft.mkdir(mode=0o700, parents=True)
        made = StateDir(draft)
        tell("the database")
        asyncio.run(_copy_database(root / "fal.db", database, made.database, tell))
        counts = [_copy(source, draft / name, tell) for source, name in _parts(root, data=data, keys=keys)]
        os.sync()
        draft.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise Unavailable(
            f"the backup {target} could not be written: {error.strerror or error}; give a place with room that you may "
            "write to"
        ) from error
    except (Fault, shutil.Error):
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Backup(
        files=sum(files for files, _ in counts),
        bytes=sum(size for _, size in counts),
        left_out=tuple(_left_out(root, data=data, keys=keys)),
    )


def _tell_nobody(_: str) -> None:
    pass


async def _copy_database(file: Path, url: str | None, target: Path, tell: Callable[[str], None]) -> None:
    def show(progress: CopyProgress) -> None:
        tell(f"{progress.table}, {progress.rows:,} of {progress.total:,} rows")

    if url is None:
        await back_up_file(file, target)
    else:
        await copy_database(url, target, snapshot=True, report=show)


def _parts(root: Path, *, data: bool, keys: bool) -> Iterator[tuple[Path, str]]:
    """Yield what to copy besides the database, with its target path. `directory.json` identifies the copy as one."""
    content = root / CONTENT_LINK if (root / CONTENT_LINK).is_dir() else root
    for name in (*CONTENT, *(f"accounts/{account}/app-files" for account in _accounts(content))):
        yield content / name, name
    for name in ("directory.json", *(_data(root) if data else ()), *(_SECRETS if keys else ())):
        yield root / name, name


def _left_out(root: Path, *, data: bool, keys: bool) -> Iterator[str]:
    names = [*(() if keys else _SECRETS), *(() if data else _data(root))]
    return (name for name in names if (root / name).exists())


def _data(root: Path) -> Iterator[str]:
    yield "data"
    yield from (f"accounts/{account}/data" for account in _accounts(root))


def _accounts(root: Path) -> list[str]:
    place = root / "accounts"
    return sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []


def _copy(source: Path, target: Path, tell: Callable[[str], None]) -> tuple[int, int]:
    """Copy a file or a directory. Return the number of files and bytes. Files that vanish meanwhile were unneeded."""
    tell(source.name)
    files = size = 0
    for path in [source, *(source.rglob("*") if source.is_dir() else ())]:
        copy = target / path.relative_to(source)
        try:
            if path.is_symlink():
                copy.symlink_to(path.readlink())
            elif path.is_dir():
                copy.mkdir(parents=True, exist_ok=True)
                shutil.copystat(path, copy)
            elif path.is_file():  # sockets and pipes in /data are not kept
                shutil.copy2(path, copy)
                files, size = files + 1, size + copy.stat().st_size
        except FileNotFoundError:
            if path.exists():
                raise
    return files, size
