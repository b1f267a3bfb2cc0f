"""Runs a builder's program, with its output line by line. Cancelling kills all of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fal_server.core.faults import FailedPrecondition, Fault, NodeTrouble

# Programs of every kind print these messages of the system.
_NODES_OWN = ("No space left on device", "Disk quota exceeded", "Read-only file system")
_LONGEST_LINE = 8_192
_CHUNK = 65_536


async def run_lines(
    command: Sequence[str],
    *,
    cwd: Path,
    variables: Mapping[str, str],
    line: Callable[[str], None],
    stdin: str = "",
    keep_open: Sequence[int] = (),
    warnings: bool = True,
    started: Callable[[int], None] = lambda _: None,
) -> int:
    """Run a program. If this is cancelled, kill it with all that it started.

    Args:
        command: the program and its arguments, without secrets, because other users can see them.
        variables: all of its environment.
        line: called with each line of output.
        stdin: its input.
        keep_open: descriptors that it inherits.
        warnings: whether stderr is part of its output.
        started: called with its process id.

    Returns:
        Its exit code.

    Raises:
        OSError: it could not be started.
    """
    async with _started(command, cwd, variables, keep_open, warnings) as process:
        started(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        # uvloop raises for a write to the closed input of a program that has ended.
        if stdin and not process.stdin.is_closing():
            with suppress(BrokenPipeError, ConnectionResetError):  # it failed early, and its output says why
                process.stdin.write(stdin.encode())
                await process.stdin.drain()
        process.stdin.close()
        await _read_lines(process.stdout, line)
        return await process.wait()


def failure(what: str, lines: Iterable[str]) -> Fault:
    """Return a program's failure: NodeTrouble if its output blames the machine, else FailedPrecondition."""
    output = "\n".join(lines)
    fault = NodeTrouble if any(sign in output for sign in _NODES_OWN) else FailedPrecondition
    return fault(f"{what}:\n{output}")


@asynccontextmanager
async def _started(
    command: Sequence[str], cwd: Path, variables: Mapping[str, str], keep_open: Sequence[int], warnings: bool
) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if warnings else asyncio.subprocess.DEVNULL,
        cwd=cwd,
        env=dict(variables),
        pass_fds=keep_open,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            children = _children(process.pid)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await asyncio.shield(_ends(children))


def _children(pid: int) -> list[int]:
    """Return pidfds of a process's children that end with it. These are a program in a sandbox, and the sandbox.

    Other children are in its process group, or have left it in order to stay.
    """
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            if len(_namespaced(child)) > 1:
                with suppress(OSError):
                    found.append(os.pidfd_open(child))
    return found


def _namespaced(pid: int) -> list[str]:
    """Return a process's ids in its own namespace and the outer ones."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return []


async def _ends(handles: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    for handle in handles:
        ended = asyncio.Event()
        loop.add_reader(handle, ended.set)
        await ended.wait()
        loop.remove_reader(handle)
        os.close(handle)


async def _read_lines(stream: asyncio.StreamReader, line: Callable[[str], None]) -> None:
    """Split a stream into lines, and truncate long ones."""
    rest = b""
    while chunk := await stream.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for text in whole:
            line(_text(text))
        rest = rest[:_LONGEST_LINE]
    if rest:
        line(_text(rest))


def _text(raw: bytes) -> str:
    return raw[:_LONGEST_LINE].decode(errors="replace").rstrip()
