"""A plan over possible changes has all actions of a full plan."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fal_server.core.actions import Action, Create, Drain, Launch
from fal_server.core.autoscale import Load
from fal_server.core.identity import AppId
from fal_server.core.machines import Node, Resources
from fal_server.core.quotas import Quotas
from fal_server.core.reconcile import AppInput, Look, StandingPlan, Usage, plan
from fal_server.core.runners import Desired, Runner, RunnerState
from tests.fakes.domain import BIG_NODE, app_id, at, make_app, make_runner

S = RunnerState
NAMES = ("a", "b", "c")
REVISIONS = ("r1", "r2", "r3")


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Draw the usual value in most cases. An app with only unusual values never rests."""
    return st.sampled_from([usual] * 6 * len(others) + list(others))


@st.composite
def runners(draw: st.DrawFn, now: float) -> Runner:
    """Draw a runner of any state. Its history is before now and its delay after."""
    state = draw(
        mostly(S.IDLE, *[s for s in S if s not in (S.RUNNING, S.TERMINATED)]) | st.sampled_from([S.SETUP, S.PENDING])
    )
    process = state not in (S.PENDING, S.FAILURE_DELAY)
    past = st.sampled_from([0, 0, 1, 5, 20, 40]).map(lambda ago: at(now - ago))
    return replace(
        make_runner(f"x{draw(st.integers(0, 11)):02}", state),
        app_name=draw(mostly("a", "b", "c", "deleted") | st.sampled_from(NAMES)),
        revision_id=draw(mostly("r1", "r2", "r3")),
        machine_type=draw(mostly("XS", "S", "GPU-A", "gone")),
        desired=draw(mostly(Desired.SERVE, *Desired)),
        created_at=draw(past),
        started_at=draw(past) if process else None,
        ready_at=draw(past) if state in (S.IDLE, S.DRAINING) else None,
        unrouted_at=draw(st.none() | past),
        not_before=None if process else at(now + draw(st.sampled_from([0, 5, 20]))),
        node="n0" if process else "",
        gpus=draw(mostly((), ("GPU-A/0",), ("GPU-A/1",))) if process else (),
        kill=draw(mostly(False, True)),
        replace_first=draw(mostly(False, True)),
        replaces=draw(mostly(None, "x01", "x02")),
    )


@st.composite
def inputs(draw: st.DrawFn, name: str, now: float) -> AppInput:
    least = draw(mostly(0, 1, 2))
    app = make_app(
        name,
        next_revision_id=draw(mostly(None, "r2")),
        min_concurrency=least,
        max_concurrency=draw(st.integers(least, 4)),
        concurrency_buffer=draw(mostly(0, 1)),
        keep_alive=draw(st.sampled_from([1, 20, 60])),
        startup_timeout=draw(st.sampled_from([5, 40])),
        machine_types=draw(st.sampled_from([("XS",), ("S", "XS"), ("GPU-A",)])),
    )
    queued = draw(mostly(0, 1, 3))
    failures = draw(mostly(0, 1, 2))
    return AppInput(
        app=app,
        load=Load(in_flight=draw(mostly(0, 1, 2)), queued=queued, eligible=draw(st.integers(0, queued))),
        failures=failures,
        failed_at=at(now - draw(st.integers(0, 40))) if failures else None,
        next_failures=draw(mostly(0, 1)),
        num_gpus={i: draw(mostly(None, 1, 2)) for i in REVISIONS},
        serves_http=draw(mostly(True, False)),
        ephemeral=draw(mostly(False, True)),
        unproven=frozenset(draw(mostly((), ("x01",), ("x02", "x03")))),
    )


def node(room: int, name: str = "n0") -> Node:
    return Node(name=name, total=Resources(memory_mib=1024 * room, gpus={"GPU-A": room}))


