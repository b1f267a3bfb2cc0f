"""Reattaches the runners of an earlier controller when this one starts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial

from fal_server.aio.rounds import Rounds
from fal_server.core.faults import Fault
from fal_server.core.identity import EVERY_ACCOUNT
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.runners import NO_PROCESS, Desired, Runner, RunnerState, StopCause
from fal_server.live.fleet import Fleet
from fal_server.ports import Engine

log = logging.getLogger(__name__)

# Each runner's shim has some seconds to answer, and on a busy machine a thousand at once take longer.
_AT_ONCE = 64
# After so many failures nothing waits for a runner, or for what an earlier controller left, any longer.
_MOST_TRIES = 3
_REST = ""  # in place of a runner's id: what an earlier controller left
_GONE = "it was gone when the controller came back"
_COPIED = "it belongs to the state directory that this one was copied from"
_UNREADABLE = "its token in the database is damaged, so that the controller could not reattach it"
_CALLER_GONE = "the controller was restarted, and with it the call that started this runner ended"


class Adoption:
    """Adopts every living runner, and ends everything else of an earlier controller.

    Runners of this machine are adopted before anything is routed. Those of nodes get no request until they have said
    what they work on, or their node counts as silent. Nothing may be planned before all have: a plan would end a runner
    that nobody follows yet, and what it starts would be taken for a stranger.

    Args:
        hold: takes the slots of what runners work on, by their ids; None if one is to be asked once its node answers.
        first_word: waits for a node's first word, but not for long.

    Attributes:
        done: set once plans may be made.
    """

    def __init__(
        self,
        fleet: Fleet,
        engine: Engine,
        *,
        hold: Callable[[Mapping[str, int | None]], None],
        first_word: Callable[[str], Awaitable[None]],
    ) -> None:
        self._fleet = fleet
        self._engine = engine
        self._hold = hold
        self._first_word = first_word
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._left: dict[str, Runner] = {}
        self._nodes: Collection[str] = ()
        self._failures: Counter[str] = Counter()
        self.done = asyncio.Event()

    @property
    def left(self) -> int:
        """How many runners are still to be adopted."""
        return len(self._left)

    async def begin(self, nodes: Collection[str]) -> None:
        """Adopt the runners of this machine. Call it before anything is planned or routed.

        Args:
            nodes: the other machines; without any, all is done when this returns.

        Raises:
            Unavailable: the result cannot be stored; adopted runners continue.
        """
        self._nodes = nodes
        for runner in self._fleet.runners:
            self._left[runner.runner_id] = runner
            self._fleet.withhold(runner.runner_id)
        if nodes:
            # One without a node may be on any of them, because its start was interrupted.
            await self._adopt(runner for runner in self._left.values() if runner.node and runner.node not in nodes)
        else:
            await self._finish()

    async def give_up(self) -> None:
        """End the rows of another state directory's runners without touching the runners.

        Raises:
            Unavailable: an end cannot be stored.
        """
        for runner in self._fleet.runners:
            await self._fleet.drain(runner.runner_id, _COPIED)
            await self._fleet.observe(Observation(runner_id=runner.runner_id, event=Event.GONE, reason=_COPIED))
        self.done.set()

    async def run(self) -> None:
        """Adopt the runners of nodes. What cannot be stored is tried again."""
        if self.done.is_set():
            return
        telling = asyncio.get_running_loop().create_task(self._tell())
        try:
            await Rounds("adopting runners", self._round).run_until(self.done)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self) -> None:
        """Log how many runners are left, if that takes long."""
        total, seconds = self.left, 1.0
        while True:
            await asyncio.sleep(seconds)
            log.info("%d of %d runners are still to be adopted; nothing starts until then", self.left, total)
            seconds *= 2

    async def _round(self) -> None:
        of_nodes: dict[str, list[Runner]] = {node: [] for node in self._nodes}
        for runner in self._left.values():
            if runner.node:
                of_nodes.setdefault(runner.node, []).append(runner)
        await _all(self._adopt_on(node, runners) for node, runners in of_nodes.items())
        try:
            await self._finish()
        except Fault as fault:
            if self._may_fail_again(_REST):
                raise
            log.warning("something of an earlier controller is not ended: %s", fault.message)
            self.done.set()

    async def _adopt_on(self, node: str, runners: Iterable[Runner]) -> None:
        await self._first_word(node)
        await self._adopt(runners)

    async def _finish(self) -> None:
        await self._adopt(self._left.values())
        known = [runner.runner_id for runner in self._fleet.runners]
        # A runner without a token is ended as a stranger.
        for runner_id in await self._engine.left_behind(known):
            ended = await self._fleet.find(EVERY_ACCOUNT, runner_id)
            # Its end is stored, but perhaps not its last log lines; if its shim lives, GONE follows and releases it.
            if ended is not None and ended.token and await self._engine.adopt(ended) is not None:
                await self._engine.kill(ended)
        await self._engine.release_strangers([runner.runner_id for runner in self._fleet.runners])
        self.done.set()

    async def _adopt(self, runners: Iterable[Runner]) -> None:
        await _all(map(self._adopt_one, tuple(runners)))

    async def _adopt_one(self, runner: Runner) -> None:
        runner_id = runner.runner_id
        async with self._places:
            # What was written meanwhile, such as that it is to stop, counts.
            current = self._fleet.get(runner_id)
            try:
                count = 0 if current is None else await _reattach(self._fleet, self._engine, current)
            except Fault as fault:
                if self._may_fail_again(runner_id):
                    raise
                log.warning("runner %s is not adopted, and asked again later: %s", runner_id, fault.message)
                count = None
        current = self._fleet.get(runner_id)
        # A node that went away since its runner answered says again what that works on when it is back.
        if count is None or (current is not None and self._fleet.is_silent(current.node)):
            self._hold({runner_id: None})
        else:
            self._fleet.route_again(runner_id, partial(self._hold, {runner_id: count}))
        del self._left[runner_id]

    def _may_fail_again(self, what: str) -> bool:
        """Count a failure. Return whether the others wait for another try."""
        self._failures[what] += 1
        return self._failures[what] < _MOST_TRIES


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Wait for the end of all, and raise the first failure then."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _reattach(fleet: Fleet, engine: Engine, runner: Runner) -> int | None:
    runner_id = runner.runner_id
    if not runner.token:
        await fleet.drain(runner_id, _UNREADABLE)
        await fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=_UNREADABLE))
        return 0
    adopted = await engine.adopt(runner)
    if adopted is None:
        if runner.state in NO_PROCESS and not runner.ephemeral:
            return 0  # it never started, or its start was interrupted: start it again from scratch
        if runner.state is not RunnerState.TERMINATING:
            # Mark it unwanted first; otherwise its end would count as a failed start, although only the machine went
            # down. A runner that was being killed, for example by startup_timeout, keeps its reason.
            await fleet.drain(runner_id, _GONE)
        lost = StopCause.LOST if runner.desired is Desired.SERVE else None
        await fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=_GONE, stop_cause=lost))
        return 0
    # Store this here, although the engine also reports it: no plan may treat the runner as one without a process.
    await fleet.observe(
        Observation(runner_id=runner_id, event=Event.LAUNCHED, node=adopted.node, handle=adopted.handle)
    )
    if adopted.exited:
        fleet.stop_routing(runner_id)  # GONE follows; until then it gets no requests
    if runner.ephemeral:
        await fleet.kill(runner_id, _CALLER_GONE)
    return None if adopted.silent else adopted.requests_in_flight or 0
