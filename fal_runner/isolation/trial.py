"""Finds the strongest level of isolation that this machine allows, by trying."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from fal_runner.isolation import mounts
from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.sandbox import (
    APP,
    PARTS,
    READ,
    SANDBOX_DIRECTORY_VARIABLE,
    SANDBOX_VARIABLE,
    TEMPORARY,
    written,
)

_LAUNCH = Path(__file__).parents[1] / "process" / "launch.py"
_NOTHING = ("/bin/sh", "-c", ":")
_TRIAL_SECONDS = 30.0


def why_impossible(level: Isolation) -> str:
    """Try a level; return why it does not work, or "". This blocks the thread."""
    if level is Isolation.NONE:
        return ""
    with tempfile.TemporaryDirectory(prefix="fal-isolation-") as place:
        directory = Path(place).resolve()
        for name in PARTS:
            (directory / name).mkdir()
        sandbox = written([(READ, str(directory), str(directory))]) if level is Isolation.PROCESS else ""
        places = {SANDBOX_VARIABLE: sandbox, SANDBOX_DIRECTORY_VARIABLE: str(directory)} if sandbox else {}
        view = {mounts.APP_VARIABLE: str(directory / APP), mounts.DATA_VARIABLE: str(directory / TEMPORARY)}
        command = [str(_LAUNCH), str(os.getpid()), "pipes", str(directory / APP), *_NOTHING]
        code, said = asyncio.run(_outcome(command, {"PATH": "/usr/bin:/bin", **view, **places}))
    lines = said.strip().removeprefix("fal: ").splitlines()
    if code == 0 and not lines:
        return ""
    return lines[0] if lines else f"a trial ended with {code}"


async def _outcome(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a trial; return its exit code and its output.

    asyncio is told of the end by the kernel. `subprocess` with a timeout polls instead, which fails under a clock that
    steps.
    """
    null, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", *command, env=environment, stdin=null, stdout=null, stderr=pipe
    )
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        return await process.wait(), f"a trial did not end within {_TRIAL_SECONDS:g} s"
    return await process.wait(), said.decode(errors="replace")


def strongest() -> tuple[Isolation, str]:
    """Return the strongest level here, and why no stronger one works."""
    why = ""
    for level in Isolation:
        found = why_impossible(level)
        if not found:
            return level, why
        why = why or found
    raise AssertionError("the last level needs nothing")
