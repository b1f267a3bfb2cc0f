"""Small texts that all runners of the account share, by key: kept in /data, so they outlive runners and deploys."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from fal.toolkit.downloads import FAL_PERSISTENT_DIR
from fal.toolkit.exceptions import KVStoreException

SHORTEST_TTL_SECONDS = 60
LONGEST_TTL_SECONDS = 30 * 24 * 3600
_DRAFT = ".draft-"
_OLD_DRAFT_SECONDS = 3600
_LOCK = ".lock"


class KVStore:
    """A store of its own for each name. What is written last is what is read; there are no locks or counters.

        store = KVStore("my-app")
        store.set("greeting", "hello", ttl=3600)
        store.get("greeting")

    Args:
        db_name: of the store.
    """

    def __init__(self, db_name: str) -> None:
        if not db_name:
            raise ValueError("db_name is empty: name the store")
        self.db_name = db_name
        self._directory = FAL_PERSISTENT_DIR / ".fal" / "kv" / _hashed(db_name)
        self._swept = False

    def get(self, key: str) -> str | None:
        """The value of a key; None where there is none, or none any more.

        Raises:
            KVStoreException: it cannot be read.
        """
        try:
            with self._path(key).open(encoding="utf-8", newline="") as file:
                # The time of the last change is when it expires: `set` writes it.
                return file.read() if os.fstat(file.fileno()).st_mtime > time.time() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KVStoreException(f"key {key!r} of {self.db_name!r} cannot be read: {error.strerror}") from error

    def set(self, key: str, value: str, ttl: int | None = None) -> None:
        """Keep a value. It is there whole or not at all, whoever reads meanwhile.

        Args:
            key: any text.
            value: any text; `json.dumps` makes one of anything else.
            ttl: seconds that it is kept, 60 to 2,592,000 (30 days); None means 30 days.

        Raises:
            TypeError: the value is no text.
            ValueError: the ttl is out of range.
            KVStoreException: it cannot be written.
        """
        if not isinstance(cast("object", value), str):
            raise TypeError(f"the value of {key!r} is no text but {type(value).__name__}: json.dumps makes one of it")
        seconds = LONGEST_TTL_SECONDS if ttl is None else ttl
        if not SHORTEST_TTL_SECONDS <= seconds <= LONGEST_TTL_SECONDS:
            raise ValueError(f"ttl is {ttl}: give {SHORTEST_TTL_SECONDS} to {LONGEST_TTL_SECONDS} seconds")
        draft = None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not self._swept:
                self._swept = True
                self._sweep()
            handle, draft = tempfile.mkstemp(dir=self._directory, prefix=_DRAFT)
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(value)
            end = time.time() + seconds
            os.utime(draft, (end, end))
            with self._locked(fcntl.LOCK_SH):
                Path(draft).replace(self._path(key))
        except OSError as error:
            if draft is not None:
                Path(draft).unlink(missing_ok=True)
            raise KVStoreException(f"key {key!r} of {self.db_name!r} cannot be written: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        return self._directory / _hashed(key)

    def _sweep(self) -> None:
        """Remove what has expired, and what a runner that died was writing; nobody writes meanwhile."""
        now = time.time()
        with self._locked(fcntl.LOCK_EX), os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a draft whose writer has removed it
                    age = now - entry.stat().st_mtime
                    if entry.name != _LOCK and age > (_OLD_DRAFT_SECONDS if entry.name.startswith(_DRAFT) else 0):
                        Path(entry.path).unlink()

    @contextmanager
    def _locked(self, how: int) -> Generator[None]:
        with (self._directory / _LOCK).open("a") as file:
            fcntl.flock(file, how)
            yield


def _hashed(text: str) -> str:
    """A file's name for any text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
