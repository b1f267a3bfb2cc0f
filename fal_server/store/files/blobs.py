"""Immutable bytes in files named by the SHA-256 of their content."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from fal_server.core.faults import NotFound, Unavailable
from fal_server.store.files.content_files import ContentDirectory
from fal_server.store.files.durable import DRAFT_PREFIX, make_directory, sync_directory, write_draft

_HASH = re.compile(r"[0-9a-f]{64}")


class FileBlobs:
    """Implements the port Blobs in a directory, with one file per blob. The directory has 256 subdirectories.

    A file gets its name only when it is complete and on disk, and is never written again, so readers need not check its
    content. The constructor removes the leftovers of killed uploads.

    Args:
        directory: used by one controller; created (mode 0700) if missing.

    Raises:
        Unavailable: the directory cannot be created or read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._uses = ContentDirectory(directory)
        make_directory(directory, leftovers=f"*/{DRAFT_PREFIX}*")

    async def put(self, content: bytes) -> str:
        return await asyncio.to_thread(self._put, content)

    def path(self, blob: str) -> Path:
        path = self._place(blob) if _HASH.fullmatch(blob) else None
        if path is None or not path.is_file():
            raise NotFound(f"content with the hash {blob[:80]!r}", "upload it, then try again")
        return path

    def forget(self, needed: Collection[str], before: datetime) -> int:
        return self._uses.forget(needed, before)

    def discard(self, blobs: Collection[str], before: datetime) -> None:
        for blob in blobs:
            self._uses.discard(self._place(blob), before)

    def _put(self, content: bytes) -> str:
        blob = hashlib.sha256(content).hexdigest()
        path = self._place(blob)
        try:
            if self._uses.touch(path) and path.stat().st_size == len(content):
                return blob
            path.parent.mkdir(mode=0o700, exist_ok=True)
            draft = write_draft(path.parent, content)
            try:
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            sync_directory(path.parent)
            sync_directory(self._directory)
        except OSError as error:
            raise Unavailable(f"{len(content)} bytes cannot be kept in {self._directory}: {error.strerror}") from error
        return blob

    def _place(self, blob: str) -> Path:
        return self._directory / blob[:2] / blob
