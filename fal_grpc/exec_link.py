"""The link to a command in a runner. It says when to reconnect, and which error to raise."""

from __future__ import annotations

import time
from collections.abc import Callable

from fal_grpc.adapter import execs
from fal_grpc.backoff import Backoff
from fal_grpc.errors import (
    CallError,
    ClientClosedError,
    DeadlineExceededError,
    ExecLinkError,
    FalError,
    NotFoundError,
    UnavailableError,
    UnreachableError,
)

PROMPT_SECONDS = 5.0
"""The deadline of calls that a person at a terminal waits for: Ctrl-C, resizing, the end."""

UNREPORTED = (UnavailableError, DeadlineExceededError, NotFoundError)
"""Errors to ignore when reporting a terminal's size: it is reported again once the link is back."""

RECONNECT_SECONDS = 120.0
"""How long to try to reconnect. A command that is not kept waits 30 s for its reader."""

_BROKEN = frozenset({"UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED", "DATA_LOSS"})

# The first attempt comes soon, because a restarting controller listens within a second or two. Pauses stay below a
# second, so that a person at a terminal does not wait longer than necessary.
_BACKOFF = Backoff(first_seconds=0.1, longest_seconds=1.0, factor=1.5)


class ExecReconnectPolicy:
    """Decides whether and when to reconnect a command's output.

    Args:
        info: the command, for messages.
        on_notice: called with a message when the link breaks and when it is back.
    """

    def __init__(self, info: execs.ExecInfo, on_notice: Callable[[str], None]) -> None:
        self._info = info
        self._on_notice = on_notice
        self._broken_at: float | None = None
        self._failures = 0
        self._started = False

    def succeeded(self) -> None:
        """Record that data arrived."""
        if self._broken_at is not None:
            self._on_notice(f"reconnected to command {self._info.exec_id}")
        self._broken_at, self._failures, self._started = None, 0, True

    def pause(self, error: FalError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            FalError: `error`, if another attempt cannot help.
            ExecLinkError: the time for attempts is over, or the command is no longer known.
        """
        info = self._info
        if not isinstance(error, CallError) or (error.code not in _BROKEN and not isinstance(error, NotFoundError)):
            raise error
        if isinstance(error, NotFoundError) and not self._started and self._broken_at is None:
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
        self._failures += 1
        return _BACKOFF.pause(self._failures)


def no_exit_code(runner_id: str) -> ExecLinkError:
    """Return the error for a session that ended without an exit code."""
    return ExecLinkError(
        f"The session in runner {runner_id} ended without an exit code: how the command ended is not known. "
        f"`fal runners list` shows whether the runner still exists."
    )


def input_failed(runner_id: str, error: BaseException) -> ExecLinkError:
    """Return the error for an input iterable that raised an exception."""
    return ExecLinkError(f"The input for the command in runner {runner_id} failed: {error!r}")


def session_closed(runner_id: str) -> ExecLinkError:
    """Return the error for reading a closed session. The caller closed it before the command exited."""
    return ExecLinkError(f"The session in runner {runner_id} was closed before the command had exited.")


def timed_out(runner_id: str, seconds: float | None) -> DeadlineExceededError:
    """Return the error for a command that was ended at its timeout."""
    when = "in its time" if seconds is None else f"after {seconds:g} seconds"
    return DeadlineExceededError(f"The command in runner {runner_id} had not exited {when} and was ended.")


def link_error(
    error: CallError | ClientClosedError, runner_id: str, *, started: bool, timeout_seconds: float | None
) -> FalError:
    """Return the error for a shell session ended by a gRPC error.

    A refusal and an unreachable controller keep their errors. Any other error is a broken link: the command may have
    run, and its exit code is unknown.
    """
    if isinstance(error, DeadlineExceededError) and timeout_seconds is not None:
        return timed_out(runner_id, timeout_seconds)
    if isinstance(error, ClientClosedError) or error.code not in {*_BROKEN, "ABORTED"}:
        return error
    if isinstance(error, UnreachableError) and not started:
        return error
    broken = ExecLinkError(
        f"The link to the command in runner {runner_id} broke: {error.details or error.code}. "
        "How the command ended, or whether it did, is not known."
    )
    broken.__cause__ = error
    return broken
