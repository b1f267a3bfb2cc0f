"""Content in the bucket by its hash, with its last use."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fal_server.core.faults import InvalidArgument, NotFound, Unavailable
from fal_server.store.bucket.bucket import Bucket
from fal_server.store.bucket.copies import Copies
from fal_server.store.files.app_files import kept_mode, original_modes

_HASH = re.compile(r"[0-9a-f]{64}")
# A use is noted in the bucket once in this time, which is less than the least age of what is deleted.
_NOTED_SECONDS = 1800.0
_CHUNK_BYTES = 1024 * 1024
# The bucket is asked about so many at once.
_AT_ONCE = 16


class HashedContent:
    """Content of one kind by its hash. An empty object below `used` has the time of the last use.

    Args:
        kind: the first part of the keys.
        digest: returns the hash of a file's content, given the mode that was kept with it.
        certain: returns whether no other controller can have the database, and accept what this one deletes.
    """

    def __init__(
        self,
        bucket: Bucket,
        kind: str,
        copies: Copies,
        digest: Callable[[IO[bytes], int], str],
        certain: Callable[[], bool],
    ) -> None:
        self._bucket = bucket
        self._kind = kind
        self._copies = copies
        self._digest = digest
        self._certain = certain
        self._lock = threading.Lock()
        # When this process used it last: it must not be deleted as unused since an earlier time.
        self._used_at: dict[str, datetime] = {}
        # When its use was last noted in the bucket, on the monotonic clock: it was there then.
        self._noted: dict[str, float] = {}
        # Its copy on this machine was compared with the hash.
        self._whole: set[str] = set()

    def has(self, name: str) -> bool:
        """Return whether it is there; a use keeps it from deletion."""
        if _HASH.fullmatch(name) is None:
            return False
        self._guard(name)
        if time.monotonic() - self._noted.get(name, float("-inf")) < _NOTED_SECONDS:
            return True
        if not self._bucket.has(self._key(name)):
            return False
        self._bucket.put(f"used/{self._key(name)}", b"")
        self._noted[name] = time.monotonic()
        return True

    def keep(self, name: str, source: bytes | Path, mode: int) -> None:
        """Store it under its hash."""
        self._guard(name)
        self._bucket.put(self._key(name), source, {"mode": mode})
        self._noted[name] = time.monotonic()
        with suppress(OSError, Unavailable):  # it is fetched when it is needed
            if isinstance(source, Path):
                self._copies.take(self._key(name), source, kept_mode(mode))
            else:
                self._copies.fill(self._key(name), lambda file: _written(file, source, mode))

    def path(self, name: str) -> Path:
        """Return the path of a copy here; make one if missing.

        Raises:
            NotFound: it is not in the bucket.
            Unavailable: the bucket does not answer, or has something else by this name.
        """
        if _HASH.fullmatch(name) is None:
            raise NotFound(f"content with the hash {name[:80]!r}", "upload it, then try again")
        return self._copies.find(self._key(name), lambda path: self._is_whole(name, path)) or self._fetched(name)

    def forget(self, needed: Collection[str], before: datetime) -> int:
        """Delete what nobody needs or used since `before`; return how much."""
        used = {each.name: each.changed_at for each in self._bucket.entries(f"used/{self._kind}")}
        count = 0
        for each in self._bucket.entries(self._kind):
            used_at = used.pop(each.name, each.changed_at)
            if each.name not in needed and max(each.changed_at, used_at) < before:
                count += self.discard(each.name, before)
        for name, used_at in used.items():  # an earlier deletion was cut off, or one of another process is in progress
            if used_at < before:
                self.discard(name, before)
        with self._lock:
            self._used_at = {name: at for name, at in self._used_at.items() if at >= before}
            recent = time.monotonic() - _NOTED_SECONDS
            self._noted = {name: at for name, at in self._noted.items() if at >= recent}
        self._copies.tidy()
        return count

    def discard(self, name: str, before: datetime) -> bool:
        """Delete one, unless used since `before`; return whether that was done.

        Raises:
            Unavailable: another controller may have the database now, or the bucket does not answer.
        """
        keys = [self._key(name), f"used/{self._key(name)}"]
        with self._lock:
            used_at = self._used_at.get(name)
            if used_at is not None and used_at >= before:
                return False
            # A list is old once its end is reached, and another controller may have accepted this since.
            times = [self._bucket.changed_at(key) for key in keys]
            if any(at is not None and at >= before for at in times):
                return False
            if not self._certain():
                raise Unavailable("another controller may have the database, and need this")
            self._bucket.delete(keys)
            self._noted.pop(name, None)
            self._copies.drop(keys[0])
            self._whole.discard(name)
            return times[0] is not None

    def _is_whole(self, name: str, path: Path) -> bool:
        """Compare a copy's hash, once in this process. Its owner may read it in any case."""
        if name in self._whole:
            return True
        with path.open("rb") as file:
            for mode in original_modes(os.fstat(file.fileno()).st_mode):
                file.seek(0)
                if self._digest(file, mode) == name:
                    self._whole.add(name)
                    return True
        return False

    def _guard(self, name: str) -> None:
        with self._lock:  # not between a check for the last use and the deletion
            self._used_at[name] = datetime.now(UTC)

    def _fetched(self, name: str) -> Path:
        key = self._key(name)

        def write(file: IO[bytes]) -> int:
            mode = self._bucket.read(key, file).get("mode")
            file.seek(0)
            if not isinstance(mode, int) or self._digest(file, mode) != name:
                raise Unavailable(
                    f"{key} in {self._bucket.url} was changed: delete it there, then deploy the app again"
                )
            return kept_mode(mode)

        try:
            path = self._copies.fill(key, write)
        except NotFound:
            self._noted.pop(name, None)
            raise
        self._whole.add(name)
        return path

    def _key(self, name: str) -> str:
        return f"{self._kind}/{name}"


