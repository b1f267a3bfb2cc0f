"""Commands in runners, on both sides: input, output, exit codes, broken connections."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import grpc
import pytest

from fal_grpc.adapter.shell import CHUNK_BYTES
from fal_grpc.aio import AsyncController
from fal_grpc.controller import Controller
from fal_grpc.errors import (
    DeadlineExceededError,
    ExecLinkError,
    NotFoundError,
    PermissionDeniedError,
    UnreachableError,
)
from fal_grpc.target import parse_target
from fal_grpc.v1 import runner_pb2
from tests.client.support import HANG_SECONDS, KEY, FakeController, aborting

Output = runner_pb2.ShellRunnerOutput


class Session:
    """Runs a command through one side of the client. It returns the output by stream, and the exit code."""

    def __init__(self, name: str, fake: FakeController) -> None:
        self.name = name
        self.host = fake.host

    def run(self, *args: Any, **kwargs: Any) -> tuple[bytes, bytes, int]:
        if self.name == "asyncio":
            return asyncio.run(self._awaited(args, kwargs))
        with (
            Controller(parse_target(self.host), KEY) as controller,
            controller.shell_runner(*args, **kwargs) as session,
        ):
            return split([(output.stream, output.data) for output in session], session.wait())

    async def _awaited(self, args, kwargs) -> tuple[bytes, bytes, int]:
        async with (
            asyncio.timeout(HANG_SECONDS),
            AsyncController(parse_target(self.host), KEY) as controller,
            controller.shell_runner(*args, **kwargs) as session,
        ):
            return split([(output.stream, output.data) async for output in session], await session.wait())


def split(outputs: list[tuple[int, bytes]], code: int) -> tuple[bytes, bytes, int]:
    out = b"".join(data for stream, data in outputs if stream == 1)
    return out, b"".join(data for stream, data in outputs if stream == 2), code


@pytest.fixture(params=["blocking", "asyncio"])
def session(request, fake) -> Session:
    return Session(request.param, fake)


def echo(requests, context):
    """Answer as a command that writes what it reads. Write its first message to standard error."""
    first = next(requests)
    yield Output(data=f"{first.runner_id} {list(first.command)} {first.tty}".encode(), stream=2)
    for request in requests:
        if request.data:
            yield Output(data=request.data)
        if request.close:
            break
    yield Output(exit_code=3)


def sent(fake: FakeController) -> list[runner_pb2.ShellRunnerInput]:
    return cast("list[runner_pb2.ShellRunnerInput]", fake.calls[0].requests)


def test_a_command_without_input(session, fake):
    fake.answers["ShellRunner"] = echo
    assert session.run("r1", ["cat", "-n"], tty=False) == (b"", b"r1 ['cat', '-n'] False", 3)
    assert [(request.runner_id, request.close) for request in sent(fake)] == [("r1", False), ("", True)]
    assert all(request.HasField("tty") for request in sent(fake)[:1])


def test_input_goes_in_pieces(session, fake):
    fake.answers["ShellRunner"] = echo
    data = bytes(range(256)) * 400
    assert session.run("r1", ["cat"], tty=False, stdin=data)[0] == data
    sizes = [len(request.data) for request in sent(fake)[1:-1]]
    assert sum(sizes) == len(data)
    assert max(sizes) == CHUNK_BYTES


def test_input_from_an_iterable(session, fake):
    fake.answers["ShellRunner"] = echo
    assert session.run("r1", ["cat"], tty=False, stdin=iter([b"a", b"", b"b"]))[0] == b"ab"


def test_text_is_encoded(session, fake):
    fake.answers["ShellRunner"] = echo
    assert session.run("r1", ["cat"], tty=False, stdin="hé")[0] == "hé".encode()


async def test_input_from_an_async_iterable(fake):
    async def lines():
        for line in (b"a\n", b"b\n"):
            await asyncio.sleep(0)
            yield line

    fake.answers["ShellRunner"] = echo
    async with asyncio.timeout(HANG_SECONDS), AsyncController(parse_target(fake.host), KEY) as controller:
        session = controller.shell_runner("r1", ["cat"], tty=False, stdin=lines())
        found = [output.data async for output in session]
    assert b"".join(found[1:]) == b"a\nb\n"


def test_with_a_terminal_the_half_close_ends_the_input(session, fake):
    fake.answers["ShellRunner"] = echo
    assert session.run("r1", (), tty=True, stdin=b"x") == (b"x", b"r1 [] True", 3)
    assert not [request for request in sent(fake) if request.close]


def test_an_interactive_session(fake):
    ready = threading.Event()

    def command(requests, context):
        next(requests)
        size = next(requests).tty_size
        ready.set()
        yield Output(data=f"{size.height}x{size.width}".encode())
        yield Output(data=next(requests).data)
        assert next(requests, None) is None
        yield Output(exit_code=0)

    fake.answers["ShellRunner"] = command
    with (
        Controller(parse_target(fake.host), KEY) as controller,
        controller.shell_runner("r1", interactive=True) as session,
    ):
        session.resize(24, 80)
        assert ready.wait(HANG_SECONDS)
        session.send(b"ls\n")
        session.close_input()
        assert [output.data for output in session] == [b"24x80", b"ls\n"]
        assert session.exit_code == 0
        session.send(b"too late")


async def test_an_interactive_session_of_asyncio(fake):
    def command(requests, context):
        next(requests)
        size = next(requests).tty_size
        yield Output(data=f"{size.height}x{size.width}".encode())
        yield Output(data=next(requests).data)
        assert next(requests, None) is None
        yield Output(exit_code=0)

    fake.answers["ShellRunner"] = command
    async with (
        asyncio.timeout(HANG_SECONDS),
        AsyncController(parse_target(fake.host), KEY) as controller,
        controller.shell_runner("r1", interactive=True) as session,
    ):
        await session.resize(24, 80)
        await session.send(b"ls\n")
        await session.close_input()
        assert [output.data async for output in session] == [b"24x80", b"ls\n"]
        assert session.exit_code == 0
        await session.send(b"too late")


@pytest.mark.parametrize("end", [[], [Output(close=True)], [Output(data=b"x"), Output(close=True)]])
def test_an_end_without_exit_code_is_no_exit_code(session, fake, end):
    fake.answers["ShellRunner"] = end
    with pytest.raises(ExecLinkError, match="r1 ended without an exit code"):
        session.run("r1", ["true"], tty=False)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "DATA_LOSS", "CANCELLED"])
def test_a_broken_link_is_its_own_error(session, fake, code):
    def command(requests, context):
        yield Output(data=b"some")
        context.abort(grpc.StatusCode[code], "shim went away")

    fake.answers["ShellRunner"] = command
    with pytest.raises(ExecLinkError, match="shim went away"):
        session.run("r1", ["true"], tty=False)


def test_a_link_that_breaks_before_any_output_is_broken_too(session, fake):
    fake.answers["ShellRunner"] = aborting(grpc.StatusCode.UNAVAILABLE, "stopping")
    with pytest.raises(ExecLinkError, match="stopping"):
        session.run("r1", ["true"], tty=False)


@pytest.mark.parametrize(("code", "kind"), [("NOT_FOUND", NotFoundError), ("PERMISSION_DENIED", PermissionDeniedError)])
def test_a_refusal_stays_a_refusal(session, fake, code, kind):
    fake.answers["ShellRunner"] = aborting(grpc.StatusCode[code], "no")
    with pytest.raises(kind):
        session.run("r1", ["true"], tty=False)


def test_a_controller_that_is_not_there_is_no_broken_link(session):
    session.host = "127.0.0.1:1"
    with pytest.raises(UnreachableError):
        session.run("r1", ["true"], tty=False)


def test_a_command_that_outlasts_its_timeout(session, fake):
    def command(requests, context):
        yield Output(data=b"working")
        fake.cancelled.wait(HANG_SECONDS)

    fake.answers["ShellRunner"] = command
    with pytest.raises(DeadlineExceededError, match=r"had not exited after 0.3 seconds") as caught:
        session.run("r1", ["sleep"], tty=False, timeout_seconds=0.3)
    assert isinstance(caught.value, TimeoutError)
    assert fake.cancelled.wait(HANG_SECONDS)


def test_the_callers_own_input_may_fail(session, fake):
    def broken():
        yield b"a"
        raise OSError("disk on fire")

    fake.answers["ShellRunner"] = echo
    with pytest.raises(ExecLinkError, match="disk on fire") as caught:
        session.run("r1", ["cat"], tty=False, stdin=broken())
    assert isinstance(caught.value.__cause__, OSError)


def test_closing_ends_the_command(fake):
    def command(requests, context):
        yield Output(data=b"working")
        fake.cancelled.wait(HANG_SECONDS)

    fake.answers["ShellRunner"] = command
    with Controller(parse_target(fake.host), KEY) as controller:
        session = controller.shell_runner("r1", interactive=True)
        outputs = iter(session)
        assert next(outputs).data == b"working"
        session.close()
        with pytest.raises(ExecLinkError, match="was closed before"):
            next(outputs)
    assert fake.cancelled.wait(HANG_SECONDS)
    assert session.exit_code is None


async def test_closing_ends_the_command_of_asyncio(fake):
    def command(requests, context):
        yield Output(data=b"working")
        fake.cancelled.wait(HANG_SECONDS)

    fake.answers["ShellRunner"] = command
    async with asyncio.timeout(HANG_SECONDS), AsyncController(parse_target(fake.host), KEY) as controller:
        session = controller.shell_runner("r1", interactive=True)
        outputs = aiter(session)
        assert (await anext(outputs)).data == b"working"
        await session.close()
        with pytest.raises(ExecLinkError, match="was closed before"):
            await anext(outputs)
    assert await asyncio.to_thread(fake.cancelled.wait, HANG_SECONDS)


def test_a_runner_that_does_not_read_is_felt(fake):
    """Input waits in the sender instead of growing in memory."""
    release = threading.Event()

    def command(requests, context):
        next(requests)
        release.wait(HANG_SECONDS)
        total = sum(len(request.data) for request in requests)
        yield Output(data=str(total).encode())
        yield Output(exit_code=0)

    fake.answers["ShellRunner"] = command
    produced = 0
    stalled = threading.Event()

    def blocks():
        nonlocal produced
        for _ in range(400):
            produced += 1
            if produced == 2:
                stalled.set()
            yield bytes(CHUNK_BYTES)

    with Controller(parse_target(fake.host), KEY) as controller:
        session = controller.shell_runner("r1", ["cat"], tty=False, stdin=blocks())
        assert stalled.wait(HANG_SECONDS)
        assert produced < 400
        release.set()
        assert [output.data for output in session] == [str(400 * CHUNK_BYTES).encode()]
