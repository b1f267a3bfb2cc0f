"""The port to commands in runners that survive the link. What is said about them passes the controller unread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from fal_server.core.runners import Runner


class ExecChannel(Protocol):
    """The line to the commands of one runner.

    Requests and answers are messages of fal.v1.Execs, serialised: whoever looks after the runner serves that service
    itself, and a controller that took every piece of output apart and put it together again would be slower.
    """

    async def call(self, method: str, request: bytes) -> bytes:
        """Call a method that has one answer, by its name.

        Raises:
            Fault: it was refused.
            Unavailable: the runner cannot be reached.
        """
        ...

    def read(self, request: bytes) -> AsyncIterator[bytes]:
        """ReadExec; raises as `call`."""
        ...

    async def write(self, requests: AsyncIterator[bytes]) -> bytes:
        """WriteExec; raises as `call`, and whatever `requests` raises."""
        ...


class ExecEngine(Protocol):
    """What commands run with."""

    def execs(self, runner: Runner) -> ExecChannel:
        """The line to a runner's commands.

        Raises:
            Unavailable: the runner cannot be reached.
        """
        ...
