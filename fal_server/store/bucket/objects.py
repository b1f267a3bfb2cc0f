"""Public files in a bucket."""

from __future__ import annotations

import re
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from fal_server.core.faults import NotFound, Unavailable
from fal_server.core.identity import AccountId
from fal_server.ports.files import StoredObject
from fal_server.store.bucket.bucket import Bucket, Entry
from fal_server.store.bucket.copies import Copies

_ID = re.compile(r"[0-9A-Za-z_-]{16,64}")
_INDEX = "objects-of"
_NEVER = "never"
_EXPIRY = "%Y%m%dT%H%M%S.%fZ"
_MOST_KNOWN = 10_000
_LONGEST_UPLOAD = timedelta(hours=12)


class BucketObjects:
    """Implements the port ObjectStore in a bucket.

    An empty object below `objects-of` has a file's account and expiry in its key, so that a sweep needs no file. It is
    stored first and deleted last.
    """

    def __init__(self, bucket: Bucket, copies: Copies) -> None:
        self._bucket = bucket
        self._copies = copies
        self._known: OrderedDict[str, StoredObject] = OrderedDict()

    def place(self, draft: Path, stored: StoredObject) -> None:
        expires_at = _NEVER if stored.expires_at is None else stored.expires_at.astimezone(UTC).strftime(_EXPIRY)
        self._bucket.put(f"{_INDEX}/{stored.account}/{expires_at}/{stored.object_id}", b"")
        self._bucket.put(
            _key(stored.object_id),
            draft,
            {
                "account": stored.account,
                "name": stored.name,
                "content_type": stored.content_type,
                "size": stored.size,
                "etag": stored.etag,
                "created_at": stored.created_at.isoformat(),
                "expires_at": None if stored.expires_at is None else stored.expires_at.isoformat(),
            },
        )
        with suppress(OSError):  # it is fetched when it is needed
            self._copies.take(_key(stored.object_id), draft, 0o600)

    def get(self, object_id: str) -> tuple[StoredObject, Path]:
        if _ID.fullmatch(object_id) is None:
            raise _missing()
        stored = self._known.get(object_id) or self._read(object_id)
        self._known[object_id] = stored
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        key = _key(object_id)
        path = self._copies.find(key, lambda path: path.stat().st_size == stored.size)
        if path is None:
            try:
                path = self._copies.fill(key, lambda file: self._filled(key, file, stored.size))
            except NotFound:
                self._known.pop(object_id, None)
                raise _missing() from None
        return stored, path

    def forget(self, now: datetime) -> int:
        """Delete expired files, leftovers of failed uploads, and copies beyond their size."""
        count = 0
        stored = {entry.name for entry in self._bucket.entries("objects")}
        for entry in self._bucket.entries(_INDEX):
            expires_at = entry.key.split("/")[-2]
            if entry.name not in stored and entry.changed_at < now - _LONGEST_UPLOAD:
                self._delete(entry)
            elif expires_at != _NEVER and datetime.strptime(expires_at, _EXPIRY).replace(tzinfo=UTC) <= now:
                self._delete(entry)
                count += 1
        self._copies.tidy()
        return count

    def forget_account(self, account: AccountId) -> int:
        count = 0
        for entry in self._bucket.entries(f"{_INDEX}/{account}"):
            self._delete(entry)
            count += 1
        return count

    def _delete(self, entry: Entry) -> None:
        self._bucket.delete([_key(entry.name), entry.key])
        self._known.pop(entry.name, None)
        self._copies.drop(_key(entry.name))

    def _filled(self, key: str, file: IO[bytes], size: int) -> int:
        self._bucket.read(key, file)
        if file.tell() != size:
            raise Unavailable(f"{key} in {self._bucket.url} was changed: delete it there, then upload it again")
        return 0o600

    def _read(self, object_id: str) -> StoredObject:
        try:
            about = self._bucket.about(_key(object_id))
        except NotFound:
            raise _missing() from None
        expires_at = about["expires_at"]
        return StoredObject(
            account=AccountId(str(about["account"])),
            object_id=object_id,
            name=str(about["name"]),
            content_type=str(about["content_type"]),
            size=int(about["size"] or 0),
            etag=str(about["etag"]),
            created_at=datetime.fromisoformat(str(about["created_at"])),
            expires_at=None if expires_at is None else datetime.fromisoformat(str(expires_at)),
        )


def _key(object_id: str) -> str:
    return f"objects/{object_id}"


def _missing() -> NotFound:
    return NotFound("file", "it never existed or has expired")
