"""Code and files: in a directory, or in a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fal_server.composition.state import StateDir
from fal_server.core.faults import NotFound
from fal_server.core.identity import AccountId
from fal_server.ports.content import Blobs, ContentStore
from fal_server.ports.files import ObjectStore
from fal_server.store.files.app_files import AppFilesOfAccounts, DiskAppFiles
from fal_server.store.files.blobs import FileBlobs
from fal_server.store.files.objects import DiskObjects

log = logging.getLogger(__name__)
_SAID_SECONDS = 10.0


class KeptBlobs(Blobs, ContentStore, Protocol):
    """Pickled code, of which retention deletes some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredContent:
    """Where code and files are.

    Attributes:
        blobs: pickled code, by its hash.
        app_files: files deployed with apps, by their hash.
        objects: public files.
        where: the directory or the URL of all of them.
        trouble: returns why they cannot be used now; empty if they can. Blocking.
    """

    blobs: KeptBlobs
    app_files: AppFilesOfAccounts
    objects: ObjectStore
    where: str
    trouble: Callable[[], str]


async def open_content(
    state: StateDir, url: str | None, accounts: Callable[[], Sequence[AccountId]], certain: Callable[[], bool]
) -> StoredContent:
    """Open the content.

    Args:
        certain: returns whether no other controller can have the database.

    Raises:
        Unavailable: a directory cannot be used, or the bucket does not exist or refuses the credentials.
    """
    if url is None:
        return _on_disk(state, accounts)
    return await asyncio.to_thread(_open_bucket, url, state, accounts, certain)


def _on_disk(state: StateDir, accounts: Callable[[], Sequence[AccountId]]) -> StoredContent:
    return StoredContent(
        blobs=FileBlobs(state.blobs),
        app_files=AppFilesOfAccounts(lambda account: DiskAppFiles(state.app_files_of(account)), accounts),
        objects=DiskObjects(state.objects),
        where=str(state.content),
        trouble=lambda: "",
    )


def _open_bucket(
    url: str, state: StateDir, accounts: Callable[[], Sequence[AccountId]], certain: Callable[[], bool]
) -> StoredContent:
    # Only here: the package that speaks S3 belongs to an extra.
    from fal_server.store.bucket.bucket import Bucket, Refused
    from fal_server.store.bucket.copies import Copies
    from fal_server.store.bucket.hashed import BucketAppFiles, BucketBlobs
    from fal_server.store.bucket.objects import BucketObjects

    def may_be(key: str) -> bool:
        kind, account, *_ = key.split("/")
        return kind != "app-files" or account in accounts()

    bucket, copies = Bucket(url), Copies(state.root / "content-copies", may_be=may_be)
    trouble = bucket.check()
    if isinstance(trouble, Refused):
        raise trouble
    if trouble is not None:
        log.warning("%s", trouble.message)

    def message() -> str:
        found = bucket.check()
        return "" if found is None else found.message

    return StoredContent(
        blobs=BucketBlobs(bucket, copies, certain),
        app_files=AppFilesOfAccounts(lambda account: BucketAppFiles(bucket, account, copies, certain), accounts),
        objects=BucketObjects(bucket, copies),
        where=url,
        trouble=message,
    )


async def move_content(state: StateDir, target: StoredContent, accounts: Sequence[AccountId]) -> None:
    """Move what is on disk into a bucket. An interrupted move is continued.

    What is not whole is named in the log, and left.

    Raises:
        Unavailable: the bucket does not take it.
    """
    source, progress = _on_disk(state, lambda: accounts), _Progress(target.where)
    for path in _files_of(state.blobs):
        content = await asyncio.to_thread(path.read_bytes)
        if hashlib.sha256(content).hexdigest() != path.name:
            log.warning("%s is not what its name says, and is left", path)
            continue
        await target.blobs.put(content)
        path.unlink()
        progress.moved()
    for account in accounts:
        for path in _files_of(state.app_files_of(account)):
            mode = await asyncio.to_thread(_mode_of, path)
            if mode is None:
                log.warning("%s is not what its name says, and is left", path)
                continue
            await asyncio.to_thread(target.app_files.of(account).place, path, path.name, mode)
            path.unlink(missing_ok=True)
            progress.moved()
    for place in sorted(state.objects.glob("*/*")):
        if await asyncio.to_thread(_move_object, place, source.objects, target.objects):
            progress.moved()
    progress.end()


class _Progress:
    """The progress of a move, in the log. Who waits for the start looks there."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._count = 0
        self._said_at = time.monotonic()

    def moved(self) -> None:
        self._count += 1
        if time.monotonic() - self._said_at >= _SAID_SECONDS:
            self._said_at = time.monotonic()
            log.info("moving files to %s: %d so far", self._where, self._count)

    def end(self) -> None:
        if self._count:
            log.info("moved %d files to %s", self._count, self._where)


def _move_object(place: Path, source: ObjectStore, target: ObjectStore) -> bool:
    """Move a public file with its description. Return False if it is left."""
    try:
        stored, path = source.get(place.name)
    except NotFound:
        log.warning("%s has no description that can be read, and is left", place)
        return False
    if path.is_file():
        target.place(path, stored)
    elif not _has(target, place.name):  # else an earlier start was interrupted after it had stored it
        log.warning("%s lacks its content, and is left", place)
        return False
    shutil.rmtree(place)
    return True


def _has(objects: ObjectStore, object_id: str) -> bool:
    try:
        objects.get(object_id)
    except NotFound:
        return False
    return True


def _files_of(directory: Path) -> Sequence[Path]:
    return sorted(directory.glob("[0-9a-f][0-9a-f]/*"))


def _mode_of(path: Path) -> int | None:
    """Return the mode that is part of a file's hash. The owner may read a copy in any case."""
    kept = stat.S_IFREG | stat.S_IMODE(path.stat().st_mode)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for mode in (kept, kept & ~stat.S_IRUSR):
        found = digest.copy()
        found.update(str(mode).encode())
        if found.hexdigest() == path.name:
            return mode
    return None
