"""An engine in memory. Runners are rows of a table, and the test decides what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Any

from fal_server.core.containers import CONTAINER
from fal_server.core.faults import NodeTrouble, Unavailable
from fal_server.core.lifecycle import End, Event, Observation
from fal_server.core.logs import LogEntry
from fal_server.core.machines import Node
from fal_server.core.resources import ResourceSample
from fal_server.core.runners import Runner
from fal_server.live.events import ChangeNotifier
from fal_server.ports import Adopted, Builder, Building, ExecRequest, ExecSession, LaunchSpec, RunResult
from tests.fakes.domain import BIG_NODE

HOST = "where-the-engine-runs-it"
STARTED = ResourceSample(cpu_seconds=0.1, memory_bytes=1 << 20)


class Start(StrEnum):
    """The outcome of a start."""

    READY = "ready"  # at once, reported before start() returns
    WAITS = "waits"  # when the test decides
    ENDS = "ends"  # in its setup
    REFUSED = "refused"  # by the engine
    TROUBLE = "trouble"  # because of the machine, and reported so


class FakeEngine:
    """The Engine port.

    Attributes:
        builder: has the environments of runners; None skips the check.
        start_as: the outcome of the next starts.
        obeys_stop: whether a runner ends when asked to stop.
        crash: how runners end by themselves before they are killed; empty if they do not.
        hold_start: start() waits until this is set.
        unstored: runners that cannot be released, because their last lines are not stored yet.
        silent: runners whose node does not answer.
        poisoned: runners for which most calls raise an unexpected error.
        blind: how many more times observations() fails.
        measured: the usage of runners, by runner id; others have that of a start.
        results: the results of ephemeral runners, by runner id.
        changed: notified at every call, so that a test can wait for it.
    """

    def __init__(self) -> None:
        self.builder: Builder | None = None
        self.machines: list[Node] = [BIG_NODE]
        self.changed = ChangeNotifier()
        self.start_as = Start.READY
        self.why = "setup() raised ValueError"
        self.obeys_stop = True
        self.crash = ""
        self.hold_start = asyncio.Event()
        self.hold_start.set()
        self.alive: dict[str, LaunchSpec | None] = {}  # None: an earlier controller started it
        self.exited: set[str] = set()
        self.busy: dict[str, int] = {}
        self.launched: list[LaunchSpec] = []
        self.stopped: list[tuple[str, float]] = []
        self.killed: list[str] = []
        self.released: list[str] = []
        self.unstored: set[str] = set()
        self.silent: set[str] = set()
        self.poisoned: set[str] = set()
        self.blind = 0
        self.measured: dict[str, ResourceSample] = {}
        self.results: dict[str, RunResult] = {}
        self.most_alive = 0
        self._port = 2000
        self._followed: set[str] = set()
        self._history: dict[str, list[Observation]] = {}
        self._told: asyncio.Queue[Observation | None] = asyncio.Queue()

    def ready(self, runner_id: str) -> None:
        self._port += 1
        self.tell(Event.READY, runner_id, host=HOST, port=self._port)

    def gone(self, runner_id: str, reason: str = "", exit_code: int | None = None, *, end: End = End.ORDERED) -> None:
        if self.alive.pop(runner_id, None) is not None:
            self.tell(Event.GONE, runner_id, reason=reason, exit_code=exit_code, end=end)

    def tell(self, event: Event, runner_id: str, **fields: Any) -> None:
        seen = Observation(runner_id=runner_id, event=event, **fields)
        self._history.setdefault(runner_id, []).append(seen)
        self._told.put_nowait(seen)

    def restarted(self) -> FakeEngine:
        """Return the engine of the next controller. It has the same living runners, none of them followed."""
        after = FakeEngine()
        after.builder, after.machines, after.alive, after._history = (
            self.builder,
            self.machines,
            self.alive,
            self._history,
        )
        return after

    def nodes(self) -> Sequence[Node]:
        return self.machines

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> tuple[str, str]:
        started = self.machines[0].name, _handle(spec.runner_id)
        known = self.alive.get(spec.runner_id)
        if known is not None and known.token == spec.token:
            return started
        if self.builder is not None and await self.builder.present(spec.packages) is None:
            if building is not None and spec.packages.kind == CONTAINER:
                await building()
            await self.builder.build(spec.packages, force=False, log=_unheard)
        if self.start_as is Start.REFUSED:
            raise Unavailable("no such interpreter")
        if self.start_as is Start.TROUBLE:
            raise NodeTrouble("the disk is full")
        self.launched.append(spec)
        self.changed.notify()
        self.alive[spec.runner_id] = spec
        self._followed.add(spec.runner_id)
        self.most_alive = max(self.most_alive, len(self.alive))
        self.tell(Event.LAUNCHED, spec.runner_id, node=started[0], handle=started[1])
        if self.start_as is Start.READY:
            self.ready(spec.runner_id)
        elif self.start_as is Start.ENDS:
            self.gone(spec.runner_id, self.why, 1)
        await self.hold_start.wait()
        return started

    async def stop(self, runner: Runner, grace_seconds: float) -> None:
        self.stopped.append((runner.runner_id, grace_seconds))
        self.changed.notify()
        if self.obeys_stop:
            self._end(runner.runner_id, 143)

    async def kill(self, runner: Runner) -> None:
        if runner.runner_id in self.poisoned:
            self.changed.notify()
            raise RuntimeError("poison")
        self.killed.append(runner.runner_id)
        self.changed.notify()
        if self.crash:
            self.gone(runner.runner_id, self.crash, 3, end=End.ITSELF)
        self._end(runner.runner_id, 137)

    def _end(self, runner_id: str, exit_code: int) -> None:
        if runner_id in self.alive:
            self.tell(Event.STOPPING, runner_id)
            self.gone(runner_id, exit_code=exit_code)
        else:
            self.tell(Event.GONE, runner_id)

    async def adopt(self, runner: Runner) -> Adopted | None:
        if runner.runner_id not in self.alive:
            return None
        if runner.runner_id not in self._followed:
            self._followed.add(runner.runner_id)
            for seen in self._history.get(runner.runner_id, []):  # a test may have set it
                self._told.put_nowait(seen)
        return Adopted(
            node=self.machines[0].name,
            handle=_handle(runner.runner_id),
            exited=runner.runner_id in self.exited,
            requests_in_flight=None if runner.runner_id in self.silent else self.busy.get(runner.runner_id),
            silent=runner.runner_id in self.silent,
        )

    async def resources(self, runner: Runner) -> ResourceSample | None:
        if runner.runner_id in self.poisoned:
            raise RuntimeError("poison")
        return self.measured.get(runner.runner_id, STARTED) if runner.runner_id in self.alive else None

    async def requests_in_flight(self, runner: Runner) -> int | None:
        if runner.runner_id in self.poisoned:
            raise RuntimeError("poison")
        if runner.runner_id in self.silent:
            raise Unavailable("its node does not answer")
        return self.busy.get(runner.runner_id)

    async def left_behind(self, known: Sequence[str]) -> Sequence[str]:
        return [name for name in self.alive if name not in known and name not in self._followed]

    async def release_strangers(self, known: Sequence[str]) -> None:
        for runner_id in await self.left_behind(known):
            del self.alive[runner_id]

    async def exec(self, runner: Runner, request: ExecRequest) -> ExecSession:
        raise Unavailable(f"runner {runner.runner_id} cannot be reached")

    async def result(self, runner: Runner) -> RunResult:
        if runner.runner_id in self.released:
            raise Unavailable("what was kept for it is deleted")
        if runner.runner_id not in self.results:
            raise Unavailable("it ended without a result")
        return self.results[runner.runner_id]

    async def observations(self) -> AsyncIterator[Observation]:
        if self.blind:
            self.blind -= 1
            raise RuntimeError("the engine broke off")
        while (seen := await self._told.get()) is not None:
            yield seen

    async def release(self, runner_id: str) -> None:
        if runner_id in self.poisoned:
            self.changed.notify()
            raise RuntimeError("poison")
        if runner_id in self.unstored:
            await asyncio.Event().wait()
        self.released.append(runner_id)
        self.changed.notify()

    async def close(self) -> None:
        self._told.put_nowait(None)


def _handle(runner_id: str) -> str:
    return f"the process of {runner_id}"


async def _unheard(entry: LogEntry) -> None:
    """Discard the output of a build."""
