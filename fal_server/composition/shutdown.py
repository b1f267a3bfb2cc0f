"""Stops a controller in order. New requests are refused, open ones finish, runners end, last responses go out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from fal_server.core.counting import counted
from fal_server.core.faults import Fault
from fal_server.core.runners import Runner
from fal_server.grpc.server import GrpcServer
from fal_server.http.server.listener import Listener
from fal_server.live.dispatch import Dispatcher
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.loops.queue import QueueWorker
from fal_server.loops.reconciler import Reconciler
from fal_server.ports import Engine

log = logging.getLogger(__name__)
# A runner has a grace of at most 30 s after SIGTERM; after this time it is killed.
END_SECONDS = 45.0
_KILL_SECONDS = 10.0
# A node process that starts again is back by then; of the others the runners cannot be ended now.
_SILENT_SECONDS = 5.0
# Even if the time for requests is used up, current responses must be sent.
_LAST_SECONDS = 1.0
_LOOK_SECONDS = 0.2


class Shutdown:
    """Stops one controller, once.

    Args:
        changed: notified at every change of a runner.
        silent: returns the names of the nodes that do not answer now.
        drain_seconds: how long the shutdown waits for requests in flight.
        report: called with what the shutdown waits for, whenever that changes.
    """

    def __init__(
        self,
        *,
        listener: Listener,
        grpc: GrpcServer,
        reconciler: Reconciler,
        queue_worker: QueueWorker,
        dispatcher: Dispatcher,
        fleet: Fleet,
        engine: Engine,
        changed: ChangeNotifier,
        silent: Callable[[], Collection[str]],
        drain_seconds: float,
        report: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._grpc = grpc
        self._reconciler = reconciler
        self._queue_worker = queue_worker
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._engine = engine
        self._changed = changed
        self._silent = silent
        self._drain_seconds = drain_seconds
        self._report = report
        self._at_once = False

    def end_at_once(self) -> None:
        """Stop waiting: abort requests and kill runners."""
        self._at_once = True
        self._changed.notify()

    async def run(self, *, keeps: Callable[[Runner], bool]) -> None:
        """Stop; nothing runs when this returns.

        Args:
            keeps: whether a runner goes on to serve, so that the next controller adopts it.
        """
        until = asyncio.get_running_loop().time() + self._drain_seconds
        self._listener.drain()
        self._reconciler.stop_starting()
        self._queue_worker.stop_taking()
        self._changed.notify()
        await self._drained(until)
        # Do this before the runners end: the next controller repeats the interrupted attempts, and counts no failure.
        await self._queue_worker.close()
        await self._dispatcher.close()
        await self._reconciler.close()
        # A runner of `fal run` serves one call, which ends here.
        await self._end([r.runner_id for r in self._fleet.runners if r.ephemeral or not keeps(r)])
        await self._answered(until)
        # gRPC notifies its clients before the listener closes their connections.
        await self._grpc.stop(0 if self._at_once else _LAST_SECONDS)
        await self._listener.close(0)

    async def _drained(self, until: float) -> None:
        """Let requests on runners finish. Waiting requests may still get a free slot."""

        def in_flight() -> int:
            return sum(self._fleet.usage(runner.runner_id).in_flight for runner in self._fleet.runners)

        phrase = f"in flight (at most {self._drain_seconds:g} s)"
        if await self._wait_for(lambda: _some(in_flight(), "request", phrase), until):
            log.info("no request is on a runner")
        else:
            log.warning("%s cut off", _some(in_flight(), "request", "in flight:"))

    async def _answered(self, until: float) -> None:
        """Send remaining responses at the pace of their readers."""
        until = max(until, asyncio.get_running_loop().time() + _LAST_SECONDS)
        if not await self._wait_for(lambda: _some(self._listener.open, "connection", "to be answered"), until):
            log.warning("%s cut off", _some(self._listener.open, "connection", "with an answer in progress:"))

    async def _end(self, runner_ids: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + _SILENT_SECONDS

        def left(phrase: str) -> str:
            """Describe what is left. For a while this includes runners of nodes that do not answer."""
            unreachable = self._unreachable(runner_ids)
            here = sum(not self._reconciler.has_ended(runner_id) for runner_id in runner_ids) - len(unreachable)
            there = ""
            if unreachable and loop.time() < patient_until:
                there = f"{_unreached(unreachable)} (at most {_SILENT_SECONDS:g} s)"
            return " and ".join(filter(None, [_some(here, "runner", phrase), there]))

        for runner_id in runner_ids:
            await self._end_one(runner_id)
        phrase = f"to end (at most {END_SECONDS:g} s)"
        if not await self._wait_for(lambda: left(phrase), loop.time() + END_SECONDS):
            for runner_id in runner_ids:
                await self._end_one(runner_id, kill=True)
            await self._wait_for(lambda: left("to be killed"), loop.time() + _KILL_SECONDS, patient=True)
        unreachable = self._unreachable(runner_ids)
        if unreachable:
            log.warning("%s: the next start of a controller ends what is there", _unreached(unreachable))
        unstored = sum(self._fleet.get(runner_id) is not None for runner_id in runner_ids) - len(unreachable)
        if unstored:
            log.error(
                "%s: the next start looks what became of them", _some(unstored, "runner", "whose end is not stored")
            )

    def _unreachable(self, runner_ids: Sequence[str]) -> Sequence[Runner]:
        """Return which runners live on silent nodes, as far as is known."""
        silent = self._silent()
        living = [self._fleet.get(each) for each in runner_ids if not self._reconciler.has_ended(each)]
        return [runner for runner in living if runner is not None and runner.node in silent]

    async def _end_one(self, runner_id: str, *, kill: bool = False) -> None:
        """End a runner, with its grace or at once. Do so even if that cannot be stored."""
        reason = "the controller was stopped"
        try:
            await (self._fleet.kill(runner_id, reason) if kill else self._fleet.stop(runner_id, reason))
        except Fault as fault:
            log.warning("runner %s is ended, but that cannot be stored yet: %s", runner_id, fault.message)
            runner = self._fleet.get(runner_id)
            if runner is not None:
                await (self._engine.kill(runner) if kill else self._engine.stop(runner, runner.grace_seconds))

    async def _wait_for(self, what: Callable[[], str], until: float, *, patient: bool = False) -> bool:
        """Wait until nothing is left or the time is over. A second signal ends the wait, too, unless `patient`.

        Args:
            what: returns a description of what is left; empty for nothing.
            until: in the loop's time.

        Returns:
            Whether nothing is left.
        """
        loop = asyncio.get_running_loop()
        reported = ""
        while message := what():
            left = until - loop.time()
            if left <= 0 or (self._at_once and not patient):
                return False
            if message != reported:
                reported = message
                self._report(message)
            await self._changed.wait(self._changed.count, min(left, _LOOK_SECONDS))
        return True


def _some(count: int, noun: str, phrase: str) -> str:
    """Return `2 runners to end`, or "" for none."""
    return f"{counted(count, noun)} {phrase}" if count else ""


def _unreached(runners: Sequence[Runner]) -> str:
    """Return `2 runners on node n3, which does not answer`."""
    nodes = sorted({runner.node for runner in runners})
    where = f"node {nodes[0]}, which does" if len(nodes) == 1 else f"nodes {', '.join(nodes)}, which do"
    return f"{counted(len(runners), 'runner')} on {where} not answer"
