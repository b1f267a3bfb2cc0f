"""Code and files: in a directory, or in a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fal_server.composition.state import StateDir
from fal_server.core.identity import AccountId
from fal_server.ports.content import Blobs, ContentStore
from fal_server.ports.files import ObjectStore
from fal_server.store.files.app_files import AppFilesOfAccounts, DiskAppFiles
from fal_server.store.files.blobs import FileBlobs
from fal_server.store.files.objects import DiskObjects

log = logging.getLogger(__name__)


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


async def open_content(state: StateDir, url: str | None, accounts: Callable[[], Sequence[AccountId]]) -> StoredContent:
    """Open the content; move what is on disk into a bucket.

    Raises:
        Unavailable: a directory cannot be used, or the bucket does not exist or refuses the credentials.
    """
    on_disk = StoredContent(
        blobs=FileBlobs(state.blobs),
        app_files=AppFilesOfAccounts(lambda account: DiskAppFiles(state.app_files_of(account)), accounts),
        objects=DiskObjects(state.objects),
        where=str(state.content),
        trouble=lambda: "",
    )
    if url is None:
        return on_disk
    in_bucket = await asyncio.to_thread(_open_bucket, url, state, accounts)
    await _move(state, on_disk, in_bucket, accounts())
    return in_bucket


def _open_bucket(url: str, state: StateDir, accounts: Callable[[], Sequence[AccountId]]) -> StoredContent:
    # Only here: the package that speaks S3 belongs to an extra.
    from fal_server.store.bucket.bucket import Bucket, Refused
    from fal_server.store.bucket.copies import Copies
    from fal_server.store.bucket.hashed import BucketAppFiles, BucketBlobs
    from fal_server.store.bucket.objects import BucketObjects

    bucket, copies = Bucket(url), Copies(state.root / "content-copies")
    trouble = bucket.check()
    if isinstance(trouble, Refused):
        raise trouble
    if trouble is not None:
        log.warning("%s", trouble.message)

    def message() -> str:
        found = bucket.check()
        return "" if found is None else found.message

    return StoredContent(
        blobs=BucketBlobs(bucket, copies),
        app_files=AppFilesOfAccounts(lambda account: BucketAppFiles(bucket, account, copies), accounts),
        objects=BucketObjects(bucket, copies),
        where=url,
        trouble=message,
    )


async def _move(state: StateDir, source: StoredContent, target: StoredContent, accounts: Sequence[AccountId]) -> None:
    """Move what is on disk. An interrupted move is continued.

    Raises:
        Unavailable: the bucket does not take it.
    """
    count = 0
    for path in _files_of(state.blobs):
        await target.blobs.put(path.read_bytes())
        path.unlink()
        count += 1
    for account in accounts:
        for path in _files_of(state.app_files_of(account)):
            mode = await asyncio.to_thread(_mode_of, path)
            if mode is None:
                log.warning("%s is not what its name says, and is left", path)
                continue
            await asyncio.to_thread(target.app_files.of(account).place, path, path.name, mode)
            path.unlink(missing_ok=True)
            count += 1
    for place in sorted(state.objects.glob("*/*")):
        stored, path = source.objects.get(place.name)
        await asyncio.to_thread(target.objects.place, path, stored)
        shutil.rmtree(place)
        count += 1
    if count:
        log.info("moved %d files to %s", count, target.where)


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
