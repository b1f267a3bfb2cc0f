"""The level of isolation that runners get, never weaker than required."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.trial import strongest
from fal_server.composition.isolation import choose_isolation
from fal_server.core.faults import Unavailable


async def test_the_strongest_that_works_is_taken() -> None:
    level, why = await asyncio.to_thread(strongest)
    chosen = await choose_isolation(None, None)
    assert chosen.level is level
    assert chosen.line.startswith(f"{level.value}: ")
    assert (why in chosen.line) or why == ""


async def test_a_weaker_level_is_taken_if_it_is_asked_for() -> None:
    chosen = await choose_isolation("none", None)
    assert chosen.level is Isolation.NONE
    assert "as --isolation says" in chosen.line


@pytest.mark.parametrize("required", ["view", "process"])
async def test_no_weaker_level_than_what_is_required(required: str) -> None:
    with pytest.raises(Unavailable, match=f"--require-isolation asks for {required}"):
        await choose_isolation("none", required)


async def test_what_is_required_may_be_exceeded() -> None:
    assert (await choose_isolation("none", "none")).level is Isolation.NONE
    best, _ = await asyncio.to_thread(strongest)
    assert (await choose_isolation(None, "none")).level is best


def test_levels_have_an_order() -> None:
    assert sorted(Isolation, key=lambda level: level.strength) == [Isolation.NONE, Isolation.VIEW, Isolation.PROCESS]


def test_a_controllers_process_keeps_to_itself(tmp_path: Path) -> None:
    look = """
import resource, sys
from pathlib import Path
from fal_server.composition.hardening import harden
harden()
Path(sys.argv[1]).write_text("private")
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
print(Path("/proc/self/environ").stat().st_uid, flush=True)
sys.stdin.read()
"""
    made = tmp_path / "made"
    process = subprocess.Popen(
        [sys.executable, "-c", look, str(made)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    owner = int(process.stdout.readline())
    process.communicate()
    assert process.returncode == 0
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    # For a process that is not dumpable, the files in /proc belong to root, even if a user owns the process.
    assert owner == 0 or os.getuid() == 0
