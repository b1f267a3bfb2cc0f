"""A key-value store in /data. All runners share it, and it outlives them."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from fal.toolkit.exceptions import KVStoreException
from fal.toolkit.utils.download_utils import FAL_PERSISTENT_DIR

MIN_TTL_SECONDS = 60
MAX_TTL_SECONDS = 30 * 24 * 3600
_TEMPORARY = ".draft-"
_OLD_TEMPORARY_SECONDS = 3600
_LOCK = ".lock"
# A file attribute: the boot's id, the second of that boot at which the value expires, and its ttl.
_KEPT = "user.fal.kept"


class KVStore:
    """A store of texts. The last write wins; there are no locks or counters.

    A monotonic clock counts a ttl, so that changes of the wall clock do not affect it; only across a reboot the wall
    clock counts.

        store = KVStore("my-app")
        store.set("greeting", "hello", ttl=3600)
        store.get("greeting")

    Args:
        db_name: the store's name; each store has its own keys.
    """

    def __init__(self, db_name: str) -> None:
        if not db_name:
            raise ValueError("db_name is empty: name the store")
        self.db_name = db_name
        self._directory = FAL_PERSISTENT_DIR / ".fal" / "kv" / _hashed(db_name)
        self._swept = False

    def get(self, key: str) -> str | None:
        """Return a key's value; None if it is unset or has expired.

        Raises:
            KVStoreException: it cannot be read.
        """
        try:
            with self._path(key).open(encoding="utf-8", newline="") as file:
                return file.read() if _remaining(file.fileno()) > 0 else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KVStoreException(f"key {key!r} of {self.db_name!r} cannot be read: {error.strerror}") from error

    def set(self, key: str, value: str, ttl: int | None = None) -> None:
        """Set a value. A concurrent reader gets the old or the new value, never a part.

        Args:
            key: any text.
            value: any text; use `json.dumps` for other values.
            ttl: seconds until it expires, 60 to 2,592,000 (30 days); None means 30 days.

        Raises:
            TypeError: the value is not text.
            ValueError: the ttl is out of range.
            KVStoreException: it cannot be written.
        """
        if not isinstance(cast("object", value), str):
            raise TypeError(
                f"the value of {key!r} is not a string but {type(value).__name__}: json.dumps makes one of it"
            )
        seconds = MAX_TTL_SECONDS if ttl is None else ttl
        if not MIN_TTL_SECONDS <= seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"ttl is {ttl}: give {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS} seconds")
        temporary = None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not self._swept:
                self._swept = True
                self._sweep()
            handle, temporary = tempfile.mkstemp(dir=self._directory, prefix=_TEMPORARY)
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(value)
                _keep(file.fileno(), seconds, seconds)
            end = time.time() + seconds
            os.utime(temporary, (end, end))
            with self._locked(shared=True):
                Path(temporary).replace(self._path(key))
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise KVStoreException(f"key {key!r} of {self.db_name!r} cannot be written: {error.strerror}") from error

    def delete(self, key: str) -> None:
        """Delete a key; a missing key is not an error.

        Raises:
            KVStoreException: it cannot be deleted.
        """
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise KVStoreException(f"key {key!r} of {self.db_name!r} cannot be deleted: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        return self._directory / _hashed(key)

    def _sweep(self) -> None:
        """Delete expired values and dead runners' temporary files. Nobody else writes meanwhile."""
        now = time.time()
        with self._locked(), os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a temporary file whose writer has removed it
                    if entry.name.startswith(_TEMPORARY):
                        over = now - entry.stat().st_mtime > _OLD_TEMPORARY_SECONDS
                    else:
                        with Path(entry.path).open("rb") as file:
                            over = entry.name != _LOCK and _remaining(file.fileno()) <= 0
                    if over:
                        Path(entry.path).unlink()

    @contextmanager
    def _locked(self, *, shared: bool = False) -> Generator[None]:
        import fcntl  # imported here, because code for runners, which run Linux, must be importable anywhere

        with (self._directory / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield


def _remaining(file: int) -> float:
    """Return the seconds until a value expires; 0 or less if expired."""
    by_wall_clock = os.fstat(file).st_mtime - time.time()
    if sys.platform != "linux":
        return by_wall_clock
    try:
        boot, end, ttl = os.getxattr(file, _KEPT).decode().split()
        if boot == _boot():
            return float(end) - time.clock_gettime(time.CLOCK_BOOTTIME)
        # It was set before a reboot, or in a container with its own kernel. From now on this boot's clock counts, so a
        # wall clock that was wrong at that time keeps it for at most one more ttl.
        left = min(by_wall_clock, float(ttl))
        _keep(file, left, float(ttl))
    except (OSError, ValueError):  # an earlier version set it, or the file system has no attributes
        return by_wall_clock
    return left


def _keep(file: int, seconds: float, ttl: float) -> None:
    """Record a value's expiry by this boot's clock. On other systems than Linux, only the file's time records it."""
    if sys.platform == "linux":
        end = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
        with suppress(OSError):
            os.setxattr(file, _KEPT, f"{_boot()} {end:.3f} {ttl:.0f}".encode())


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _hashed(text: str) -> str:
    """Return a file name for any text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
