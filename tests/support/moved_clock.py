"""A wall clock that a test moves, for its child processes. Monotonic clocks stay unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_SHARED = Path("/dev/shm")
_LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class MovedClock:
    """The wall clock of every process that has its `environment`.

    Args:
        folder: gets the file with the offset.
    """

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/").glob(_LIBRARIES.removeprefix("/")))
        assert found, f"{_LIBRARIES} is missing; on Debian: apt install faketime"
        self._library = found[0]
        self._file = folder / "moved_clock"
        self.step(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables of a process whose wall clock follows."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # steps take effect at once
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # otherwise waits with a timeout loop
            "NO_FAKE_STAT": "1",
        }

    def step(self, seconds: float) -> None:
        """Set how far the wall clock is ahead of the real one."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.6f}\n")
        new.replace(self._file)

    @staticmethod
    def clean() -> None:
        """Remove libfaketime's shared memory, which killed processes leave."""
        for shared in _SHARED.glob("faketime_shm_*"):
            pid = shared.name.rpartition("_")[2]
            if not Path(f"/proc/{pid}").exists():
                shared.unlink(missing_ok=True)
                (_SHARED / f"sem.faketime_sem_{pid}").unlink(missing_ok=True)
