"""The exit codes of `fal`, and the exceptions that carry them. docs/reference/cli.md has the same table for users."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What `fal` exits with; `runners exec` and `runners shell` exit with the remote command's code instead of OK."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 124
    """The time of a remote command was over, and it was ended; the same code as timeout(1)'s."""
    INTERRUPTED = 130
    """128 + SIGINT: Ctrl-C."""
    BROKEN_PIPE = 141
    """128 + SIGPIPE: whoever read the output went away."""
    LINK_BROKEN = 254
    """The connection to a remote command was lost: nothing is known of how the command ended."""


class CommandError(Exception):
    """A command failed in a way that its user can understand.

    Args:
        message: names the thing and the next step; printed after `Error: `.
        code: what the process exits with.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
