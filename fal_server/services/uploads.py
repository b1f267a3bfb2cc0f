"""Multipart uploads: started, sent in any order, then assembled or aborted."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from fal_server.core.faults import InvalidArgument, NotFound, ResourceExhausted, TooLarge
from fal_server.ports import Clock
from fal_server.ports.files import Draft, Drafts

T = TypeVar("T")
MOST_PARTS = 10_000
_MOST_OPEN = 10_000
_ABANDONED = timedelta(hours=24)
_NUMBER = re.compile(r"[0-9]{1,6}")


@dataclass(slots=True, kw_only=True)
class _Upload(Generic[T]):
    """One upload: its subject, its parts by number, and its last use."""

    about: T
    touched_at: datetime
    parts: dict[int, Draft] = field(default_factory=dict[int, Draft])


async def received(drafts: Drafts, chunks: AsyncIterable[bytes], *, most_bytes: int | None = None) -> Draft:
    """Write chunks to a draft. Return it when it is complete and on disk.

    Args:
        most_bytes: the largest size; None means no limit.

    Raises:
        TooLarge: the content is larger.
        Unavailable: the disk cannot store it.
    """
    draft = drafts.open()
    try:
        async for chunk in chunks:
            if most_bytes is not None and draft.size + len(chunk) > most_bytes:
                raise TooLarge(f"the file is larger than {most_bytes} bytes: send a smaller one")
            await draft.write(chunk)
        await draft.finish()
    except BaseException:
        draft.discard()
        raise
    return draft


class PartUploads(Generic[T]):
    """Uploads in progress. They are lost when the controller ends; a client then gets NotFound and starts again.

    Args:
        drafts: where the parts are kept.
        most_bytes: the largest size of a whole upload; None means no limit.
    """

    def __init__(self, drafts: Drafts, clock: Clock, *, most_bytes: int | None = None) -> None:
        self._drafts = drafts
        self._clock = clock
        self._most_bytes = most_bytes
        self._open: dict[str, _Upload[T]] = {}

    def begin(self, about: T) -> str:
        """Start an upload; return its id, which cannot be guessed.

        Raises:
            ResourceExhausted: too many are open.
        """
        self._drop_abandoned()
        if len(self._open) >= _MOST_OPEN:
            raise ResourceExhausted(f"{_MOST_OPEN} uploads are open: complete or cancel some first")
        upload_id = secrets.token_hex(16)
        self._open[upload_id] = _Upload(about=about, touched_at=self._clock.now())
        return upload_id

    def about(self, upload_id: str) -> T:
        """Return the subject of an upload.

        Raises:
            NotFound: there is no such upload, or it has ended.
        """
        return self._find(upload_id).about

    async def part(self, upload_id: str, number: str, chunks: AsyncIterable[bytes]) -> tuple[int, str]:
        """Store a part, replacing an earlier one of its number. Return the number and the part's MD5.

        Raises:
            NotFound: there is no such upload.
            InvalidArgument: the number is not between 1 and 10,000.
            TooLarge: the upload would become too large.
        """
        upload = self._find(upload_id)
        wanted = int(number) if _NUMBER.fullmatch(number) else 0
        if not 0 < wanted <= MOST_PARTS:
            raise InvalidArgument("part_number", f"part number {number[:20]!r} is invalid: use 1 to {MOST_PARTS}")
        others = sum(part.size for count, part in upload.parts.items() if count != wanted)
        left = None if self._most_bytes is None else max(0, self._most_bytes - others)
        draft = await received(self._drafts, chunks, most_bytes=left)
        if self._open.get(upload_id) is not upload:
            draft.discard()
            raise _gone()
        earlier = upload.parts.pop(wanted, None)
        if earlier is not None:
            earlier.discard()
        upload.parts[wanted] = draft
        upload.touched_at = self._clock.now()
        return wanted, draft.md5

    async def assembled(self, upload_id: str) -> Draft:
        """Return all parts in order as one draft. The upload stays until `end`, so that this can be repeated.

        Raises:
            NotFound: there is no such upload.
            InvalidArgument: a part is missing.
        """
        upload = self._find(upload_id)
        numbers = sorted(upload.parts)
        if numbers != list(range(1, len(numbers) + 1)) or not numbers:
            missing = next((count for count in range(1, MOST_PARTS) if count not in upload.parts), 1)
            raise InvalidArgument("parts", f"part {missing} is missing: send it, then complete the upload")
        draft = self._drafts.open()
        try:
            for number in numbers:
                await draft.append_file(upload.parts[number].path)
            await draft.finish()
        except BaseException:
            draft.discard()
            raise
        return draft

    def end(self, upload_id: str) -> None:
        """Delete an upload with its parts; do nothing if there is none."""
        upload = self._open.pop(upload_id, None)
        for part in upload.parts.values() if upload else ():
            part.discard()

    def _find(self, upload_id: str) -> _Upload[T]:
        upload = self._open.get(upload_id)
        if upload is None:
            raise _gone()
        return upload

    def _drop_abandoned(self) -> None:
        before = self._clock.now() - _ABANDONED
        for upload_id in [key for key, upload in self._open.items() if upload.touched_at < before]:
            self.end(upload_id)


def _gone() -> NotFound:
    return NotFound("upload", "it was completed, cancelled or abandoned; start again")
