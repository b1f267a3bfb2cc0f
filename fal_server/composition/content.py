"""Code and files: in a directory, or in a bucket."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fal_server.composition.state import StateDir, write_private
from fal_server.core.faults import Unavailable
from fal_server.core.identity import AccountId
from fal_server.ports.content import Blobs, ContentStore
from fal_server.ports.files import ObjectStore
from fal_server.store.files.app_files import AppFilesOfAccounts, DiskAppFiles
from fal_server.store.files.blobs import FileBlobs
from fal_server.store.files.objects import DiskObjects
from fal_server.store.sql.sealed import SealedSettings

log = logging.getLogger(__name__)
_CONTENT = "content"


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


async def check_content(
    state: StateDir, url: str | None, sealed: SealedSettings, *, claim: bool = False, alone: bool = False
) -> None:
    """Check that code and files are where the database says.

    Args:
        url: of the bucket; None if they are in a directory.
        claim: record the place, if none is recorded yet or `alone` permits another.
        alone: no other controller can have the database, so `url` may replace the recorded place.

    Raises:
        Unavailable: it is another one.
    """
    found = await sealed.get(_CONTENT)
    bucket = found if found is not None and "://" in found else None
    if url is None and bucket is not None:
        raise Unavailable(
            f"the code and files of this database are in {bucket}, and no bucket is named: start it with "
            f"--content {bucket}"
        )
    if url is not None:
        if found == url:
            return
        if alone and bucket is not None:
            if claim:
                log.warning("the code and files of this database were in %s until now: %s needs a copy", bucket, url)
        elif not alone and found is not None:
            raise Unavailable(
                f"{url} is not where the other controllers of this database have code and files: that is "
                f"{bucket or 'a directory'}. Give all of them the same --content or --content-dir"
            )
        if claim:
            await sealed.put(_CONTENT, url)
    elif not alone and state.content != state.root:
        await _check_directory(state, found, sealed, claim=claim)


async def _check_directory(state: StateDir, found: str | None, sealed: SealedSettings, *, claim: bool) -> None:
    path = state.content / "content-id"
    own = path.read_text().strip() if path.exists() else None
    if claim and found is None:
        found = own = own or secrets.token_hex(16)
        write_private(path, f"{own}\n")
        await sealed.put(_CONTENT, own)
    if found is not None and found != own:
        raise Unavailable(
            f"{state.content} is not the directory that the other controllers of this database share: give all of them "
            f"the same --content-dir. If it was moved here, move its file {path.name} with it"
        )
