"""The port to commands in runners that outlive a connection. The controller forwards their messages unread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from fal_server.core.runners import Runner


class ExecChannel(Protocol):
    """The channel to the commands of one runner.

    Requests and responses are serialized messages of fal.v1.Execs. The runner's shim serves that service itself, and
    parsing every piece of output would slow the controller down.
    """

    async def call(self, method: str, request: bytes) -> bytes:
        """Call a unary method by its name.

        Raises:
            Fault: the call was refused.
            Unavailable: the runner cannot be reached.
        """
        ...

    def read(self, request: bytes) -> AsyncIterator[bytes]:
        """Call ReadExec. Raises the errors of `call`."""
        ...

    async def write(self, requests: AsyncIterator[bytes]) -> bytes:
        """Call WriteExec. Raises the errors of `call`, and any error of `requests`."""
        ...


class ExecEngine(Protocol):
    """Reaches the commands of runners."""

    def execs(self, runner: Runner) -> ExecChannel:
        """Return the channel to a runner's commands.

        Raises:
            Unavailable: the runner cannot be reached.
        """
        ...
