"""Runs the hostile app at one level: `python -m tests.isolation.arena LEVEL` prints the successful attacks as JSON.

This process is the controller: it has secrets in its directory, variables and memory, and runs a neighbor beside the
hostile app. It may run as any user.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import pty
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fal_runner.isolation.levels import Isolation
from fal_server.composition.hardening import harden
from fal_server.core.gpus import counts_of
from fal_server.core.lifecycle import Event
from fal_server.engines.local.sandboxes import Sandboxes
from tests.engines.conftest import NODE, Rig
from tests.isolation.hostile import Targets
from tests.isolation.with_gpus import NUMBER, WHOLE
from tests.support.controller import ROOT
from tests.support.gate import address_of, ask, metrics_address_of

_libc = ctypes.CDLL(None, use_errno=True)
_IPC_CREAT, _IPC_RMID = 0o1000, 0


async def neighbor(exposed_port: int, exposed_metrics_port: int) -> None:
    """Another runner's app, with a secret in its variables and directory."""
    import asyncio
    from pathlib import Path

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    await asyncio.to_thread(Path("model.txt").write_text, "weights")
    await asyncio.start_server(answer, "0.0.0.0", exposed_metrics_port)
    await asyncio.start_server(answer, "0.0.0.0", exposed_port)
    print("idle", flush=True)
    await asyncio.Event().wait()


@contextmanager
def machine(state: Path, *, has_runner: bool = False) -> Iterator[Targets]:
    """Create things of the machine that belong to no runner.

    Args:
        has_runner: whether a runner attacks them. It must reach the controller at every level.
    """
    for name in ("admin.key", "master.key", "fal.db"):
        (state / name).write_text(secrets.token_hex())
    operators = state.parent / "operator" / ".ssh" / "id_ed25519"
    operators.parent.mkdir(parents=True)
    operators.write_text("private")
    secret = ctypes.create_string_buffer(f"in memory {secrets.token_hex()}".encode())
    ours, theirs = pty.openpty()
    shared = _libc.shmget(0, 4096, _IPC_CREAT | 0o600)
    api = state / "api" / "api.sock"
    api.parent.mkdir(exist_ok=True)
    with (
        socket.socket(socket.AF_UNIX) as called,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.create_server(("127.0.0.1", 0)) as port,
    ):
        called.bind(str(api))
        called.listen()
        called.settimeout(0)
        name = f"fal-arena-{secrets.token_hex(8)}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield {
            "state": str(state),
            "operators_file": str(operators),
            "controller": os.getpid(),
            "secret": secret.value.decode(),
            "address": ctypes.addressof(secret),
            "terminal": os.ttyname(theirs),
            "shared_memory": shared,
            "api_socket": str(api),
            "abstract": name,
            "port": port.getsockname()[1],
            "data": "/data",
            "gpu": f"/dev/{WHOLE[0].nodes[0]}",
            "gpu_number": NUMBER,
        }
        if has_runner:
            called.accept()[0].close()
    _libc.shmctl(shared, _IPC_RMID, None)
    os.close(ours)
    os.close(theirs)


async def fight(level: Isolation) -> dict[str, dict[str, bool]]:
    """Run the attacks from the hostile app and from its runner's command. Return the successful ones."""
    harden()
    place = Path(tempfile.mkdtemp(prefix="fal-arena-"))
    state = place / "state"
    for name in ("data", "api"):
        (state / name).mkdir(parents=True)
    environment = place / "environment"
    shutil.copytree(ROOT / "tests" / "isolation", environment / "code")
    sandboxes = Sandboxes(
        isolation=level,
        home=state / "home",
        data=lambda _: state / "data",
        calls=state / "api",
        readable=[ROOT, environment, *_packages()],
    )
    rig = Rig(state, sandboxes)
    await rig.restart(node=replace(NODE, total=replace(NODE.total, gpus=counts_of(WHOLE)), gpus=WHOLE))
    try:
        with machine(state, has_runner=True) as things:
            theirs, ours = (gpu.id for gpu in WHOLE)
            launch = rig.launch(neighbor, http=True, metrics=True, variables={"PASSPHRASE": "neighbor's"})
            victim = await rig.start_launch(replace(launch, gpus=(theirs,)))
            await rig.lines.until(victim.runner_id, "idle")
            ready = await rig.until(victim, Event.READY)
            for open_to_us in (address_of(victim, ready), metrics_address_of(victim, ready)):
                assert await asyncio.to_thread(ask, open_to_us, "GET", "/") == b"", "the controller gets an answer"
            targets = {
                **things,
                "app_port": ready.port,
                "metrics_port": ready.metrics_port,
                "environment": str(environment),
                "worker": rig.programs(victim)[0],
                "runner": str(state / "runners" / victim.runner_id),
            }
            # A secret may have any name, also those of our variables for /data and for the sandbox to join.
            own = {"FAL_DATA_DIR": "/", "FAL_JOIN_PROCESS": "1", "FAL_ROOM": "none", "FAL_ROOM_DIRECTORY": "/"}
            launch = rig.launch(lambda: attack_and_stay(targets), variables=own)
            attacker = await rig.start_launch(replace(launch, gpus=(ours,)))
            line = await rig.lines.until(attacker.runner_id, "succeeded: ")
            command = [sys.executable, str(environment / "code" / "hostile.py"), json.dumps(targets)]
            ran = await rig.run(attacker, *command, variables=own)
            assert ran.code == 0, (ran.stdout, ran.stderr)
            return {
                "app": json.loads(line.message.removeprefix("succeeded: ")),
                "command": json.loads(ran.stdout),
                "note": {entry.message: True for entry in rig.lines.of(attacker.runner_id)[:2]},
            }
    finally:
        await rig.close()
        shutil.rmtree(place, ignore_errors=True)


def attack_and_stay(targets: dict[str, Any]) -> None:
    import json
    import runpy
    import threading

    attack = runpy.run_path(f"{targets['environment']}/code/hostile.py")["attack"]
    print("succeeded: " + json.dumps(attack(targets)), flush=True)
    threading.Event().wait()


def _packages() -> list[Path]:
    return [Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(fight(Isolation(sys.argv[1])))) + "\n")
