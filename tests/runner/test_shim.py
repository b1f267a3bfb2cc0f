"""The shim's process checks the token and writes shim.json. It ends when it is not needed."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from fal_grpc.v1 import shim_pb2, shim_pb2_grpc
from fal_runner.process.proc import boot_id, is_alive, tag_of
from fal_runner.shim.address import TOKEN_METADATA, ShimIdentity, SocketPath

TOKEN = "the-token-of-this-runner"


class Shim:
    """A shim process that has its token."""

    def __init__(self, directory: Path, *arguments: str, token: str = TOKEN) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "fal_runner.shim", "--dir", str(directory), *arguments],
                    stdin=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    text=True,
                )
            ours.sendall(f"{token}\n".encode())
            self.answer = ours.recv(64)


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    shim = Shim(tmp_path)
    yield shim
    shim.process.kill()
    shim.process.communicate()


def spec(directory: Path) -> shim_pb2.RunnerSpec:
    return shim_pb2.RunnerSpec(
        runner_id="runner",
        token=TOKEN,
        python=sys.executable,
        entrypoint="time:sleep",
        working_dir=str(directory),
        bind_host="127.0.0.1",
    )


async def test_it_says_who_it_is(tmp_path: Path, shim: Shim) -> None:
    assert shim.answer == b"ready\n"
    identity = ShimIdentity.read(tmp_path)
    assert identity is not None
    assert identity.pid == shim.process.pid
    assert is_alive(identity.pid, identity.started_ticks)
    assert not is_alive(identity.pid, identity.started_ticks + 1)
    assert (identity.tag, identity.boot_id) == (tag_of(TOKEN), boot_id())
    assert TOKEN not in (tmp_path / "shim.json").read_text()
    assert (tmp_path / "shim.sock").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("metadata", [None, ((TOKEN_METADATA, "wrong"),), ((TOKEN_METADATA, ""),)])
@pytest.mark.parametrize("name", [method.name for method in shim_pb2.DESCRIPTOR.services_by_name["Shim"].methods])
async def test_no_call_goes_through_without_the_token(
    tmp_path: Path, shim: Shim, name: str, metadata: tuple[tuple[str, str], ...] | None
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'shim.sock'}") as channel:
        call = channel.stream_stream(f"/fal.v1.Shim/{name}")(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()  # before a message was sent
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert TOKEN not in str(raised.value)


async def test_a_start_needs_a_whole_specification(tmp_path: Path, shim: Shim) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'shim.sock'}") as channel:
        stub = shim_pb2_grpc.ShimStub(channel)
        metadata = ((TOKEN_METADATA, TOKEN),)
        for field in ("runner_id", "python", "working_dir", "entrypoint"):
            partial = spec(tmp_path)
            partial.ClearField(field)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Start(shim_pb2.StartRequest(spec=partial), metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert field in (raised.value.details() or "")
        for call in (
            stub.Stop(shim_pb2.StopRequest(), metadata=metadata),
            stub.Kill(shim_pb2.KillRequest(), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_start_is_once_and_shutdown_ends_all(tmp_path: Path, shim: Shim) -> None:
    metadata = ((TOKEN_METADATA, TOKEN),)
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'shim.sock'}") as channel:
        stub = shim_pb2_grpc.ShimStub(channel)
        first = await stub.Start(shim_pb2.StartRequest(spec=spec(tmp_path)), metadata=metadata)
        assert await stub.Start(shim_pb2.StartRequest(spec=spec(tmp_path)), metadata=metadata) == first
        other = spec(tmp_path)
        other.runner_id = "another"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Start(shim_pb2.StartRequest(spec=other), metadata=metadata)
        assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
        status = (await stub.GetStatus(shim_pb2.GetStatusRequest(), metadata=metadata)).status
        assert status.worker == first.worker
        await stub.Shutdown(shim_pb2.ShutdownRequest(), metadata=metadata)
    assert await asyncio.to_thread(shim.process.wait, 30) == 0
    assert not is_alive(first.worker.pid, first.worker.start_ticks)


async def test_with_its_worker_gone_it_waits_for_a_controller_for_so_long(tmp_path: Path) -> None:
    shim = Shim(tmp_path, "--keep-seconds", "0.1")
    short = spec(tmp_path)
    short.entrypoint = "os:getpid"
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'shim.sock'}") as channel:
        stub = shim_pb2_grpc.ShimStub(channel)
        await stub.Start(shim_pb2.StartRequest(spec=short), metadata=((TOKEN_METADATA, TOKEN),))
    _, stderr = await asyncio.to_thread(shim.process.communicate, timeout=30)
    assert (shim.process.returncode, stderr) == (0, "")
    assert list((tmp_path / "log").iterdir()) != []


def test_without_a_start_it_ends(tmp_path: Path) -> None:
    shim = Shim(tmp_path, "--start-seconds", "0.1")
    _, stderr = shim.process.communicate(timeout=30)
    assert shim.process.returncode == 0
    assert "no Start within 0.1 s" in stderr


def test_without_a_token_it_does_not_begin(tmp_path: Path) -> None:
    shim = Shim(tmp_path, token="")
    _, stderr = shim.process.communicate(timeout=30)
    assert (shim.answer, shim.process.returncode) == (b"", 2)
    assert "no token" in stderr


def test_a_token_comes_by_a_pipe_too(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fal_runner.shim", "--dir", str(tmp_path), "--start-seconds", "0"],
        input=f"{TOKEN}\n",
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0
    assert ShimIdentity.read(tmp_path) is not None


def test_a_long_path_is_reached_through_its_directory(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    address = SocketPath(directory / "shim.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address.path)
        assert (directory / "shim.sock").is_socket()
    address.close()
    assert SocketPath(Path("/short/shim.sock")).target == "unix:/short/shim.sock"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_broken_identity_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "shim.json").write_text(text)
    assert ShimIdentity.read(tmp_path) is None
