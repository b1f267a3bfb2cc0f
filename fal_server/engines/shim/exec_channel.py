"""Forwards calls of fal.v1.Execs to a shim, without parsing the messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

from fal_runner.exec.message_socket import OK, ConnectionBroken, MessageSocket, Status
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
from fal_server.engines.shim.runner_door import Door

_CALL_SECONDS = 10.0
_KINDS: dict[str, type[Fault]] = {
    kind.reason: kind for kind in (Aborted, AlreadyExists, ResourceExhausted, NotFound, FailedPrecondition)
}


class ShimExecChannel:
    """Implements ExecChannel. Each call has its own connection, and ends with it.

    Args:
        door: the way to the runner.
        token: the runner's token.
        runner_id: for messages.
        links: the open connections, which close when the runner is no longer followed.
    """

    def __init__(self, door: Door, token: str, runner_id: str, links: set[MessageSocket]) -> None:
        self._door = door
        self._token = token
        self._runner_id = runner_id
        self._links = links

    async def call(self, method: str, request: bytes) -> bytes:
        try:
            async with asyncio.timeout(_CALL_SECONDS), self.open(method) as link:
                await link.send(request)
                return await self._last(link)
        except TimeoutError:
            raise Unavailable(f"runner {self._runner_id} did not answer in {_CALL_SECONDS:g} seconds") from None

    async def read(self, request: bytes) -> AsyncGenerator[bytes]:
        async with self.open("ReadExec") as link:
            await link.send(request)
            while isinstance(received := await link.receive(), bytes):
                yield received
            self.check(received)

    async def write(self, requests: AsyncIterator[bytes]) -> bytes:
        async with self.open("WriteExec") as link:
            with suppress(ConnectionBroken):  # the shim has ended the call, and its status follows
                async for request in requests:
                    await link.send(request)
                link.end_sending()
            return await self._last(link)

    async def _last(self, link: MessageSocket) -> bytes:
        answer = await link.receive()
        if not isinstance(answer, bytes):
            self.check(answer)
            raise Unavailable(f"the link to runner {self._runner_id} ended before the answer")
        self.check(await link.receive())
        return answer

    @asynccontextmanager
    async def open(self, method: str) -> AsyncGenerator[MessageSocket]:
        """Open a connection and call the method on it.

        Raises:
            Unavailable: the runner cannot be reached, or the connection broke.
        """
        link = MessageSocket(await self._door.connect())
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
        """Raise the fault of a status.

        Raises:
            Fault: the call was refused.
            Unavailable: there is no status, because the connection broke.
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