class BucketBlobs:
    """Implements the ports Blobs and ContentStore in a bucket.

    Args:
        certain: see `HashedContent`.
    """

    def __init__(self, bucket: Bucket, copies: Copies, certain: Callable[[], bool]) -> None:
        self._content = HashedContent(bucket, "blobs", copies, lambda file, _: _digest(file), certain)

    async def put(self, content: bytes) -> str:
        return await asyncio.to_thread(self._put, content)

    def path(self, blob: str) -> Path:
        return self._content.path(blob)

    def forget(self, needed: Collection[str], before: datetime) -> int:
        return self._content.forget(needed, before)

    def discard(self, blobs: Collection[str], before: datetime) -> None:
        for blob in blobs:
            self._content.discard(blob, before)

    def _put(self, content: bytes) -> str:
        blob = hashlib.sha256(content).hexdigest()
        if not self._content.has(blob):
            self._content.keep(blob, content, 0o600)
        return blob


class BucketAppFiles:
    """Implements the ports AppFileStore and ContentStore for one account, in a bucket.

    Args:
        account: the part of the keys that keeps the files of accounts apart.
        certain: see `HashedContent`.
    """

    def __init__(self, bucket: Bucket, account: str, copies: Copies, certain: Callable[[], bool]) -> None:
        self._content = HashedContent(
            bucket,
            f"app-files/{account}",
            copies,
            lambda file, mode: _digest(file, str(mode).encode()),
            certain,
        )

    def missing(self, hashes: Sequence[str]) -> Sequence[str]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(self._content.has, hashes)
            return [file_hash for file_hash, there in zip(hashes, found, strict=True) if not there]

    def path(self, file_hash: str) -> Path:
        return self._content.path(file_hash)

    def place(self, draft: Path, file_hash: str, mode: int) -> None:
        """Store a finished draft.

        Raises:
            InvalidArgument: the hash is not a SHA-256.
            Unavailable: the bucket does not take it.
        """
        if _HASH.fullmatch(file_hash) is None:
            raise InvalidArgument("hash", f"hash {file_hash[:80]!r} is not a SHA-256: give 64 hexadecimal digits")
        self._content.keep(file_hash, draft, mode)

    def forget(self, needed: Collection[str], before: datetime) -> int:
        return self._content.forget(needed, before)


def _digest(file: IO[bytes], suffix: bytes = b"") -> str:
    digest = hashlib.sha256()
    while piece := file.read(_CHUNK_BYTES):
        digest.update(piece)
    digest.update(suffix)
    return digest.hexdigest()


def _written(file: IO[bytes], content: bytes, mode: int) -> int:
    file.write(content)
    return kept_mode(mode)
