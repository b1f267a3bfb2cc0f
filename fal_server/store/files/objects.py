"""Public files. Each has its own directory with the content and its description."""

from __future__ import annotations

import json
import logging
import re
import shutil
from datetime import datetime
from pathlib import Path

from fal_server.core.faults import NotFound, Unavailable
from fal_server.core.identity import LOCAL, AccountId
from fal_server.ports.files import StoredObject
from fal_server.store.files.durable import make_directory, remove_tree, sync_directory, write_draft

log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9A-Za-z_-]{16,64}")
_ABOUT = "about.json"
_CONTENT = "content"


class DiskObjects:
    """Implements the port ObjectStore. A file exists once its `about.json` does, which is written last.

    Args:
        directory: used by one controller; created (mode 0700) if missing.

    Raises:
        Unavailable: the directory cannot be created.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_directory(directory)

    def place(self, draft: Path, stored: StoredObject) -> None:
        place = self._place(stored.object_id)
        about = {
            "account": stored.account,
            "name": stored.name,
            "content_type": stored.content_type,
            "size": stored.size,
            "etag": stored.etag,
            "created_at": stored.created_at.isoformat(),
            "expires_at": None if stored.expires_at is None else stored.expires_at.isoformat(),
        }
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
            draft.replace(place / _CONTENT)
            write_draft(place, json.dumps(about).encode()).replace(place / _ABOUT)
            sync_directory(place)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise Unavailable(f"the file cannot be kept in {self._directory}: {error.strerror}") from error

    def get(self, object_id: str) -> tuple[StoredObject, Path]:
        found = self._read(self._place(object_id)) if _ID.fullmatch(object_id) else None
        if found is None:
            raise NotFound("file", "it never existed or has expired")
        return found, self._place(object_id) / _CONTENT

    def forget(self, now: datetime) -> int:
        """Delete expired files. One with an unreadable description is left for a person."""
        deleted = 0
        for place in self._directory.glob("*/*"):
            found = self._read(place)
            if found is not None and found.expires_at is not None and found.expires_at <= now:
                shutil.rmtree(place, ignore_errors=True)
                deleted += 1
        return deleted

    def forget_account(self, account: AccountId) -> int:
        deleted = 0
        for place in self._directory.glob("*/*"):
            found = self._read(place)
            if found is not None and found.account == account:
                remove_tree(place)
                deleted += 1
        return deleted

    def _read(self, place: Path) -> StoredObject | None:
        try:
            about = json.loads((place / _ABOUT).read_bytes())
            expires_at = about["expires_at"]
            return StoredObject(
                account=AccountId(about.get("account", LOCAL)),  # files that are older than accounts
                object_id=place.name,
                name=about["name"],
                content_type=about["content_type"],
                size=about["size"],
                etag=about["etag"],
                created_at=datetime.fromisoformat(about["created_at"]),
                expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read: %s", place / _ABOUT, error)
            return None

    def _place(self, object_id: str) -> Path:
        return self._directory / object_id[:2] / object_id
