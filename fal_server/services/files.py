"""/data and the files deployed with apps. All runners of an account share /data."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from fal_server.core.data_paths import data_parts
from fal_server.core.faults import InvalidArgument, NotFound, ResourceExhausted, TooLarge
from fal_server.ports import Clock
from fal_server.ports.files import AppFileStore, DataEntry, DataStore, Drafts, OpenFile
from fal_server.services.uploads import PartUploads, received

MAX_APP_FILE_BYTES = 1024**3
_MOST_HASHES = 100_000
_HASH = re.compile(r"[0-9a-f]{64}")
# The published client stores a directory's hash in this file.
_HASH_FILE = ".fal_hash"
_HASH_BYTES = 1024


class Fetcher(Protocol):
    """Reads URLs."""

    def fetch(self, url: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a URL and yield its content in chunks.

        Raises:
            InvalidArgument: the URL is not for HTTP, is forbidden, or answers with an error.
            Unavailable: it cannot be reached, or the content was cut off.
        """
        ...


class Files:
    """The use cases of an account's /data.

    Args:
        fetcher: downloads files from callers' URLs.
        most_bytes: returns the size limit of /data; 0 means no limit.
    """

    def __init__(
        self, store: DataStore, fetcher: Fetcher, clock: Clock, most_bytes: Callable[[], int] = lambda: 0
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._most_bytes = most_bytes
        self.parts = PartUploads[tuple[str, ...]](store.drafts, clock)

    async def list(self, path: str) -> list[DataEntry]:
        """List a directory.

        Raises:
            InvalidArgument: the path is not below /data, or is not a directory.
            NotFound: it does not exist.
        """
        return await asyncio.to_thread(self._store.entries, data_parts(path))

    async def open(self, path: str) -> OpenFile:
        """Open a file, which the caller closes. Raises the errors of `list`."""
        return await asyncio.to_thread(self._store.open, data_parts(path))

    async def put(self, path: str, chunks: AsyncIterable[bytes], *, unzip: bool = False) -> None:
        """Write a file or extract a zip archive into a directory. A file is written completely or not at all.

        Raises:
            InvalidArgument: the path is not below /data or cannot be a file, or the archive is not a zip file.
            ResourceExhausted: /data would exceed the account's quota.
            Unavailable: the disk cannot store it.
        """
        parts = data_parts(path)
        room = await self._room()
        try:
            draft = await received(self._store.drafts, chunks, most_bytes=room)
        except TooLarge:
            raise self._full() from None
        try:
            if unzip:
                unpacked = await asyncio.to_thread(self._store.extract, draft.path, parts, room)
                if not unpacked:
                    raise self._full()
            else:
                await asyncio.to_thread(self._store.place, draft.path, parts)
        finally:
            draft.discard()

    async def put_url(self, path: str, url: str) -> None:
        """Write a file with the content of a URL. Raises the errors of `put` and `Fetcher.fetch`."""
        data_parts(path)
        async with self._fetcher.fetch(url) as chunks:
            await self.put(path, chunks)

    async def used(self) -> int:
        """Return the total size of the files in /data."""
        return await asyncio.to_thread(self._store.used)

    async def _room(self) -> int | None:
        """Return how many bytes may still be written; None means no limit. Concurrent writes share it."""
        most = self._most_bytes()
        return max(0, most - await self.used()) if most else None

    def _full(self) -> ResourceExhausted:
        return ResourceExhausted(
            f"/data may hold {self._most_bytes()} bytes by this account's quota, and this is more than is left: delete "
            "files (`fal files rm`), or ask the controller's owner for more"
        )

    async def rename(self, path: str, destination: str) -> None:
        """Move a file or directory.

        Raises:
            NotFound: the path does not exist.
            AlreadyExists: the destination is a non-empty directory.
        """
        await asyncio.to_thread(self._store.rename, data_parts(path), data_parts(destination))

    async def delete(self, path: str) -> None:
        """Delete a file, or a directory with its content. Raises the errors of `list`."""
        await asyncio.to_thread(self._store.delete, data_parts(path))

    async def has_hash(self, path: str, wanted: str) -> bool:
        """Return whether the directory's `.fal_hash` has this hash. The client stores it when it synchronizes."""
        data_parts(path)
        try:
            opened = await self.open(f"{path}/{_HASH_FILE}")
        except (NotFound, InvalidArgument):
            return False
        with open(opened.descriptor, "rb") as file:  # noqa: PTH123, ASYNC230 - a descriptor; 1 KiB of a local file
            return file.read(_HASH_BYTES).decode(errors="replace").strip() == wanted

    def begin(self, path: str) -> str:
        """Start a multipart upload; return its id.

        Raises:
            InvalidArgument: the path is not below /data.
        """
        parts = data_parts(path)
        if not parts:
            raise InvalidArgument("path", "/data is a directory: name a file in it")
        return self.parts.begin(parts)

    async def complete(self, upload_id: str) -> str:
        """Assemble the parts into the file; return its MD5 in hex. Raises the errors of `PartUploads.assembled`."""
        room = await self._room()
        draft = await self.parts.assembled(upload_id)
        try:
            if room is not None and draft.size > room:
                self.parts.end(upload_id)
                raise self._full()
            await asyncio.to_thread(self._store.place, draft.path, self.parts.about(upload_id))
        finally:
            draft.discard()
        self.parts.end(upload_id)
        return draft.md5


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFileAbout:
    """A client's data about an app's file: its hash and its mode. The mode is part of the hash."""

    hash: str
    mode: int


class AppFiles:
    """The use cases of an account's files uploaded before a deploy.

    Args:
        drafts: on the same file system as the store.
    """

    def __init__(self, store: AppFileStore, drafts: Drafts, clock: Clock) -> None:
        self._store = store
        self.parts = PartUploads[AppFileAbout](drafts, clock, most_bytes=MAX_APP_FILE_BYTES)

    async def missing(self, hashes: Sequence[str]) -> list[str]:
        """Return the hashes whose files were not uploaded yet.

        Raises:
            InvalidArgument: there are too many.
        """
        if len(hashes) > _MOST_HASHES:
            raise InvalidArgument("hashes", f"{len(hashes)} hashes are too many: at most {_MOST_HASHES}")
        return list(await asyncio.to_thread(self._store.missing, list(dict.fromkeys(hashes))))

    def begin(self, file_hash: str, mode: str) -> str:
        """Start an upload; return its id.

        Args:
            file_hash: SHA-256 of the content followed by the decimal mode.
            mode: st_mode in decimal digits.

        Raises:
            InvalidArgument: the hash or the mode is malformed.
        """
        if _HASH.fullmatch(file_hash) is None:
            raise InvalidArgument("hash", f"hash {file_hash[:80]!r} is not a SHA-256: give 64 hexadecimal digits")
        if not (mode.isascii() and mode.isdigit() and len(mode) <= 6):
            raise InvalidArgument(
                "mode", f"mode {mode[:20]!r} is invalid: give st_mode in decimal digits, such as 33188"
            )
        return self.parts.begin(AppFileAbout(hash=file_hash, mode=int(mode)))

    async def complete(self, file_hash: str, upload_id: str) -> None:
        """Assemble the parts and store the file, if it has the hash.

        Raises:
            NotFound: there is no such upload for this hash.
            InvalidArgument: the content has another hash.
        """
        about = self.of(file_hash, upload_id)
        draft = await self.parts.assembled(upload_id)
        try:
            found = draft.sha256(str(about.mode).encode())
            if found != file_hash:
                self.parts.end(upload_id)
                raise InvalidArgument(
                    "hash", f"the content with mode {about.mode} has the hash {found}, not {file_hash}: send it again"
                )
            await asyncio.to_thread(self._store.place, draft.path, file_hash, about.mode)
        finally:
            draft.discard()
        self.parts.end(upload_id)

    def of(self, file_hash: str, upload_id: str) -> AppFileAbout:
        """Return the client's data about an upload for this hash.

        Raises:
            NotFound: there is no such upload for this hash.
        """
        about = self.parts.about(upload_id)
        if about.hash != file_hash:
            raise NotFound("upload of this file", "start again")
        return about
