"""Says which GPUs runners see at one level: `python -m tests.isolation.gpu_arena LEVEL`, as with_gpus.py runs it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fal_runner.isolation.levels import Isolation
from fal_server.core.gpus import Gpu, counts_of
from fal_server.engines.local.sandboxes import Sandboxes
from tests.engines.conftest import NODE, Environment, Rig
from tests.isolation.with_gpus import CUT, WHOLE
from tests.support.controller import ROOT

RUNNERS: dict[str, Sequence[Gpu]] = {
    "first": WHOLE[:1],
    "second": WHOLE[1:],
    "both": WHOLE,
    "slice": CUT[1:],
    "none": (),
}
"""What each runner is given; they run one after another."""


def show_and_stay() -> None:
    import json
    import os
    import threading

    found = [f"{place}/{name}".removeprefix("/dev/") for place, _, names in os.walk("/dev") for name in names]
    gpus = sorted(name for name in found if name.startswith("nvidia"))
    for name in gpus:
        with open(f"/dev/{name}", "r+b", buffering=0) as device:  # noqa: PTH123 - it is a device
            assert device.read(1)
    print("sees: " + json.dumps([gpus, os.environ["CUDA_VISIBLE_DEVICES"]]), flush=True)
    threading.Event().wait()


async def look(level: Isolation) -> dict[str, dict[str, object]]:
    """Start the runners. Return what each app sees, what a command in it does, and whether its worker waited."""
    place = Path(tempfile.mkdtemp(prefix="fal-arena-"))
    environment = Environment(place / "environment")
    state = place / "state"
    (state / "data").mkdir(parents=True)
    readable = [ROOT, *(Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages")))]
    sandboxes = Sandboxes(isolation=level, home=state / "home", data=lambda _: state / "data", readable=readable)
    rig = Rig(state, sandboxes)
    gpus = (*WHOLE, *CUT)
    await rig.restart(node=replace(NODE, total=replace(NODE.total, gpus=counts_of(gpus)), gpus=gpus), warm_workers=1)
    found: dict[str, dict[str, object]] = {}
    try:
        for name, held in {"before": (), **RUNNERS}.items():
            launch = replace(rig.launch(show_and_stay, python=environment.python), gpus=tuple(gpu.id for gpu in held))
            waiting = await waiting_worker(rig) if found else 0
            runner = await rig.start_launch(launch)
            line = await rig.lines.until(runner.runner_id, "sees: ")
            listed = await rig.run(runner, "find", "/dev", "-name", "nvidia*", "-not", "-type", "d")
            worker = await rig.lines.until(runner.runner_id, "worker started: process ")
            devices, visible = json.loads(line.message.removeprefix("sees: "))
            found[name] = {
                "app": devices,
                "command": sorted(path.removeprefix("/dev/") for path in listed.stdout.decode().split()),
                "visible": visible,
                "waited": int(worker.message.rpartition(" ")[2]) == waiting,
            }
            await rig.engine.kill(runner)
    finally:
        await rig.close()
        shutil.rmtree(place, ignore_errors=True)
    return found


async def waiting_worker(rig: Rig) -> int:
    """Wait until a worker waits; return its process."""
    async with asyncio.timeout(60):
        while not rig.host.warm_pool.workers:
            rig.host.warm_pool.warmed.clear()
            if not rig.host.warm_pool.workers:
                await rig.host.warm_pool.warmed.wait()
    return rig.host.warm_pool.workers[0]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(look(Isolation(sys.argv[1])))) + "\n")
