"""Builds the hostile package at one level: `python -m tests.isolation.build_arena LEVEL`, as arena.py does."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from fal_runner.isolation.levels import Isolation
from fal_server.builders import BuildSandboxes, VirtualenvBuilder
from fal_server.composition.hardening import harden
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry
from fal_server.core.revisions import EnvironmentSpec
from fal_server.engines.local import RunnerGroups
from tests.isolation.arena import machine
from tests.isolation.hostile_build import LEFT
from tests.support.source_packages import requirements, served, write_source

_HERE = Path(__file__).parent
_OTHER = AccountId("other")


async def fight(level: Isolation) -> dict[str, dict[str, bool]]:
    """Build the hostile package. Return the attacks that succeeded in the build, and at the start of its Python."""
    harden()
    place = Path(tempfile.mkdtemp(prefix="fal-arena-"))
    state = place / "state"
    (state / "data").mkdir(parents=True)
    (place / "index").mkdir()
    daemon = f"fal-daemon-{secrets.token_hex(8)}"
    password = f"password-{secrets.token_hex(8)}"
    environ = {**os.environ, "FAL_SOMETHING_SECRET": password, "UV_CACHE_DIR": str(state / "cache" / "uv")}
    sandboxes = BuildSandboxes(isolation=level, bounds=RunnerGroups.detect(state), hidden=[state])
    builder = VirtualenvBuilder(state / "environments", state / "unused", sandboxes, environ)
    try:
        victims = {
            "environment_file": state / "environments" / f"{'0' * 64}-1" / "lib" / "module.py",
            "cache_file": builder.cache_of(_OTHER) / "archive-v0" / "module.py",
            "data_file": state / "data" / "model.txt",
        }
        for path in victims.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("its own")
        (state / "environments" / f"{'0' * 64}-1" / ".fal-built").write_text("by another version")
        with machine(state) as things, served(place / "index") as index:
            targets = {
                **things,
                **{name: str(path) for name, path in victims.items()},
                "daemon": daemon,
                "password": password,
            }
            attack = f"import hostile_build, json\nreturn hostile_build.packaged(json.loads({json.dumps(targets)!r}))"
            files = {name: (_HERE / name).read_text() for name in ("hostile.py", "hostile_build.py")}
            name = write_source(place / "index", attack, files)
            layers = requirements(place / "index", index, name)
            spec = EnvironmentSpec(kind="virtualenv", configuration={"requirements": layers})
            built = await builder.build(spec, force=False, log=_ignore)
        (packages,) = built.python.parents[1].glob("lib/*/site-packages")
        found = {
            "build": json.loads((packages / "found_by_build.json").read_text()),
            "start": json.loads((packages / "found_at_start.json").read_text()),
        }
        found["build"][LEFT] = _end(f"{daemon}-build")
        found["start"][LEFT] = _end(daemon)
        return found
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def _ignore(_: LogEntry) -> None:
    """Ignore a line of the build."""


def _end(argument: str) -> bool:
    """End the processes with an argument; return whether there were any."""
    found = False
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if argument.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
                found = True
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(fight(Isolation(sys.argv[1])))) + "\n")
