"""Drives the run: storms of faults, and calm phases without any loss."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable

from tests.support.cutter import Cutter, Direction, cutting
from tests.torture import sources
from tests.torture.deck import Deck
from tests.torture.history import History
from tests.torture.load import Load, call
from tests.torture.sources import AppKind
from tests.torture.world import World, pause

_SETTLE_SECONDS = 180.0
_STEP_SECONDS = 7 * 24 * 3600.0
GENTLE = ("deploy", "deploy", "broken", "scale", "stop", "replace", "rollout")
ROUGH = ("recreate", "kill", "force")
FAULTS = (
    "kill worker",
    "kill shim",
    "kill controller",
    "restart",
    "keep runners",
    "freeze",
    "freeze controller",
    "disk",
    "clock",
    "copy",
    "adopted copy",
    "descriptors",
)
# Cut connections affect deploys, and are not faults by themselves.
CUT_LINKS = "cut links"
NAMES = (*dict.fromkeys(FAULTS), CUT_LINKS)
# A deploy sends and receives about this many bytes; this share of deploys is cut within them.
_CUT_BYTES: dict[Direction, int] = {"to the controller": 60_000, "to the client": 4_000}
_CUT_SHARE = 0.3
Cut = tuple[Direction, int]
Lane = Callable[[random.Random], Awaitable[None]]


class Driver:
    """One run. The same seed does the same things in the same order; the timing depends on the machine.

    Args:
        kinds: the apps.
        seed: decides every choice.
        faults: the possible faults, some of NAMES.
    """

    def __init__(
        self,
        world: World,
        history: History,
        load: Load,
        kinds: tuple[AppKind, ...],
        seed: str,
        faults: tuple[str, ...] = NAMES,
    ) -> None:
        self._world = world
        self._history = history
        self._load = load
        self._kinds = kinds
        self._seed = seed
        self._faults = tuple(fault for fault in FAULTS if fault in faults)
        self._deck = Deck(self._faults)
        self._cuts = CUT_LINKS in faults
        self._revisions = dict.fromkeys((kind.name for kind in kinds), 0)
        self._round = 0

    async def begin(self) -> None:
        """Deploy every app."""
        for kind in self._kinds:
            self._history.note("scale", app=kind.name, most=kind.most)
            assert await self._deploy(kind, "rolling"), f"{kind.name} could not be deployed at the beginning"

    async def round(self, storm_seconds: float, calm_seconds: float, least_faults: int) -> None:
        """Run a storm with at least this many faults. Settle, then run a calm phase."""
        self._round += 1
        harm = [(self._harm, least_faults)] if self._faults else []
        await self._phase("storm", storm_seconds, (self._change_anything, 0), *harm)
        self._load.crashing = False
        while self._load.crashes:
            await pause(0.1)
        await self.settle()
        self._load.calm = self._round
        self._history.note("phase", name="calm", number=self._round)
        await self._phase("calm", calm_seconds, (self._change_gently, 1))
        self._load.calm, self._load.crashing = None, True
        self._history.note("phase", name="storm", number=self._round + 1)

    async def settle(self) -> None:
        """Wait until all apps serve again and the storm is over."""
        await self._world.up()
        for kind in self._kinds:
            end = time.time() + _SETTLE_SECONDS
            while True:
                status, _, error = await call(
                    self._world.port, "POST", f"/local/{kind.name}/", {"tag": f"settle-{time.time_ns()}"}
                )
                if status == 200 and not await self._waits(kind.name):
                    break
                if time.time() > end:
                    raise AssertionError(f"{kind.name} does not come to rest: {status} {error}")
                await pause(0.5)

    async def _waits(self, app: str) -> bool:
        """Return whether a runner of the app is ending or waits. It may wait after a failed start."""
        return any(r["state"] not in ("IDLE", "RUNNING", "SETUP") for r in await self._runners(app))

    async def finish(self) -> None:
        """Record the revision of every app."""
        for kind in self._kinds:
            _, answer, _ = await call(self._world.port, "POST", f"/local/{kind.name}/", {"tag": "last"})
            revision = answer.get("revision", -1) if isinstance(answer, dict) else -1
            self._history.note("serves", app=kind.name, revision=revision)

    async def _phase(self, name: str, seconds: float, *lanes: tuple[Lane, int]) -> None:
        """Run lanes concurrently for some seconds, each at least some times."""
        end = time.time() + seconds

        async def lane(number: int, act: Lane, least: int) -> None:
            chance = random.Random(f"{self._seed}/{self._round}/{name}/{number}")
            done = 0
            while time.time() < end or done < least:
                await pause(chance.uniform(0.2, 2.0))
                await act(chance)
                done += 1

        async with asyncio.TaskGroup() as tasks:
            for number, (act, least) in enumerate(lanes):
                tasks.create_task(lane(number, act, least))

    async def _change_anything(self, chance: random.Random) -> None:
        await self._change(chance.choice(GENTLE + ROUGH), chance)

    async def _change_gently(self, chance: random.Random) -> None:
        await self._change(chance.choice(GENTLE), chance)

    async def _change(self, what: str, chance: random.Random) -> None:
        kind = chance.choice(self._kinds)
        pick = chance.random()
        match what:
            case "deploy" | "recreate" | "broken":
                strategy = "recreate" if what == "recreate" else "rolling"
                cut: Cut | None = None
                if what == "deploy" and self._cuts and pick < _CUT_SHARE:
                    way = chance.choice(tuple(_CUT_BYTES))
                    cut = (way, int(pick / _CUT_SHARE * _CUT_BYTES[way]))
                await self._deploy(kind, strategy, fails=what == "broken", cut=cut)
            case "scale":
                most, least = chance.randint(1, kind.most), chance.randint(0, 1)
                self._history.note("scale", app=kind.name, most=most)
                arguments = ("--max-concurrency", str(most), "--min-concurrency", str(least))
                await self._do(what, "apps", "scale", kind.name, *arguments)
            case "rollout" | "force":
                await self._do(what, "apps", "rollout", kind.name, *(["--force"] if what == "force" else []))
            case _:
                found = [str(r["runner_id"]) for r in await self._runners(kind.name)]
                if found:
                    runner = found[int(pick * len(found))]
                    replace = ["--replace"] if what == "replace" else []
                    await self._do(what, "runners", "kill" if what == "kill" else "stop", runner, *replace)

    async def _do(self, what: str, *arguments: str) -> int:
        started_at = time.time()
        code, said = await self._world.fal(*arguments)
        self._history.note(
            "action",
            at=started_at,
            done_at=time.time(),
            what=what,
            arguments=list(arguments),
            code=code,
            said=said[-600:],
        )
        return code

    async def _deploy(self, kind: AppKind, strategy: str, *, fails: bool = False, cut: Cut | None = None) -> bool:
        """Deploy the next revision. `cut` cuts the connection after a number of bytes in a direction."""
        self._revisions[kind.name] += 1
        revision = self._revisions[kind.name]
        path = sources.write(self._world.folder, kind, revision, fails=fails)
        started_at = time.time()
        arguments = ("deploy", str(path), "--app-name", kind.name, "--strategy", strategy)
        with cutting(Cutter(self._world.port, at=cut)) as cutter:
            code, said = await self._world.fal(*arguments, port=None if cut is None else cutter.port)
        self._history.note(
            "deploy",
            at=started_at,
            done_at=time.time(),
            app=kind.name,
            revision=revision,
            strategy=strategy,
            ok=code == 0,
            fails=fails,
            cut=cut if cutter.cuts else None,
            said=said[-600:],
        )
        return code == 0

    async def _runners(self, app: str) -> list[dict[str, object]]:
        code, said = await self._world.fal("runners", "list", "--json")
        try:
            listed: list[dict[str, object]] = json.loads(said)["runners"] if code == 0 else []
        except ValueError:
            return []
        return [runner for runner in listed if runner["alias"] == app]

    async def _harm(self, chance: random.Random) -> None:
        what, pick, seconds = self._deck.draw(chance), chance.random(), chance.uniform(0.2, 3.0)
        if not await self._harmed(what, pick, seconds, chance):
            self._deck.put_back(what)

    async def _harmed(self, what: str, pick: float, seconds: float, chance: random.Random) -> bool:
        """Inject a fault; return whether it had a target."""
        started_at = time.time()
        match what:
            case "kill controller":
                harm = chance.choice(("nothing", "kill worker", "kill shim", "disk"))
                return await self._world.die(seconds, lambda: self._harm_runner_or_disk(harm, pick, seconds))
            case "restart" | "keep runners":
                return await self._world.restart(signal.SIGTERM if what == "restart" else signal.SIGUSR1)
            case "clock":
                await self._world.step_clock((pick - 0.5) * _STEP_SECONDS, seconds)
            case "copy":
                await self._world.start_copy(adopt=False)
            case "adopted copy":
                await self._world.start_copy(adopt=True)
            case "descriptors":
                return await self._world.few_descriptors(int(pick * 10), seconds)
            case "freeze controller":
                controller = self._world.controller
                if controller is None:
                    return False
                await self._world.freeze(controller.process.pid, seconds)
                self._history.note("fault", what="controller frozen", at=started_at, until=time.time())
            case _:
                return await self._harm_runner_or_disk(what, pick, seconds)
        return True

    async def _harm_runner_or_disk(self, what: str, pick: float, seconds: float) -> bool:
        started_at = time.time()
        if what == "disk":
            if not self._world.disk:
                return True  # never in this run, as it reports at its start
            async with self._world.full_disk():
                await pause(seconds)
            self._history.note("fault", what="disk full", at=started_at, until=time.time())
        elif what in ("kill worker", "kill shim", "freeze"):
            victims = await asyncio.to_thread(self._world.victims)
            if not victims:
                return False
            runner, shim, worker = victims[int(pick * len(victims))]
            of_shim = what == "kill shim" or (what == "freeze" and pick > 0.5)
            await self._strike(what, runner, shim if of_shim else worker, seconds)
        return True

    async def _strike(self, what: str, runner: str, pid: int, seconds: float) -> None:
        started_at = time.time()
        if what == "freeze":
            await self._world.freeze(pid, seconds)
        else:
            await asyncio.to_thread(self._world.kill, pid)
        self._history.note(
            "fault",
            what=f"{what} of runner",
            runner=runner,
            at=started_at,
            until=time.time(),
            loses_lines=what != "freeze",
        )
