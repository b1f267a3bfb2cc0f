"""Runs a builder's program to its end, with its output line by line; nothing of it is left when it is cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fal_server.core.faults import FailedPrecondition, Fault, NodeTrouble

# As programs of every kind pass on what the system told them.
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
) -> int:
    """Run a program; cancelled, it is killed with all that it started.

    Args:
        command: the program and its arguments; nothing secret, since other users can see them.
        variables: all of its environment.
        line: called with each line of output.
        stdin: what it reads.
        keep_open: descriptors that it inherits.
        warnings: whether what it writes to stderr belongs to its output.

    Returns:
        Its exit code.

    Raises:
        OSError: it could not be started.
    """
    async with _started(command, cwd, variables, keep_open, warnings) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # One that ended already has closed its side, to which uvloop does not even write nothing.
        if stdin and not process.stdin.is_closing():
            with suppress(BrokenPipeError, ConnectionResetError):  # it failed before it read all: its words say why
                process.stdin.write(stdin.encode())
                await process.stdin.drain()
        process.stdin.close()
        await _read_lines(process.stdout, line)
        return await process.wait()


def failure(what: str, words: Iterable[str]) -> Fault:
    """Why a program failed, in its own words: the machine's trouble where these speak of it, else what it was given."""
    said = "\n".join(words)
    fault = NodeTrouble if any(sign in said for sign in _NODES_OWN) else FailedPrecondition
    return fault(f"{what}:\n{said}")


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
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _read_lines(stream: asyncio.StreamReader, line: Callable[[str], None]) -> None:
    """Split into lines, however long; a longer one than the limit is cut."""
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
