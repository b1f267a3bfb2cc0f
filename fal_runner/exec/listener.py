"""Accepts calls about commands on a unix socket beside the gRPC server's. Each call has its own connection.

A call starts with a message that names the method and carries the runner's token, as JSON. The requests follow, then
the responses, and finally the status. See docs/explanation/decisions/0011-commands-have-a-socket-of-their-own.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Protocol

from fal_runner.exec.message_socket import OK, ConnectionBroken, MessageSocket, Status
from fal_runner.exec.service import ExecError, ExecService
from fal_runner.shim.address import SocketPath

log = logging.getLogger(__name__)
_GREETING_SECONDS = 10.0
_BACKLOG = 128


class TokenCheck(Protocol):
    """Knows the runner's token."""

    def passes(self, token: str) -> bool:
        """Return whether this is the token. If so, count it as a call."""
        ...


class ExecListener:
    """Listens for calls.

    Args:
        path: the path of the socket, which must not exist yet.
        tokens: decides who may call.
        execs: answers calls.
    """

    def __init__(self, path: SocketPath, tokens: TokenCheck, execs: ExecService) -> None:
        self._path = path
        self._tokens = tokens
        self._execs = execs
        self._listening = socket.socket(socket.AF_UNIX)
        self._calls: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Start listening for this user alone. The socket gets its mode before anybody can connect."""
        self._listening.setblocking(False)
        self._listening.bind(self._path.path)
        Path(self._path.path).chmod(0o600)
        self._listening.listen(_BACKLOG)
        asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)

    async def close(self) -> None:
        """Stop listening, and end the open calls."""
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._path.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the caller has left again; or no descriptor is left, and the call is accepted later
            connection, _ = self._listening.accept()
            call = asyncio.get_running_loop().create_task(self._serve(MessageSocket(connection)))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _serve(self, link: MessageSocket) -> None:
        try:
            try:
                await self._answer(link)
                status = Status(OK)
            except ExecError as error:
                status = Status(error.code, error.message)
            except (ConnectionBroken, TimeoutError):
                return
            except Exception as error:
                log.exception("a call about a command failed")
                status = Status("INTERNAL", f"the shim failed: {error!r}")
            with suppress(ConnectionBroken):
                await link.end(status)
        finally:
            link.close()

    async def _answer(self, link: MessageSocket) -> None:
        async with asyncio.timeout(_GREETING_SECONDS):
            greeting = await link.receive()
        method, token = _greeting(greeting)
        if not self._tokens.passes(token):
            raise ExecError("UNAUTHENTICATED", "the token is not this runner's")
        match method:
            case "ReadExec":
                await self._read(link)
            case "WriteExec":
                async with aclosing(_messages(link)) as messages:
                    await link.send(await self._execs.write(messages))
            case _:
                await link.send(self._execs.call(method, await _request(link)))

    async def _read(self, link: MessageSocket) -> None:
        """Send output until its end, or until the caller leaves."""
        request = await _request(link)
        sending = asyncio.create_task(self._send_all(link, request))
        gone = asyncio.create_task(link.receive())
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.wait((sending, gone))
        if not gone.cancelled():
            gone.exception()  # retrieved, because asyncio would complain otherwise
        if sending.cancelled():
            raise ConnectionBroken(0, "the caller is gone")
        sending.result()

    async def _send_all(self, link: MessageSocket, request: bytes) -> None:
        async with aclosing(self._execs.read(request)) as messages:
            async for parts in messages:
                await link.send(*parts)


def _greeting(data: bytes | Status | None) -> tuple[str, str]:
    try:
        greeting = json.loads(data) if isinstance(data, bytes) else {}
        return str(greeting["method"]), str(greeting["token"])
    except (ValueError, KeyError, TypeError) as error:
        raise ExecError("INVALID_ARGUMENT", "greeting: it must be JSON with method and token") from error


async def _request(link: MessageSocket) -> bytes:
    data = await link.receive()
    if not isinstance(data, bytes):
        raise ConnectionBroken(0, "the caller ended before the request")
    return data


async def _messages(link: MessageSocket) -> AsyncGenerator[bytes]:
    while isinstance(data := await link.receive(), bytes):
        yield data
