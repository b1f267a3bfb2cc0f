"""A world of one app. It applies plans step by step, without clock, loop or process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fal_server.core import actions as act
from fal_server.core.apps import App
from fal_server.core.autoscale import Load
from fal_server.core.lifecycle import MOVES, Event, Observation, step
from fal_server.core.machines import Node, Resources
from fal_server.core.reconcile import AppInput, Usage, plan
from fal_server.core.routing import OpenSlots, Slot
from fal_server.core.runners import RANK, Desired, Runner, RunnerState
from tests.fakes.domain import at, make_app, make_runner

S = RunnerState


class World:
    """The state of the world, and rules that hold at every step.

    Args:
        room: how many runners the one node can hold.
    """

    def __init__(self, room: int) -> None:
        self.seconds = 0
        self.app: App = make_app(max_concurrency=3)
        self.node = Node(name="here", total=Resources(memory_mib=512 * room, gpus={}))
        self.runners: dict[str, Runner] = {}
        self.in_flight: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.arrived: list[int] = []  # when each waiting request arrived
        self.failures: dict[str, int] = {}
        self.failed_at: dict[str, int] = {}
        self.holds = 0
        self.made = 0
        self.moves = 0

    # Events

    def load(self) -> Load:
        eligible = sum(self.seconds - came >= self.app.scaling.scaling_delay for came in self.arrived)
        busy = sum(self.in_flight.get(r.runner_id, 0) for r in self.current() if r.routable)
        return Load(in_flight=busy, queued=len(self.arrived), eligible=eligible)

    def current(self) -> list[Runner]:
        """Return the serving runners of the app's revision."""
        return [r for r in self.serving() if r.revision_id == self.app.revision_id]

    def serving(self) -> list[Runner]:
        return [r for r in self.runners.values() if r.desired is Desired.SERVE and not r.ended]

    def extras(self) -> list[Runner]:
        """Return runners beyond the target. They are of the next revision, or replace old runners beside them."""
        there = {r.runner_id for r in self.current()}
        coming = [r for r in self.serving() if r.revision_id == self.app.next_revision_id]
        return coming + [r for r in self.current() if r.replaces in there]

    def see(self, runner_id: str, event: Event, **fields: Any) -> None:
        before = self.runners[runner_id]
        after = step(before, Observation(runner_id=runner_id, event=event, **fields), at(self.seconds))
        if after is not before:
            assert after.state in MOVES[before.state]
            assert RANK[after.state] > RANK[before.state]
        self.runners[runner_id] = after
        if after.state is S.IDLE:
            self.failures.pop(after.revision_id, None)
        if after.ended:
            del self.runners[runner_id]
            self.in_flight.pop(runner_id, None)
            if after.desired is Desired.SERVE and after.ready_at is None:
                self.failures[after.revision_id] = self.failures.get(after.revision_id, 0) + 1
                self.failed_at[after.revision_id] = self.seconds

    def want(self, runner_id: str, **fields: object) -> None:
        before = self.runners[runner_id]
        after = replace(before, **fields)
        order = list(Desired)
        assert order.index(after.desired) >= order.index(before.desired), "a draining runner came back"
        self.runners[runner_id] = after

    def route(self) -> None:
        """Give waiting requests to runners, like the dispatcher."""
        places = OpenSlots()
        for runner in self.current():
            if runner.routable:
                busy = self.in_flight.get(runner.runner_id, 0)
                places.add(Slot(runner_id=runner.runner_id, host="h", port=1, in_flight=busy))
        while self.arrived and (slot := places.choose(self.app.scaling.max_multiplexing)) is not None:
            self.arrived.pop(0)
            slot.take()
            assert slot.in_flight <= self.app.scaling.max_multiplexing
            self.in_flight[slot.runner_id] = slot.in_flight

    def finish_request(self, runner_id: str) -> None:
        if self.in_flight.get(runner_id, 0):
            self.in_flight[runner_id] -= 1
            self.last[runner_id] = self.seconds

    # Actions

    def plan(self) -> list[act.Action]:
        app = self.app
        given = AppInput(
            app=app,
            load=self.load(),
            failures=self.failures.get(app.revision_id, 0),
            failed_at=at(self.failed_at.get(app.revision_id, 0)),
            next_failures=self.failures.get(app.next_revision_id or "", 0),
        )
        usage = {
            i: Usage(in_flight=self.in_flight.get(i, 0), last_request_at=at(self.last[i]) if i in self.last else None)
            for i in self.runners
        }
        return plan([given], list(self.runners.values()), usage, [self.node], at(self.seconds))

    def settle(self) -> None:
        """Plan and apply until only waiting is left."""
        for _ in range(60):
            self.route()
            todo = [a for a in self.plan() if not self._sent(a)]
            if not todo:
                return
            for action in todo:
                self.apply(action)
        raise AssertionError(f"the plan does not settle: {todo}")

    def _sent(self, action: act.Action) -> bool:
        """Apply Stop and Kill once. They stay planned until the runner is gone."""
        return isinstance(action, act.Stop | act.Kill) and self.runners[action.runner_id].state is S.TERMINATING

    def apply(self, action: act.Action) -> None:
        runner_id = getattr(action, "runner_id", "")
        if runner_id and runner_id not in self.runners:
            return
        match action:
            case act.Create():
                self._create(action)
            case act.Due():
                self.see(runner_id, Event.DUE)
            case act.Launch(node=node, machine_type=machine_type):
                self.want(runner_id, node=node, machine_type=machine_type)
                self.see(runner_id, Event.LAUNCHED, node=node)
                held = [r for r in self.runners.values() if r.state not in (S.PENDING, S.FAILURE_DELAY)]
                assert len(held) * 512 <= self.node.total.memory_mib, "the node holds more than it has room for"
            case act.Hold(reason=reason, not_before=not_before):
                assert "no node has room" in reason
                assert not_before == at(self.seconds + 20)
                self.want(runner_id, reason=reason, not_before=not_before)
                self.holds += 1
            case act.Promote(revision_id=revision_id):
                ready = [r for r in self.serving() if r.revision_id == revision_id and r.routable]
                assert ready, "the app moved to a revision without a ready runner"
                self.app = replace(self.app, revision_id=revision_id, next_revision_id=None)
                self.moves += 1
            case act.Abandon(revision_id=revision_id):
                assert revision_id == self.app.next_revision_id
                self.app = replace(self.app, next_revision_id=None)
            case _:
                self._end(runner_id, action)

    def _end(self, runner_id: str, action: act.Action) -> None:
        match action:
            case act.Drain(reason=reason):
                if reason.startswith(("idle", "never used")):
                    assert not self.in_flight.get(runner_id), "a busy runner was scaled down"
                self.want(runner_id, desired=Desired.DRAIN, reason=reason)
            case act.ConfirmUnrouted():
                assert self.runners[runner_id].desired is not Desired.SERVE
                self.want(runner_id, unrouted_at=at(self.seconds))
            case act.Unrouted():
                assert self.in_flight.get(runner_id)
                self.see(runner_id, Event.UNROUTED)
            case act.Stop():
                assert self.runners[runner_id].unrouted_at is not None, "stopped before the router acknowledged"
                gone = self.runners[runner_id].desired is Desired.GONE
                assert gone or not self.in_flight.get(runner_id), "a draining runner was stopped with a request"
                self.see(runner_id, Event.STOPPING)
            case act.Kill():
                self.see(runner_id, Event.STOPPING)
            case act.Drop(reason=reason):
                self.want(
                    runner_id, desired=max(self.runners[runner_id].desired, Desired.DRAIN, key=list(Desired).index)
                )
                self.see(runner_id, Event.GONE, reason=reason)

    def _create(self, action: act.Create) -> None:
        self.made += 1
        runner = make_runner(
            f"x{self.made:04}",
            S.PENDING if action.not_before is None else S.FAILURE_DELAY,
            revision_id=action.revision_id,
            not_before=action.not_before,
            replaces=action.replaces,
            created_at=at(self.seconds),
        )
        self.runners[runner.runner_id] = runner
        assert len(self.extras()) <= 1, "more than one runner beyond the number"
        if runner not in self.extras():
            counted = len(self.current()) - len([r for r in self.extras() if r in self.current()])
            assert counted <= self.app.scaling.max_concurrency, "more runners than max_concurrency"
