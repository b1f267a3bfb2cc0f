"""Commands beside a worker: exit codes, streams, terminals, signals, and vanishing callers."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import signal
import sys
from typing import Any

import pytest

from fal_server.core.faults import FailedPrecondition, InvalidArgument, Unavailable
from fal_server.core.lifecycle import Event
from fal_server.ports import ExecRequest, TerminalSize

# Not a shell: its child would miss a signal between fork and exec.
SLEEPER = "import signal; signal.signal(2, signal.SIG_DFL); print('ready', flush=True); signal.pause()"


def idle() -> None:
    import threading

    print("idle", flush=True)
    threading.Event().wait()


@pytest.fixture
async def runner(rig: Any) -> Any:
    return await rig.start(idle, variables={"FROM_THE_APP": "yes"})


async def read_until(outputs: Any, text: bytes, so_far: bytes = b"") -> bytes:
    """Read up to this text; return all that was read."""
    async with asyncio.timeout(30):
        while text not in so_far:
            output = await anext(outputs)
            assert output.exit_code is None, so_far
            so_far += output.data
    return so_far


@pytest.mark.parametrize("code", [0, 1, 42, 255])
async def test_the_exit_code_is_exact(rig: Any, runner: Any, code: int) -> None:
    assert (await rig.run(runner, "sh", "-c", f"exit {code}")).code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGPIPE])
async def test_death_by_a_signal_is_128_and_its_number(rig: Any, runner: Any, number: int) -> None:
    assert (await rig.run(runner, "sh", "-c", f"kill -{int(number)} $$")).code == 128 + number


async def test_streams_are_apart(rig: Any, runner: Any) -> None:
    ran = await rig.run(runner, "sh", "-c", "echo out; echo err >&2")
    assert (bytes(ran.stdout), bytes(ran.stderr), ran.code) == (b"out\n", b"err\n", 0)


async def test_stdin_is_passed_to_its_end(rig: Any, runner: Any) -> None:
    ran = await rig.run(runner, "cat", stdin=b"\x00\xff[bold]\r\n")
    assert bytes(ran.stdout) == b"\x00\xff[bold]\r\n"


async def test_environment_interpreter_and_directory_are_the_apps(rig: Any, runner: Any) -> None:
    code = "import os, sys; print(os.environ['FROM_THE_APP'], os.environ['MORE'], os.getcwd(), sys.executable)"
    ran = await rig.run(runner, "python", "-c", code, variables={"MORE": "too"})
    # /app where the kernel allows a view of its own.
    directories = ("/app", rig.root / "runners" / runner.runner_id / "app")
    assert ran.stdout.decode().strip() in [f"yes too {directory} {sys.executable}" for directory in directories]
    assert (await rig.run(runner, "pwd", cwd="/")).stdout == b"/\n"


async def test_a_shim_of_an_older_version_has_no_socket_for_commands(rig: Any, runner: Any) -> None:
    (rig.root / "runners" / runner.runner_id / "exec.sock").unlink()
    with pytest.raises(Unavailable, match=r"started by an older version.*`fal apps rollout`"):
        await rig.run(runner, "true")


async def test_a_signal_during_the_start_is_not_lost(rig: Any, runner: Any) -> None:
    """The shim ignores SIGINT. So would a command that is just starting."""
    for _ in range(5):
        session = await rig.engine.exec(runner, ExecRequest(command=("sh", "-c", "exec sleep 77"), tty=False))
        await session.signal(signal.SIGINT)
        async with asyncio.timeout(30):
            outputs = [output async for output in session.output()]
        assert outputs[-1].exit_code == 128 + signal.SIGINT


async def test_a_command_that_is_not_there_says_so(rig: Any, runner: Any) -> None:
    ran = await rig.run(runner, "no-such-command")
    assert ran.code == 127
    assert b"no-such-command: command not found" in ran.stderr
    ran = await rig.run(runner, "/etc/passwd")
    assert ran.code == 126
    assert b"Permission denied" in ran.stderr
    ran = await rig.run(runner, "true", cwd="/no/such/directory")
    assert ran.code == 126
    assert b"/no/such/directory" in ran.stderr


async def test_a_command_that_cannot_be_started_is_refused(rig: Any, runner: Any) -> None:
    with pytest.raises(InvalidArgument, match="could not be started"):
        await rig.run(runner, "true", variables={"A=B": "x"})
    assert (await rig.run(runner, "true")).code == 0


async def test_an_empty_command_is_a_shell(rig: Any, runner: Any) -> None:
    assert (await rig.run(runner, stdin=b"echo from $FROM_THE_APP; exit 3\n")).code == 3


async def test_a_signal_reaches_the_command(rig: Any, runner: Any) -> None:
    session = await rig.engine.exec(runner, ExecRequest(command=("python", "-c", SLEEPER), tty=False))
    outputs = session.output()
    await read_until(outputs, b"ready\n")
    await session.signal(signal.SIGINT)
    async with asyncio.timeout(30):
        assert (await anext(outputs)).exit_code == 128 + signal.SIGINT


async def test_much_data_passes_whole_and_a_slow_reader_slows_the_writer(rig: Any, runner: Any) -> None:
    block, blocks = bytes(range(256)) * 4096, 20
    session = await rig.engine.exec(runner, ExecRequest(command=("cat",), tty=False))
    sent = asyncio.Event()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def send() -> None:
        for _ in range(blocks):
            await session.write(block)
        sent.set()
        await session.send_eof()

    sender = asyncio.get_running_loop().create_task(send())
    received, length, code = hashlib.sha256(), 0, None
    outputs = session.output()
    first = await anext(outputs)
    for _ in range(1000):  # a reader that does not read: many iterations of the loop without a read
        await asyncio.sleep(0)
    assert not sent.is_set()
    received.update(first.data)
    length += len(first.data)
    async with asyncio.timeout(30):
        async for output in outputs:
            assert len(output.data) <= 512 * 1024
            received.update(output.data)
            length += len(output.data)
            code = output.exit_code
    await sender
    assert (length, code) == (len(block) * blocks, 0)
    assert received.digest() == hashlib.sha256(block * blocks).digest()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024  # KiB


async def test_a_flood_that_nobody_reads_stops_at_a_bound(rig: Any, runner: Any) -> None:
    session = await rig.engine.exec(runner, ExecRequest(command=("sh", "-c", "yes & echo $! >&2; wait"), tty=False))
    outputs = session.output()
    pid = b""
    async with asyncio.timeout(30):
        while not pid:
            output = await anext(outputs)
            pid = output.data if output.stream == 2 else b""
    written = -1
    async with asyncio.timeout(30):
        while (now := await written_by(rig, runner, int(pid))) != written:
            written = now
    assert written < 32 * 1024 * 1024
    await session.close()


async def written_by(rig: Any, runner: Any, pid: int) -> int:
    ran = await rig.run(runner, "sh", "-c", f"sleep 0.2; grep wchar /proc/{pid}/io")
    return int(ran.stdout.split()[1])


async def test_a_background_child_does_not_hold_the_end_up(rig: Any, runner: Any) -> None:
    ran = await rig.run(runner, "sh", "-c", "sleep 3600 & echo done")
    assert (bytes(ran.stdout), ran.code) == (b"done\n", 0)


async def test_a_terminal_is_one_and_can_be_resized(rig: Any, runner: Any) -> None:
    session = await rig.engine.exec(
        runner, ExecRequest(command=("sh",), tty=True, size=TerminalSize(height=30, width=90))
    )
    outputs = session.output()
    await session.write(b"test -t 0 && test -t 2 && echo is-a-$TERM; stty size; exec 3>&1\n")
    text = await read_until(outputs, b"is-a-xterm-256color")
    await read_until(outputs, b"30 90", text)
    await session.resize(TerminalSize(height=50, width=132))
    await session.write(b"stty size\n")
    await read_until(outputs, b"50 132")
    await session.write(f'python -c "{SLEEPER}"\n'.encode())
    await read_until(outputs, b"ready\r\n")
    await session.write(b"\x03")
    await session.write(b"echo still-$((40+2))-here\n")
    await read_until(outputs, b"still-42-here")
    await session.send_eof()
    codes = [output.exit_code async for output in outputs if output.exit_code is not None]
    assert codes == [130] or codes == [0]


async def test_the_shells_prompt_names_the_runner(rig: Any, runner: Any) -> None:
    session = await rig.engine.exec(runner, ExecRequest(command=(), tty=True))
    outputs = session.output()
    await read_until(outputs, f"{runner.runner_id[:8]}]".encode())
    await session.write(b"exit 5\n")
    codes = [output.exit_code async for output in outputs if output.exit_code is not None]
    assert codes == [5]


@pytest.mark.parametrize("tty", [False, True])
async def test_a_caller_that_vanishes_leaves_nothing(rig: Any, runner: Any, tty: bool) -> None:
    await rig.lines.until(runner.runner_id, "idle")
    before = set(rig.programs(runner))
    script = "trap '' HUP; setsid sleep 3600 & sleep 3600 & echo ready; wait"
    session = await rig.engine.exec(runner, ExecRequest(command=("sh", "-c", script), tty=tty))
    outputs = session.output()
    await read_until(outputs, b"ready")
    assert len(set(rig.programs(runner)) - before) == 3
    await session.close()
    async with asyncio.timeout(30):
        while set(rig.programs(runner)) - before:
            await rig.run(runner, "true")  # a pause of one call to the shim
    assert set(rig.programs(runner)) == before


@pytest.mark.parametrize("engine_too", [False, True])
async def test_who_reads_is_told_that_the_session_was_closed(rig: Any, runner: Any, engine_too: bool) -> None:
    session = await rig.engine.exec(runner, ExecRequest(command=("sleep", "3600"), tty=False))

    async def read() -> list[Any]:
        return [output async for output in session.output()]

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    await (rig.restart(adopt=runner) if engine_too else session.close())
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await reading
    await session.write(b"goes nowhere")
    await session.close()


async def test_the_end_of_a_runner_ends_its_commands(rig: Any, runner: Any) -> None:
    command = ("sh", "-c", "echo started; exec sleep 3600")
    session = await rig.engine.exec(runner, ExecRequest(command=command, tty=False))
    outputs = aiter(session.output())
    assert (await anext(outputs)).data == b"started\n"  # before, it could still fail to enter the runner's sandbox
    await rig.engine.kill(runner)
    await rig.until(runner, Event.GONE)
    assert [output.exit_code async for output in outputs] == [128 + signal.SIGKILL]
    with pytest.raises(FailedPrecondition, match="has ended"):
        await rig.engine.exec(runner, ExecRequest(command=("true",), tty=False))
    await rig.engine.release(runner.runner_id)
    with pytest.raises(Unavailable, match="not running"):
        await rig.engine.exec(runner, ExecRequest(command=("true",), tty=False))


async def test_a_link_that_breaks_is_not_an_exit(rig: Any, runner: Any) -> None:
    import os

    session = await rig.engine.exec(runner, ExecRequest(command=("sleep", "3600"), tty=False))
    os.kill(rig.shim(runner).pid, signal.SIGKILL)
    with pytest.raises(Unavailable):
        _ = [output async for output in session.output()]
