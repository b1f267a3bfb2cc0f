"""The socket for commands: it checks the token, and answers malformed calls."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fal_grpc.v1 import exec_pb2
from fal_runner.exec.listener import ExecListener
from fal_runner.exec.message_socket import MessageSocket, Status
from fal_runner.exec.service import ExecService
from fal_runner.process.subreaper import Subreaper
from fal_runner.shim.address import EXEC_SOCKET_NAME, SocketPath
from fal_runner.shim.servicer import TokenInterceptor

TOKEN = "the-token-of-this-runner"


@asynccontextmanager
async def open_door(directory: Path) -> AsyncGenerator[Path]:
    door = ExecListener(
        SocketPath(directory / EXEC_SOCKET_NAME), TokenInterceptor(TOKEN), ExecService(directory, Subreaper())
    )
    door.open()
    yield directory / EXEC_SOCKET_NAME
    await door.close()


async def knock(path: Path, greeting: bytes, *requests: bytes) -> bytes | Status | None:
    """Send a call; return the first answer."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(SocketPath(path).path)
    link = MessageSocket(connection)
    try:
        async with asyncio.timeout(30):
            await link.send(greeting)
            for request in requests:
                await link.send(request)
            link.end_sending()
            return await link.receive()
    finally:
        link.close()


def greeting(method: str, token: str = TOKEN) -> bytes:
    return json.dumps({"method": method, "token": token}).encode()


@pytest.mark.parametrize("method", ["ListExecs", "ReadExec", "WriteExec"])
async def test_without_the_token_nobody_is_let_in(tmp_path: Path, method: str) -> None:
    async with open_door(tmp_path) as path:
        refused = await knock(path, greeting(method, "another"), b"")
    assert refused == Status("UNAUTHENTICATED", "the token is not this runner's")


@pytest.mark.parametrize("greeting", [b"", b"[]", b"{}", b"\xff", b'{"method": "ListExecs"}'])
async def test_a_malformed_greeting_is_refused(tmp_path: Path, greeting: bytes) -> None:
    async with open_door(tmp_path) as path:
        refused = await knock(path, greeting, b"")
        assert isinstance(refused, Status)
        assert refused.code == "INVALID_ARGUMENT"


async def test_refusals_have_their_codes(tmp_path: Path) -> None:
    request = exec_pb2.GetExecRequest(runner_id="r", exec_id="12345678").SerializeToString()
    async with open_door(tmp_path) as path:
        for method, code in (
            ("GetExec", "FAILED_PRECONDITION"),
            ("ReadExec", "FAILED_PRECONDITION"),
            ("WriteExec", "FAILED_PRECONDITION"),
            ("NoSuchExec", "UNIMPLEMENTED"),
        ):
            refused = await knock(path, greeting(method), request)
            assert isinstance(refused, Status)
            assert refused.code == code
        refused = await knock(path, greeting("GetExec"), b"\xff\xff")
        assert isinstance(refused, Status)
        assert refused == Status("INVALID_ARGUMENT", "request: the request's bytes are no fal.v1.GetExecRequest")


async def test_a_caller_that_goes_away_at_once_harms_nobody(tmp_path: Path) -> None:
    async with open_door(tmp_path) as path:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(SocketPath(path).path)
        assert await knock(path, greeting("ListExecs"), b"") == b""


async def test_the_socket_is_its_users_own(tmp_path: Path) -> None:
    async with open_door(tmp_path) as path:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
