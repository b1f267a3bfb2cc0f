"""A whole run: load, driver and watch together, then the checker."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.check import check
from tests.torture.driver import Driver
from tests.torture.history import Event, History, of_kind
from tests.torture.load import REFUSED, Load
from tests.torture.sources import AppKind
from tests.torture.watch import Watch
from tests.torture.world import World

_OUTCOME_SECONDS = 240.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run. It is seconds, minimum of faults in a storm, faults, clients for each app, apps, and level."""

    seconds: float
    storm_seconds: float
    calm_seconds: float
    least_faults: int
    faults: tuple[str, ...]
    clients: int
    kinds: tuple[AppKind, ...]
    isolation: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a run."""

    broken: list[str]
    events: list[Event] = field(repr=False)

    def figures(self) -> dict[str, object]:
        """Return the run in numbers."""
        direct = [e for e in of_kind(self.events, "request") if e["mode"] == "direct"]
        faults = Counter(str(e["what"]) for e in of_kind(self.events, "fault"))
        return {
            "direct requests": len(direct),
            "of these refused, no controller being there": sum(e["error"] == REFUSED for e in direct),
            "of these cut off by the controller's death": sum(
                e["status"] is None and e["error"] != REFUSED for e in direct
            ),
            "of these answered otherwise than 200": sum(e["status"] not in (None, 200) for e in direct),
            "of these answered 200": sum(e["status"] == 200 for e in direct),
            "in calm phases": sum(e["calm"] is not None for e in direct),
            "of these failed": sum(e["calm"] is not None and e["status"] != 200 for e in direct),
            "queued requests accepted": sum(1 for _ in of_kind(self.events, "accepted")),
            "of these completed": sum(e["state"] == "COMPLETED" for e in of_kind(self.events, "outcome")),
            "deploys": sum(1 for _ in of_kind(self.events, "deploy")),
            "of these with a cut link": sum(e["cut"] is not None for e in of_kind(self.events, "deploy")),
            "copies refused": sum(e["refused"] and not e["adopted"] for e in of_kind(self.events, "copy")),
            "copies adopted": sum(e["adopted"] and not e["refused"] for e in of_kind(self.events, "copy")),
            "other changes": sum(1 for _ in of_kind(self.events, "action")),
            "faults": dict(sorted(faults.items())),
            "runners": sum(1 for _ in of_kind(self.events, "runner")),
            "log lines": sum(e["count"] for e in of_kind(self.events, "lines")),
            "samples": sum(1 for _ in of_kind(self.events, "sample")),
            "broken promises": len(self.broken),
        }


async def run(folder: Path, seed: str, plan: Plan, *, disk: bool) -> Report:
    """Torture a controller.

    Args:
        folder: empty; gets history.jsonl and everything else.
        seed: decides every choice.
        disk: whether this process may mount a small file system.
    """
    history = History(folder / "history.jsonl")
    world = World(folder, history, disk=disk, isolation=plan.isolation)
    load = Load(history, world.port, seed)
    watch = Watch(world, history)
    driver = Driver(world, history, load, plan.kinds, seed, plan.faults)
    try:
        await world.up()
        await driver.begin()
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch.run(over))
            clients = [tasks.create_task(load.client(kind)) for kind in plan.kinds for _ in range(plan.clients)]
            end = time.time() + plan.seconds
            while time.time() < end:
                await driver.round(plan.storm_seconds, plan.calm_seconds, plan.least_faults)
            load.over.set()
            await asyncio.wait(clients)
            await load.settle(_OUTCOME_SECONDS)
            await driver.finish()
            over.set()
        if world.controller is not None:
            world.controller.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(world.controller.process.wait, 90)
        watch.finish()
    finally:
        for number in ENDING:  # another one would leave runners behind
            signal.signal(number, signal.SIG_IGN)
        if disk:  # the mount ends with this process
            _keep_log(world)
        world.close()
        history.close()
    return Report(broken=check(history.events), events=history.events)


def _keep_log(world: World) -> None:
    log = world.state_dir / "controller.log"
    if log.exists():
        (world.folder / "controller.log").write_bytes(log.read_bytes())
