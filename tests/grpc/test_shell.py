"""ShellRunner: the order of each side's messages, and ends of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest

from fal_grpc.v1 import runner_pb2 as pb
from fal_grpc.v1.runner_pb2_grpc import RunnersStub
from fal_server.core.faults import Unavailable
from fal_server.ports import ExecOutput, ExecRequest, TerminalSize
from tests.grpc.conftest import Stack

Input = pb.ShellRunnerInput


@pytest.fixture
def session(stack: Stack):
    stack.runners.add(stack.runner("r"))
    stack.runners.session = stack.session()
    return stack.runners.session


def shell(stack: Stack, requests: Iterator[Input] | None = None):
    channel: grpc.aio.Channel = stack.channel
    return RunnersStub(channel).ShellRunner(requests, metadata=stack.metadata)


async def output(stream) -> pb.ShellRunnerOutput:
    read = await stream.read()
    assert isinstance(read, pb.ShellRunnerOutput)
    return read


async def seen(stream) -> list[tuple[bytes, int, int | None]]:
    return [(each.data, each.stream, each.exit_code if each.HasField("exit_code") else None) async for each in stream]


async def test_a_command_without_a_terminal(stack: Stack, session) -> None:
    first = Input(runner_id="r", command=["cat", "-n"], tty=False)
    parts = await seen(shell(stack, iter([first, Input(data=b"abc"), Input(close=True)])))
    # The exit code comes last and alone.
    assert parts == [(b"ABC", 1, None), (b"bye", 2, None), (b"", 0, 0)]
    assert stack.runners.calls == [("r", ExecRequest(command=("cat", "-n"), tty=False))]
    assert session.closed.is_set()


async def test_an_input_that_ends_without_close_is_at_its_end(stack: Stack, session) -> None:
    parts = await seen(shell(stack, iter([Input(runner_id="r", command=["cat"], tty=False)])))
    assert parts == [(b"bye", 2, None), (b"", 0, 0)]


async def test_with_a_terminal_the_command_outlives_the_input(stack: Stack, session) -> None:
    stream = shell(stack)
    await stream.write(Input(runner_id="r"))
    await stream.write(Input(tty_size=pb.TerminalSize(height=50, width=132)))
    await stream.write(Input(data=b"ls\n"))
    assert (await output(stream)).data == b"LS\n"
    await stream.done_writing()
    await session.outputs.put(ExecOutput(data=b"later"))
    assert (await output(stream)).data == b"later"
    assert not session.eof.is_set()
    await session.outputs.put(ExecOutput(exit_code=7))
    last = await output(stream)
    assert (last.exit_code, last.data, last.close) == (7, b"", False)
    assert await stream.read() is grpc.aio.EOF
    assert session.sizes == [(50, 132)]
    # Clients without the field mean a terminal; an empty command is a login shell.
    assert stack.runners.calls == [("r", ExecRequest(command=(), tty=True))]


async def test_the_first_message_may_hold_everything(stack: Stack, session) -> None:
    first = Input(
        runner_id="r", tty=True, tty_size=pb.TerminalSize(height=10, width=20), data=b"exit 3", command=["sh"]
    )
    assert await seen(shell(stack, iter([first]))) == [(b"", 0, 3)]
    assert stack.runners.calls == [
        ("r", ExecRequest(command=("sh",), tty=True, size=TerminalSize(height=10, width=20)))
    ]


async def test_output_and_exit_code_in_one_become_two_messages(stack: Stack, session) -> None:
    await session.outputs.put(ExecOutput(data=b"x", exit_code=5))
    assert await seen(shell(stack, iter([Input(runner_id="r")]))) == [(b"x", 1, None), (b"", 0, 5)]


async def test_a_caller_that_goes_away_hangs_the_command_up(stack: Stack, session) -> None:
    stream = shell(stack)
    await stream.write(Input(runner_id="r"))
    await stream.write(Input(data=b"x"))
    await stream.read()
    stream.cancel()
    async with asyncio.timeout(30):
        await session.closed.wait()


async def test_a_session_is_open_before_it_says_anything(stack: Stack, session) -> None:
    stream = shell(stack)
    await stream.write(Input(runner_id="r"))
    async with asyncio.timeout(30):
        assert "x-request-id" in dict(await stream.initial_metadata())
    stream.cancel()
    await session.closed.wait()


async def refused(stream) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await seen(stream)
    return caught.value


async def test_nothing_at_all_names_no_runner(stack: Stack) -> None:
    assert (await refused(shell(stack, iter([])))).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "nonsense", [[Input(tty_size=pb.TerminalSize(height=0, width=80))], [Input(close=True), Input(data=b"late")]]
)
async def test_nonsense_ends_the_session(stack: Stack, session, nonsense) -> None:
    async def put_nothing(*_: object) -> None: ...

    session.send_eof = put_nothing
    error = await refused(shell(stack, iter([Input(runner_id="r", tty=False), *nonsense])))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert session.closed.is_set()


async def test_a_broken_link_is_no_exit_code(stack: Stack, session) -> None:
    await session.outputs.put(ExecOutput(data=b"so far"))
    await session.outputs.put(None)
    stream = shell(stack)
    await stream.write(Input(runner_id="r"))
    assert (await output(stream)).data == b"so far"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    error = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "not known" in (error.details() or "")


async def test_a_command_that_reads_no_more_still_tells_its_exit_code(stack: Stack, session) -> None:
    written = asyncio.Event()

    async def broken(data: bytes) -> None:
        written.set()
        raise Unavailable("it reads no more")

    session.write = broken
    stream = shell(stack, iter([Input(runner_id="r", data=b"x")]))
    async with asyncio.timeout(30):
        await written.wait()
    await session.outputs.put(ExecOutput(exit_code=9))
    assert await seen(stream) == [(b"", 0, 9)]
