"""Notices that nobody can reach a runner any more. The runner then does not run for ever."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fal_runner.shim.address import SocketPath

_LONGEST_LOOK_SECONDS = 30.0
_CONNECT_SECONDS = 5.0


class OrphanWatch:
    """Tells when controller and node process were both away for so long.

    Args:
        seconds: how long.
        last_call_at: returns when the last call came, by `now`.
        kept: whether the node process is there now.
        now: returns the time in seconds, by a clock that never steps.
    """

    def __init__(
        self,
        seconds: float,
        last_call_at: Callable[[], float],
        kept: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._last_call_at = last_call_at
        self._kept = kept
        self._now = now
        self._kept_at = now()

    def look(self) -> float:
        """Return after how many seconds to look again. It is 0 if nobody was there for too long."""
        now = self._now()
        if self._kept():
            self._kept_at = now
        left = self._seconds - (now - max(self._kept_at, self._last_call_at()))
        return max(0.0, min(left, self._seconds / 4, _LONGEST_LOOK_SECONDS))


def listens(path: Path) -> bool:
    """Whether a process listens on a unix socket. The kernel answers for one that is busy."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, closing(SocketPath(path)) as reachable:
            connection.settimeout(_CONNECT_SECONDS)
            connection.connect(reachable.path)
    except OSError:
        return False
    return True
