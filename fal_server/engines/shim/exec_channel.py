"""The line to a shim's commands: fal.v1.Execs on their own socket, without looking into what is carried."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fal_runner.exec.message_socket import OK, ConnectionBroken, MessageSocket, Status
from fal_runner.shim.address import SocketPath
from fal_server.core.faults import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

_CALL_SECONDS = 10.0
_KINDS: dict[str, type[Fault]] = {
    kind.reason: kind for kind in (Aborted, AlreadyExists, ResourceExhausted, NotFound, FailedPrecondition)
}


class ShimExecChannel:
    """Implements ExecChannel. Each call has a connection of its own, and ends with it.

    Args:
        address: the path of the socket.
        token: the runner's token.
        runner_id: for messages.
        links: those that are open stand here, to be closed by who lets go of the runner.
    """

    def __init__(self, address: Path, token: str, runner_id: str, links: set[MessageSocket]) -> None:
        self._address = address
        self._token = token
        self._runner_id = runner_id
        self._links = links

    async def call(self, method: str, request: bytes) -> bytes:
        """Call a method that has one answer."""
        try:
            async with asyncio.timeout(_CALL_SECONDS), self.open(method) as link:
                await link.send(request)
                return await self._last(link)
        except TimeoutError:
            raise Unavailable(f"runner {self._runner_id} did not answer in {_CALL_SECONDS:g} seconds") from None

    async def read(self, request: bytes) -> AsyncGenerator[bytes]:
        """ReadExec."""
        async with self.open("ReadExec") as link:
            await link.send(request)
            while isinstance(received := await link.receive(), bytes):
                yield received
            self.check(received)

    async def write(self, requests: AsyncIterator[bytes]) -> bytes:
        """WriteExec."""
        async with self.open("WriteExec") as link:
            with suppress(ConnectionBroken):  # it was ended from the other side; how is learnt below
                async for request in requests:
                    await link.send(request)
                link.end_sending()
            return await self._last(link)

    async def _last(self, link: MessageSocket) -> bytes:
        """The one answer."""
        answer = await link.receive()
        if not isinstance(answer, bytes):
            self.check(answer)
            raise Unavailable(f"the link to runner {self._runner_id} ended before the answer")
        self.check(await link.receive())
        return answer

    @asynccontextmanager
    async def open(self, method: str) -> AsyncGenerator[MessageSocket]:
        """A connection on which the method is called.

        Raises:
            Unavailable: the runner cannot be reached, or the link broke.
        """
        connection = socket.socket(socket.AF_UNIX)
        path = SocketPath(self._address)
        try:
            connection.setblocking(False)
            connection.connect(path.path)
        except OSError as error:
            connection.close()
            raise Unavailable(f"runner {self._runner_id} takes no commands now: {error}") from error
        finally:
            path.close()
        link = MessageSocket(connection)
        self._links.add(link)
        try:
            await link.send(json.dumps({"method": method, "token": self._token}).encode())
            yield link
        except ConnectionBroken as error:
            raise Unavailable(f"the link to runner {self._runner_id} broke: {error.strerror}") from error
        finally:
            self._links.discard(link)
            link.close()

    def check(self, status: Status | bytes | None) -> None:
        """Raise the refusal that a status is; what is none means that the link broke.

        Raises:
            Fault: it was refused.
            Unavailable: there is no status.
        """
        if not isinstance(status, Status):
            raise Unavailable(f"the link to runner {self._runner_id} ended too early")
        if status.code == OK:
            return
        if status.code == "INVALID_ARGUMENT":
            field, _, rest = status.message.partition(": ")
            raise InvalidArgument(field, rest or status.message)
        kind = _KINDS.get(status.code)
        raise kind(status.message) if kind else Unavailable(f"runner {self._runner_id}: {status.message}")
