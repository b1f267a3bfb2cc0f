"""When a broken link to a command is tried again, and when no more."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from fal_grpc.adapter import execs
from fal_grpc.errors import CallError, ExecLinkError, FalError, NotFoundError, UnavailableError

BROKEN = frozenset({"UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED", "DATA_LOSS"})
RECONNECT_SECONDS = 120.0
"""How long a broken link is tried again; a command that is not kept waits 30 s for its reader."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0


class Reconnects:
    """How long to wait before a broken link is tried again, and when to give up.

    The first try comes soon, because most breaks are short: a controller that is started again listens within a second
    or two. The pauses grow, so that one that is gone for longer is not kept busy with refusing, but stay within a
    second, so that a person at the terminal does not wait for nothing. Each is cut by chance, up to a half: the readers
    of a controller all lose it at the same moment, and shall not all come back at one.

    Args:
        info: the command, for messages.
        on_notice: told what a person should know.
    """

    def __init__(self, info: execs.ExecInfo, on_notice: Callable[[str], None]) -> None:
        self._info = info
        self._on_notice = on_notice
        self._broken_at: float | None = None
        self._delay = _FIRST_PAUSE_SECONDS
        self._begun = False

    def succeeded(self) -> None:
        """Something came."""
        if self._broken_at is not None:
            self._on_notice(f"reconnected to command {self._info.exec_id}")
        self._broken_at, self._delay, self._begun = None, _FIRST_PAUSE_SECONDS, True

    def ended_early(self) -> FalError:
        """The stream ended, and did not say how the command did."""
        return UnavailableError("the stream ended early")

    def pause(self, error: FalError) -> float:
        """Seconds to wait before the next try.

        Raises:
            FalError: it is none that another try could mend.
            ExecLinkError: there were enough tries, or the command is not known any more.
        """
        info = self._info
        if not isinstance(error, CallError) or (error.code not in BROKEN and not isinstance(error, NotFoundError)):
            raise error
        if isinstance(error, NotFoundError) and not self._begun and self._broken_at is None:
            raise error
        now = time.monotonic()
        if self._broken_at is None:
            self._broken_at = now
            why = error.details or error.code
            self._on_notice(f"the link to command {info.exec_id} broke ({why}); reconnecting")
        if isinstance(error, NotFoundError) or now - self._broken_at > RECONNECT_SECONDS:
            raise ExecLinkError(
                f"The link to command {info.exec_id} in runner {info.runner_id} broke: "
                f"{error.details or error.code}. How the command ended, or whether it did, is not known."
            ) from error
        delay, self._delay = self._delay, min(_LONGEST_PAUSE_SECONDS, self._delay * 1.5)
        return delay * random.uniform(0.5, 1)  # noqa: S311  # no secret
