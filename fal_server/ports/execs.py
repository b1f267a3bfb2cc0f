"""The port to commands in runners that outlive a connection; the controller passes their messages unread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from fal_server.core.runners import Runner


class ExecChannel(Protocol):
    """The channel to the commands of one runner.

    Requests and answers are serialised messages of fal.v1.Execs. The runner's shim serves that service itself, and a
    controller that parsed every piece of output would be slower.
    """

    async def call(self, method: str, request: bytes) -> bytes:
        """Call a method that has one answer, by its name.

        Raises:
            Fault: the call was refused.
            Unavailable: the runner cannot be reached.
        """
        ...

    def read(self, request: bytes) -> AsyncIterator[bytes]:
        """ReadExec; raises like `call`."""
        ...

    async def write(self, requests: AsyncIterator[bytes]) -> bytes:
        """WriteExec; raises like `call`, and whatever `requests` raises."""
        ...


class ExecEngine(Protocol):
    """Reaches the commands of runners."""

    def execs(self, runner: Runner) -> ExecChannel:
        """The channel to a runner's commands.

        Raises:
            Unavailable: the runner cannot be reached.
        """
        ...
