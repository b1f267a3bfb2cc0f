"""Properties of all histories of an app. Loads, deploys, failures, stops and kills come in any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fal_server.core.autoscale import decide
from fal_server.core.lifecycle import Event
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.core.scaling import Scaling
from tests.fakes.world import World

S = RunnerState
which = st.integers(0, 50)


class AppHistory(RuleBasedStateMachine):
    """Asserts invariants when the world has settled. The world asserts its own rules at every action."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(room=4)
        self.revisions = 1

    @initialize(room=st.integers(1, 6))
    def begin(self, room: int) -> None:
        self.world = World(room)

    def one(self, number: int, *states: RunnerState) -> Runner | None:
        found = [r for r in self.world.runners.values() if r.state in states]
        return found[number % len(found)] if found else None

    # Events

    @rule(seconds=st.sampled_from([1, 9, 10, 20, 30, 60, 601]))
    def time_passes(self, seconds: int) -> None:
        self.world.seconds += seconds

    @rule(count=st.integers(1, 5))
    def requests_come(self, count: int) -> None:
        self.world.arrived += [self.world.seconds] * count

    @rule()
    def a_caller_hangs_up(self) -> None:
        if self.world.arrived:
            self.world.arrived.pop()

    @rule(number=which)
    def a_request_ends(self, number: int) -> None:
        busy = [i for i, count in self.world.in_flight.items() if count]
        if busy:
            self.world.finish_request(busy[number % len(busy)])

    @rule(number=which)
    def a_runner_becomes_ready(self, number: int) -> None:
        if runner := self.one(number, S.SETUP):
            self.world.see(runner.runner_id, Event.READY, port=1)

    @rule(number=which)
    def a_runner_ends(self, number: int) -> None:
        if runner := self.one(number, S.SETUP, S.IDLE, S.DRAINING, S.TERMINATING):
            self.world.see(runner.runner_id, Event.GONE)

    @rule(number=which, how=st.sampled_from(["stop", "replace", "dismiss", "kill"]))
    def somebody_ends_a_runner(self, number: int, how: str) -> None:
        runner = self.one(number, *S)
        if runner is None:
            return
        world, runner_id = self.world, runner.runner_id
        if how == "replace" and runner.routable:
            world.want(runner_id, replace_first=True)
        elif how == "dismiss":
            world.want(runner_id, desired=Desired.GONE)
        elif how == "kill":
            world.want(runner_id, desired=Desired.GONE, kill=True)
        elif runner.desired is Desired.SERVE:
            world.want(runner_id, desired=Desired.DRAIN)

    @rule(rolling=st.booleans())
    def a_deploy(self, rolling: bool) -> None:
        self.revisions += 1
        new = f"r{self.revisions}"
        app = self.world.app
        if rolling:
            self.world.app = replace(app, next_revision_id=new)
        else:
            self.world.app = replace(app, revision_id=new, next_revision_id=None)

    @rule()
    def a_rollout(self) -> None:
        for runner in self.world.current():
            if runner.routable:
                self.world.want(runner.runner_id, replace_first=True)

    @rule(
        least=st.integers(0, 2),
        more=st.integers(0, 3),
        buffer=st.integers(0, 2),
        multiplexing=st.integers(1, 3),
        delay=st.sampled_from([0, 5]),
        keep_alive=st.sampled_from([0, 10, 60]),
    )
    def the_app_is_scaled(
        self, least: int, more: int, buffer: int, multiplexing: int, delay: int, keep_alive: int
    ) -> None:
        scaling = Scaling(
            min_concurrency=least,
            max_concurrency=least + more,
            concurrency_buffer=buffer,
            max_multiplexing=multiplexing,
            scaling_delay=delay,
            keep_alive=keep_alive,
        )
        self.world.app = replace(self.world.app, scaling=scaling)

    # Invariants

    @invariant()
    def it_settles_with_what_is_wanted(self) -> None:
        world = self.world
        world.settle()
        decision = decide(world.app.scaling, world.load())
        extras = {r.runner_id for r in world.extras()}
        counted = [r for r in world.current() if r.runner_id not in extras]
        if not world.failures.get(world.app.revision_id):
            assert len(counted) >= decision.start_below
        elif decision.start_below:
            assert world.current(), "nothing tries again after a failure"
        assert all(r.revision_id in (world.app.revision_id, world.app.next_revision_id) for r in world.serving())
        for runner in world.runners.values():
            if runner.state is S.PENDING:
                assert runner.not_before is not None
                assert runner.reason
        before = dict(world.runners)
        world.settle()
        assert world.runners == before

    def teardown(self) -> None:
        """Assert that without load and minimum no runner is left. Assert that no deploy hangs."""
        world = self.world
        world.arrived.clear()
        world.app = replace(world.app, scaling=Scaling(max_concurrency=3))
        for _ in range(12):
            for runner in list(world.runners.values()):
                world.in_flight.pop(runner.runner_id, None)
                if runner.state is S.SETUP:
                    world.see(runner.runner_id, Event.READY, port=1)
                elif runner.state is S.TERMINATING:
                    world.see(runner.runner_id, Event.GONE)
            world.settle()
            world.seconds += 700
        assert world.app.next_revision_id is None
        assert not world.runners


AppHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAppHistory = pytest.mark.slow(AppHistory.TestCase)
