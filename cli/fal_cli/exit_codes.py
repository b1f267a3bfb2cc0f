"""The exit codes of `fal`, and the exception that carries one. `docs/reference/cli.md` documents them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes. `runners exec` and `runners shell` return the remote command's code instead of OK."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 124
    """A remote command ran out of time and was ended; the same code as timeout(1)'s."""
    INTERRUPTED = 130
    """128 + SIGINT: Ctrl-C."""
    BROKEN_PIPE = 141
    """128 + SIGPIPE: the reader of the output closed it."""
    LINK_BROKEN = 254
    """The connection to a remote command was lost, so its outcome is unknown."""


class CommandError(Exception):
    """A failure that the user can understand.

    Args:
        message: names the cause and the next step; printed after `Error: `.
        code: the exit code of the process.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
