"""Public files, downloaded by their URL: apps' outputs and callers' uploads."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterable
from dataclasses import dataclass
from datetime import timedelta
from mimetypes import guess_extension
from pathlib import Path
from urllib.parse import quote

from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import AccountId
from fal_server.core.json_reader import read_json
from fal_server.ports import Clock
from fal_server.ports.files import Draft, Drafts, ObjectStore, StoredObject
from fal_server.services.uploads import PartUploads, received

MOST_BYTES = 20 * 1024**3
_LONGEST_LIFE = 10 * 365 * 86400.0
_MOST_DIGITS = 18
_NAME_BYTES = 100
_UNFIT = re.compile(r"[^0-9A-Za-z._-]+")
_TYPE = re.compile(r"[0-9A-Za-z!#$&^_.+-]{1,64}/[0-9A-Za-z!#$&^_.+-]{1,64}(?:\s*;[ -~]{0,100})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A file whose URL is known before its content.

    Attributes:
        life: how long it is kept once it is complete; None keeps it forever.
    """

    account: AccountId
    object_id: str
    name: str
    content_type: str
    life: timedelta | None

    @property
    def path(self) -> str:
        """The path of its URL."""
        return f"/storage/f/{self.object_id}/{quote(self.name)}"


class Objects:
    """The use cases of public files.

    Args:
        drafts: on the same file system as the store.
        life: how long a file is kept by default; None keeps it forever.
    """

    def __init__(self, store: ObjectStore, drafts: Drafts, clock: Clock, life: timedelta | None) -> None:
        self._store = store
        self._drafts = drafts
        self._clock = clock
        self._life = life
        self.parts = PartUploads[Reserved](drafts, clock, most_bytes=MOST_BYTES)

    @property
    def lifecycle(self) -> str:
        """The default lifetime of files, as the header that requests another one."""
        seconds = "null" if self._life is None else f'"{self._life.total_seconds():.0f}"'
        return f'{{"expiration_duration_seconds": {seconds}}}'

    def reserve(
        self, account: AccountId, name: str | None, content_type: str | None, lifecycle: str | None
    ) -> Reserved:
        """Reserve a URL for a file.

        Args:
            name: shown in the URL; characters that do not fit are replaced.
            content_type: None or an invalid one means any bytes.
            lifecycle: the header that says how long to keep it, as JSON: `{"expiration_duration_seconds": 3600}`.

        Raises:
            InvalidArgument: the lifecycle is malformed.
        """
        kind = content_type if content_type and _TYPE.fullmatch(content_type) else "application/octet-stream"
        shown = _UNFIT.sub("_", name or "").strip("._")[-_NAME_BYTES:]
        return Reserved(
            account=account,
            object_id=secrets.token_urlsafe(24),
            name=shown or f"file{guess_extension(kind.partition(';')[0].strip()) or '.bin'}",
            content_type=kind,
            life=self._life_of(lifecycle),
        )

    async def put(self, reserved: Reserved, chunks: AsyncIterable[bytes]) -> StoredObject:
        """Receive a complete file.

        Raises:
            TooLarge: it is too large.
            Unavailable: the disk cannot store it.
        """
        draft = await received(self._drafts, chunks, most_bytes=MOST_BYTES)
        try:
            return await self._publish(reserved, draft)
        finally:
            draft.discard()

    async def complete(self, upload_id: str, size: int | None = None) -> StoredObject:
        """Assemble a multipart upload.

        Args:
            size: in bytes, as counted by the sender; None is not compared.

        Raises:
            NotFound: there is no such upload.
            InvalidArgument: a part is missing, or the size differs.
        """
        draft = await self.parts.assembled(upload_id)
        try:
            if size is not None and size != draft.size:
                raise InvalidArgument("size_bytes", f"{draft.size} bytes came in, {size} were sent: send them again")
            stored = await self._publish(self.parts.about(upload_id), draft)
        finally:
            draft.discard()
        self.parts.end(upload_id)
        return stored

    async def get(self, object_id: str) -> tuple[StoredObject, Path]:
        """Return a file's description, and the path of its content.

        Raises:
            NotFound: there is no such file, or it has expired.
        """
        stored, path = await asyncio.to_thread(self._store.get, object_id)
        if stored.expires_at is not None and stored.expires_at <= self._clock.now():
            raise NotFound("file", "it never existed or has expired")
        return stored, path

    async def forget(self) -> int:
        """Delete expired files; return how many."""
        return await asyncio.to_thread(self._store.forget, self._clock.now())

    async def _publish(self, reserved: Reserved, draft: Draft) -> StoredObject:
        now = self._clock.now()
        stored = StoredObject(
            account=reserved.account,
            object_id=reserved.object_id,
            name=reserved.name,
            content_type=reserved.content_type,
            size=draft.size,
            etag=draft.md5,
            created_at=now,
            expires_at=None if reserved.life is None else now + reserved.life,
        )
        await asyncio.to_thread(self._store.place, draft.path, stored)
        return stored

    def _life_of(self, lifecycle: str | None) -> timedelta | None:
        if not lifecycle:
            return self._life
        try:
            wanted = read_json(lifecycle)
        except ValueError as error:
            raise InvalidArgument("x-fal-object-lifecycle", f"X-Fal-Object-Lifecycle is not JSON: {error}") from error
        if not isinstance(wanted, dict) or "expiration_duration_seconds" not in wanted:
            return self._life
        seconds = wanted["expiration_duration_seconds"]
        if seconds is None:
            return None
        if isinstance(seconds, str) and seconds.isascii() and seconds.isdigit() and len(seconds) <= _MOST_DIGITS:
            seconds = int(seconds)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _LONGEST_LIFE:
            raise InvalidArgument(
                "x-fal-object-lifecycle",
                f"expiration_duration_seconds is {str(seconds)[:40]}: give 1 to {_LONGEST_LIFE:g}, or null to keep it",
            )
        return timedelta(seconds=seconds)