class Worlds(RuleBasedStateMachine):
    """Change anything of any app, and let time pass. Report only the changes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.inputs: dict[AppId, AppInput] = {}
        self.runners: dict[str, Runner] = {}
        self.usage: dict[str, Usage] = {}
        self.nodes: list[Node] = [node(2)]
        self.quota = 0
        self.standing = StandingPlan()
        self.touched: set[AppId] = set()

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def change_an_app(self, data: st.DataObject, name: str) -> None:
        self.inputs[app_id(name)] = data.draw(inputs(name, self.seconds))
        self.touched.add(app_id(name))

    @rule(name=st.sampled_from(NAMES))
    def delete_an_app(self, name: str) -> None:
        self.inputs.pop(app_id(name), None)
        self.touched.add(app_id(name))

    @rule(data=st.data())
    def change_a_runner(self, data: st.DataObject) -> None:
        runner = data.draw(runners(self.seconds))
        before = self.runners.get(runner.runner_id)
        self.touched |= {r.app_id for r in (before, runner) if r is not None}
        self.runners[runner.runner_id] = runner

    @precondition(lambda self: self.runners)
    @rule(data=st.data())
    def end_a_runner(self, data: st.DataObject) -> None:
        runner = self.runners.pop(data.draw(st.sampled_from(sorted(self.runners))))
        self.touched.add(runner.app_id)

    @precondition(lambda self: self.runners)
    @rule(data=st.data(), in_flight=mostly(0, 1, 2), ago=st.sampled_from([None, 0, 10]))
    def use_a_runner(self, data: st.DataObject, in_flight: int, ago: int | None) -> None:
        runner = self.runners[data.draw(st.sampled_from(sorted(self.runners)))]
        last = None if ago is None else at(self.seconds - ago)
        self.usage[runner.runner_id] = Usage(in_flight=in_flight, last_request_at=last)
        self.touched.add(runner.app_id)

    @rule(rooms=st.lists(st.integers(0, 3), min_size=1, max_size=2), trouble=mostly("", "the disk is full"))
    def change_the_machines(self, rooms: list[int], trouble: str) -> None:
        self.nodes = [replace(node(room, f"n{number}"), trouble=trouble) for number, room in enumerate(rooms)]

    @rule(most=st.integers(0, 3))
    def change_the_quota(self, most: int) -> None:
        self.quota = most

    def look(self, known: AppId) -> Look:
        mine = [r for r in self.runners.values() if r.app_id == known]
        return Look(app_id=known, given=self.inputs.get(known), runners=mine, usage=self.usage)

    @invariant()
    def the_actions_are_those_of_a_plan_over_everything(self) -> None:
        """Compare at once, and twice later, after nothing but time has changed."""
        for seconds in (0, 5, 16):
            self.seconds += seconds
            if seconds:
                self.make_waiting_requests_eligible()
            self.compare(at(self.seconds))

    def make_waiting_requests_eligible(self) -> None:
        for known, given in self.inputs.items():
            self.inputs[known] = replace(given, load=replace(given.load, eligible=given.load.queued))

    def compare(self, now: datetime) -> None:
        def quotas(_account: str) -> Quotas:
            return Quotas(runners=self.quota)

        whole = plan(self.inputs.values(), list(self.runners.values()), self.usage, self.nodes, now, quotas)
        looks = [self.look(known) for known in self.touched | self.standing.due(now)]
        self.touched.clear()
        assert sorted(map(repr, self.standing.plan(looks, self.nodes, now, quotas))) == sorted(map(repr, whole))


Worlds.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestWorlds = pytest.mark.slow(Worlds.TestCase)


def rested(count: int) -> tuple[StandingPlan, dict[AppId, Look], list[Action]]:
    """Return a plan that has looked at this many apps. Each has one idle runner that stays."""
    looks: dict[AppId, Look] = {}
    for number in range(count):
        name = f"a{number:05}"
        runner = make_runner(f"x{number:05}", S.IDLE, app_name=name, ready_at=at(0))
        given = AppInput(app=make_app(name, min_concurrency=1))
        looks[app_id(name)] = Look(app_id=app_id(name), given=given, runners=[runner], usage={})
    standing = StandingPlan()
    return standing, looks, standing.plan(looks.values(), [BIG_NODE], at(0))


def test_apps_at_rest_are_not_looked_at() -> None:
    standing, _, actions = rested(3)
    assert actions == []
    assert standing.due(at(59)) == set()


def test_an_app_rests_until_a_runner_was_idle_for_long_enough() -> None:
    given = AppInput(app=make_app(keep_alive=30))
    runner = make_runner("x", S.IDLE, ready_at=at(0))
    look = Look(app_id=app_id(), given=given, runners=[runner], usage={"x": Usage(last_request_at=at(5))})
    standing = StandingPlan()
    assert standing.plan([look], [BIG_NODE], at(5)) == []
    assert standing.due(at(34.9)) == set()
    assert standing.due(at(35)) == {app_id()}
    assert [type(action) for action in standing.plan([look], [BIG_NODE], at(35))] == [Drain]


def test_an_app_with_something_to_do_is_looked_at_until_that_is_done() -> None:
    given = AppInput(app=make_app(min_concurrency=1))
    look = Look(app_id=app_id(), given=given, runners=[], usage={})
    standing = StandingPlan()
    assert [type(action) for action in standing.plan([look], [BIG_NODE], at(0))] == [Create]
    assert standing.due(at(0)) == {app_id()}
    pending = replace(look, runners=[make_runner("x")])
    assert [type(action) for action in standing.plan([pending], [BIG_NODE], at(0))] == [Launch]
    assert standing.due(at(0)) == {app_id()}
    ready = replace(look, runners=[make_runner("x", S.IDLE)])
    assert standing.plan([ready], [BIG_NODE], at(0)) == []
    assert standing.due(at(0)) == set()


def test_what_rested_for_long_is_looked_at_again_some_at_a_time() -> None:
    standing, looks, _ = rested(1000)
    now, seen = at(61), defaultdict[AppId, int](int)
    while due := standing.due(now):
        assert len(due) <= 200
        for known in due:
            seen[known] += 1
        assert standing.plan([looks[known] for known in due], [BIG_NODE], now) == []
    assert seen == dict.fromkeys(looks, 1)
    assert standing.due(now + timedelta(seconds=59)) == set()


def test_a_change_that_nobody_said_is_found_in_the_end() -> None:
    standing, looks, _ = rested(3)
    changed = replace(looks[app_id("a00001")], runners=[])
    due = standing.due(at(60))
    assert app_id("a00001") in due
    assert [type(action) for action in standing.plan([changed], [BIG_NODE], at(60))] == [Create]
