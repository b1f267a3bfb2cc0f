"""Moves code and files from a directory into a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from fal_server.composition.content import StoredContent, open_content
from fal_server.composition.state import StateDir
from fal_server.core.faults import NotFound
from fal_server.core.identity import AccountId
from fal_server.ports.files import ObjectStore
from fal_server.store.files.app_files import original_modes

log = logging.getLogger(__name__)
_SAID_SECONDS = 10.0


async def move_content(state: StateDir, target: StoredContent, accounts: Sequence[AccountId]) -> None:
    """Move what is on disk into a bucket. An interrupted move is continued.

    What is not whole is named in the log, and left.

    Raises:
        Unavailable: the bucket does not take it.
    """
    source = await open_content(state, None, lambda: accounts, lambda: True)
    progress = _Progress(target.where)
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
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for mode in original_modes(path.stat().st_mode):
        found = digest.copy()
        found.update(str(mode).encode())
        if found.hexdigest() == path.name:
            return mode
    return None
