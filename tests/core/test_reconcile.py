"""The plan, action by action: actual and desired state in, actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fal_server.core.actions import (
    Abandon,
    Action,
    Create,
    Drain,
    Drop,
    Due,
    Hold,
    Kill,
    Launch,
    Promote,
    Stop,
    Unrouted,
)
from fal_server.core.autoscale import Load
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.machines import Node, Resources
from fal_server.core.placement import Placing, plan_launches
from fal_server.core.places import Needs, Room, TakenRoom
from fal_server.core.quotas import Quotas, QuotasOf
from fal_server.core.reconcile import AppInput, Usage, failure_delay, plan
from fal_server.core.runners import Desired, Runner, RunnerState, StopCause
from fal_server.core.scaling import Scaling
from tests.fakes.domain import BIG_NODE, START, app_id, at, make_app, make_runner

S = RunnerState
SMALL = Node(name="here", total=Resources(memory_mib=512, gpus={}))


def planned(
    given: AppInput | None,
    runners: Sequence[Runner] = (),
    usage: Mapping[str, Usage] | None = None,
    now: float = 0,
    nodes: Sequence[Node] = (BIG_NODE,),
) -> list[Action]:
    return plan([given] if given else [], runners, usage or {}, nodes, at(now))


def idle(runner_id: str = "x", ready: float = 0, **changes: Any) -> Runner:
    return make_runner(runner_id, S.IDLE, ready_at=at(ready), created_at=at(ready), **changes)


def used(seconds: float, in_flight: int = 0) -> Usage:
    return Usage(in_flight=in_flight, last_request_at=at(seconds))


def test_nothing_is_wanted_and_nothing_is_done() -> None:
    assert planned(AppInput(app=make_app())) == []


def test_a_waiting_request_starts_a_runner_and_the_reason_is_the_arithmetic() -> None:
    [action] = planned(AppInput(app=make_app(), load=Load(queued=1, eligible=1)))
    assert action == Create(
        app_id=app_id("a"),
        revision_id="r1",
        reason="1 request / 1 at once = 1 runner, buffer 0, min 0, max 2: 1",
    )


@pytest.mark.parametrize(
    ("settings", "load", "there", "created"),
    [
        ({"min_concurrency": 2}, Load(), 0, 2),
        ({"min_concurrency": 2}, Load(), 1, 1),
        ({"concurrency_buffer": 2}, Load(), 0, 2),
        ({"concurrency_buffer": 2, "max_concurrency": 9}, Load(in_flight=1), 2, 1),
        ({"max_concurrency": 2}, Load(queued=9, eligible=9), 1, 1),
        ({"max_concurrency": 2}, Load(queued=9, eligible=9), 2, 0),
        ({"scaling_delay": 5}, Load(queued=1, eligible=0), 0, 0),
        ({"scaling_delay": 5, "min_concurrency": 1}, Load(), 0, 1),
        ({"max_concurrency": 0}, Load(queued=9, eligible=9), 0, 0),
    ],
)
def test_how_many_are_created(settings: dict[str, Any], load: Load, there: int, created: int) -> None:
    runners = [idle(f"x{number}") for number in range(there)]
    actions = planned(AppInput(app=make_app(**settings), load=load), runners)
    assert len([a for a in actions if isinstance(a, Create)]) == created


def test_runners_that_are_on_their_way_out_do_not_count() -> None:
    runners = [idle("x", desired=Desired.DRAIN), make_runner("y", S.TERMINATING, desired=Desired.GONE)]
    actions = planned(AppInput(app=make_app(), load=Load(queued=1, eligible=1)), runners)
    assert any(isinstance(a, Create) for a in actions)


def test_a_function_without_a_port_has_no_runners() -> None:
    assert planned(AppInput(app=make_app(min_concurrency=1), serves_http=False)) == []


# Failed starts


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 30), (2, 60), (3, 90), (19, 570), (20, 600), (21, 600), (99, 600)]
)
def test_each_further_start_after_a_failure_waits_longer(failures: int, seconds: int) -> None:
    assert failure_delay(failures).total_seconds() == seconds
    given = AppInput(app=make_app(), load=Load(queued=2, eligible=2), failures=failures, failed_at=START)
    [create] = planned(given)  # one at a time, although two are missing
    assert isinstance(create, Create)
    assert create.not_before == at(seconds)


def test_a_delay_counts_from_the_failure() -> None:
    given = AppInput(app=make_app(), load=Load(queued=1, eligible=1), failures=1, failed_at=START)
    [create] = planned(given, now=31)
    assert isinstance(create, Create)
    assert create.not_before is None


def test_after_a_failure_no_second_start_is_tried_beside_the_first() -> None:
    given = AppInput(app=make_app(), load=Load(queued=2, eligible=2), failures=1, failed_at=START)
    assert planned(given, [make_runner(state=S.FAILURE_DELAY, not_before=at(30))]) == []
    assert planned(given, [make_runner(state=S.SETUP)]) == []


def test_a_delay_ends_by_time_or_by_a_success_of_another() -> None:
    runner = make_runner(state=S.FAILURE_DELAY, not_before=at(30))
    failing = AppInput(app=make_app(), load=Load(queued=1, eligible=1), failures=1, failed_at=START)
    assert planned(failing, [runner], now=29) == []
    assert planned(failing, [runner], now=30) == [Due(runner_id="x")]
    others = [replace(runner, runner_id=name) for name in "xyz"]
    healthy = AppInput(app=make_app(max_concurrency=3), load=Load(queued=3, eligible=3))
    assert planned(healthy, others, now=1) == [Due(runner_id=name) for name in "xyz"]


# Room


def test_a_pending_runner_starts_where_there_is_room_as_the_first_type_that_fits() -> None:
    given = AppInput(app=make_app(machine_types=("XL", "XS")), load=Load(queued=1, eligible=1))
    assert planned(given, [make_runner()], nodes=[SMALL]) == [Launch(runner_id="x", node="here", machine_type="XS")]


def test_what_lives_holds_its_room_and_who_finds_none_is_told_why() -> None:
    given = AppInput(app=make_app(), load=Load(in_flight=1, queued=1, eligible=1))
    busy = idle("busy")
    [hold] = planned(given, [busy, make_runner()], {"busy": used(0, 1)}, nodes=[SMALL])
    assert hold == Hold(
        runner_id="x",
        reason="no node has room (XS: 512 MiB of memory asked for, 0 free)",
        not_before=at(20),
        hopeless=False,
    )


def test_a_runner_that_is_drained_now_holds_its_room_until_it_is_gone() -> None:
    given = AppInput(app=make_app(revision_id="r2", min_concurrency=1))
    actions = planned(given, [idle("old"), make_runner("new", revision_id="r2")], nodes=[SMALL])
    assert [type(a) for a in actions] == [Drain, Hold]


def test_a_held_runner_is_looked_at_again_after_20_seconds() -> None:
    given = AppInput(app=make_app(), load=Load(queued=1, eligible=1))
    held = make_runner(not_before=at(20), reason="no room")
    assert planned(given, [held], now=19) == []
    assert planned(given, [held], now=20) == [Launch(runner_id="x", node="here", machine_type="XS")]


@pytest.mark.parametrize(("nodes", "hopeless"), [([SMALL], True), ([], False)])
def test_what_no_node_could_ever_hold_is_hopeless(nodes: list[Node], hopeless: bool) -> None:
    given = AppInput(app=make_app(machine_types=("GPU-Z",)), load=Load(queued=1, eligible=1))
    [hold] = planned(given, [make_runner()], nodes=nodes)
    assert isinstance(hold, Hold)
    assert hold.hopeless is hopeless


def test_an_ephemeral_runner_without_hope_is_dropped_and_one_with_hope_waits() -> None:
    runner = make_runner(ephemeral=True)
    [drop] = planned(AppInput(app=make_app(machine_types=("GPU-Z",)), ephemeral=True), [runner], nodes=[SMALL])
    assert isinstance(drop, Drop)
    [hold] = planned(AppInput(app=make_app(), ephemeral=True), [idle("y"), runner], nodes=[SMALL])
    assert isinstance(hold, Hold)


def test_a_small_runner_does_not_wait_behind_a_big_one() -> None:
    big = make_runner("big", app_name="b", created_at=at(0))
    small = make_runner("small", created_at=at(1))
    apps = [
        AppInput(app=make_app("a"), load=Load(queued=1, eligible=1)),
        AppInput(app=make_app("b", machine_types=("XL",)), load=Load(queued=1, eligible=1)),
    ]
    actions = plan(apps, [big, small], {}, [SMALL], START)
    assert [type(a) for a in actions] == [Hold, Launch]


def test_a_machine_type_of_another_version_stops_nobody_else() -> None:
    odd = idle("odd", app_name="gone", machine_type="OLD", desired=Desired.DRAIN)
    given = AppInput(app=make_app(), load=Load(queued=1, eligible=1))
    actions = planned(given, [odd, make_runner()])
    assert Launch(runner_id="x", node="here", machine_type="XS") in actions


# Scaling down


@pytest.mark.parametrize(
    ("settings", "usage", "now", "goes"),
    [
        ({}, None, 9.9, False),  # never used, no floor: 10 s
        ({}, None, 10, True),
        ({"keep_alive": 60}, None, 10, True),
        ({"keep_alive": 60}, used(5), 64.9, False),
        ({"keep_alive": 60}, used(5), 65, True),
        ({"keep_alive": 0}, used(5), 5, True),
        ({"keep_alive": 60}, used(5, in_flight=1), 500, False),  # busy
        ({"min_concurrency": 1}, None, 9999, False),  # the floor
        ({"concurrency_buffer": 1}, None, 9999, False),  # the buffer, also at no load
    ],
)
def test_when_an_idle_runner_goes(settings: dict[str, Any], usage: Usage | None, now: float, goes: bool) -> None:
    load = Load(in_flight=usage.in_flight if usage else 0)
    actions = planned(AppInput(app=make_app(**settings), load=load), [idle()], {"x": usage or Usage()}, now)
    assert [type(a) for a in actions] == ([Drain] if goes else [])


def test_the_longest_idle_goes_first_and_only_down_to_the_floor() -> None:
    app = make_app(min_concurrency=1, max_concurrency=9, keep_alive=10)
    usage = {"x": used(30), "y": used(10), "z": used(20)}
    actions = planned(AppInput(app=app), [idle("x"), idle("y"), idle("z")], usage, now=100)
    assert [a.runner_id for a in actions if isinstance(a, Drain)] == ["y", "z"]


def test_a_runner_without_process_goes_before_an_idle_one_the_youngest_first() -> None:
    app = make_app(min_concurrency=2, max_concurrency=9)
    runners = [idle("x"), make_runner("old", created_at=at(1)), make_runner("young", created_at=at(2))]
    actions = planned(AppInput(app=app), runners, {"x": used(0)}, now=100)
    assert [a for a in actions if isinstance(a, Drop | Drain)] == [Drop(runner_id="young", reason="no longer needed")]


def test_a_runner_that_still_starts_does_not_hold_the_floor_for_a_ready_one() -> None:
    app = make_app(min_concurrency=1, max_concurrency=9)
    starting = make_runner("new", S.SETUP)
    assert planned(AppInput(app=app), [idle("x"), starting], {"x": used(0)}, now=100) == []


# Stops


@pytest.mark.parametrize(
    ("runner", "usage", "expected"),
    [
        (make_runner(desired=Desired.DRAIN, reason="why"), Usage(), Drop(runner_id="x", reason="why")),
        (
            make_runner(desired=Desired.GONE, kill=True),
            Usage(),
            Drop(runner_id="x", reason="stopped before it started"),
        ),
        (idle(desired=Desired.DRAIN), Usage(), Stop(runner_id="x", grace_seconds=5)),
        (idle(desired=Desired.DRAIN), Usage(in_flight=1), Unrouted(runner_id="x")),
        (make_runner(state=S.DRAINING, desired=Desired.DRAIN), Usage(in_flight=1), None),
        (make_runner(state=S.DRAINING, desired=Desired.DRAIN), Usage(), Stop(runner_id="x", grace_seconds=5)),
        (make_runner(state=S.SETUP, desired=Desired.DRAIN), Usage(), Stop(runner_id="x", grace_seconds=5)),
        (idle(desired=Desired.GONE, grace_seconds=9), Usage(in_flight=1), Stop(runner_id="x", grace_seconds=9)),
        (idle(desired=Desired.GONE, kill=True, reason="why"), Usage(in_flight=1), Kill(runner_id="x", reason="why")),
        # Planned again, in case the controller was restarted in between:
        (make_runner(state=S.TERMINATING, desired=Desired.DRAIN), Usage(), Stop(runner_id="x", grace_seconds=5)),
        (make_runner(state=S.TERMINATING), Usage(), Stop(runner_id="x", grace_seconds=5)),
        (
            make_runner(state=S.TERMINATING, desired=Desired.GONE, kill=True),
            Usage(),
            Kill(runner_id="x", reason="killed"),
        ),
        (make_runner(state=S.TERMINATED, desired=Desired.GONE), Usage(), None),
    ],
)
def test_the_way_out(runner: Runner, usage: Usage, expected: Action | None) -> None:
    app = AppInput(app=make_app(), load=Load(in_flight=usage.in_flight))
    actions = [a for a in planned(app, [runner], {"x": usage}) if not isinstance(a, Create)]
    assert actions == ([expected] if expected else [])


def test_startup_timeout() -> None:
    given = AppInput(app=make_app(startup_timeout=30), load=Load(queued=1, eligible=1))
    runner = make_runner(state=S.SETUP)
    assert planned(given, [runner], now=29) == []
    assert planned(given, [runner], now=30) == [
        Kill(runner_id="x", reason="not ready within startup_timeout 30 s", cause=StopCause.STARTUP_TIMEOUT)
    ]


def test_startup_timeout_holds_for_ephemeral_runners_too() -> None:
    given = AppInput(app=make_app(startup_timeout=30), ephemeral=True)
    [kill] = planned(given, [make_runner(state=S.SETUP, ephemeral=True)], now=30)
    assert isinstance(kill, Kill)


def test_the_runners_of_a_deleted_app_leave() -> None:
    actions = planned(None, [idle("x"), make_runner("y")])
    assert Drain(runner_id="x", reason="its app was deleted") in actions
    assert Drop(runner_id="y", reason="its app was deleted") in actions
    assert not any(isinstance(a, Launch) for a in actions)


# Rolling deploys


def rolling(**changes: Any) -> AppInput:
    return AppInput(app=make_app(next_revision_id="r2", min_concurrency=1), **changes)


def test_a_rolling_deploy_starts_one_runner_and_leaves_the_old_ones_alone() -> None:
    assert planned(rolling(), [idle()]) == [Create(app_id=app_id("a"), revision_id="r2", reason="rolling deploy")]
    assert planned(rolling(), [idle(), make_runner("n", S.SETUP, revision_id="r2")]) == []


def test_the_app_moves_when_a_runner_of_the_next_revision_is_ready() -> None:
    runners = [idle(), idle("n", revision_id="r2")]
    assert planned(rolling(), runners) == [Promote(app_id=app_id("a"), revision_id="r2")]
    after = AppInput(app=make_app(revision_id="r2", min_concurrency=1))
    [drain] = planned(after, runners)
    assert isinstance(drain, Drain)
    assert drain.runner_id == "x"


def test_a_next_revision_that_fails_is_given_up_and_the_old_one_stays() -> None:
    failed = rolling(next_failures=1, next_failure="setup() raised")
    assert planned(failed, [idle()]) == [Abandon(app_id=app_id("a"), revision_id="r2", reason="setup() raised")]


def test_a_next_revision_that_fits_nowhere_is_given_up() -> None:
    given = rolling(next_scaling=Scaling(machine_types=("GPU-Z",)))
    [abandon] = planned(given, [idle(), make_runner("n", revision_id="r2")])
    assert isinstance(abandon, Abandon)
    assert "GPU-Z" in abandon.reason


def test_the_next_revision_starts_under_its_own_settings() -> None:
    given = rolling(next_scaling=Scaling(machine_types=("L",), startup_timeout=7))
    assert Launch(runner_id="n", node="here", machine_type="L") in planned(
        given, [idle(), make_runner("n", revision_id="r2")]
    )
    [kill] = planned(given, [idle(), make_runner("n", S.SETUP, revision_id="r2")], now=7)
    assert isinstance(kill, Kill)


def test_a_newer_deploy_takes_the_place_of_one_that_is_under_way() -> None:
    given = AppInput(app=make_app(next_revision_id="r3", min_concurrency=1))
    actions = planned(given, [idle(), make_runner("n", S.SETUP, revision_id="r2")])
    assert [type(a) for a in actions] == [Drain, Create]


# Replacements


def test_a_rolling_deploy_that_finds_no_room_beside_the_old_runners_is_given_up_in_the_end() -> None:
    given = AppInput(app=make_app(next_revision_id="r2", min_concurrency=1, startup_timeout=60))
    there = [make_runner("x", RunnerState.IDLE), make_runner("y", revision_id="r2", created_at=at(0))]
    full = Node(name="here", total=Resources(memory_mib=512, gpus={}))
    [held] = plan([given], there, {}, [full], at(59))
    assert isinstance(held, Hold)
    assert held.not_before == at(60), "it is looked at again when its time is over, not 20 s from now"
    [given_up] = plan([given], there, {}, [full], at(60))
    assert isinstance(given_up, Abandon)
    assert given_up.revision_id == "r2"
    assert "no room beside the old runners in 60 s" in given_up.reason
    assert "--strategy recreate" in given_up.reason


def test_a_replacement_comes_first_one_at_a_time() -> None:
    given = AppInput(app=make_app(min_concurrency=2))
    old = [idle("x", replace_first=True, reason="rolled out"), idle("y", replace_first=True, reason="rolled out")]
    [create] = planned(given, old)
    assert isinstance(create, Create)
    assert create.replaces == "x"
    successor = make_runner("n", S.SETUP, replaces="x")
    assert planned(given, [*old, successor]) == []
    ready = idle("n", replaces="x")
    assert planned(given, [*old, ready]) == [Drain(runner_id="x", reason="rolled out")]
    x, y = old
    [stop, create] = sorted(
        planned(given, [replace(x, desired=Desired.DRAIN, unrouted_at=START), y, ready]), key=lambda a: type(a).__name__
    )[::-1]
    assert isinstance(stop, Stop)
    assert isinstance(create, Create)
    assert create.replaces == "y"


def test_a_failing_replacement_waits_like_any_other_start_and_the_old_one_serves() -> None:
    given = AppInput(app=make_app(min_concurrency=1), failures=2, failed_at=START)
    [create] = planned(given, [idle(replace_first=True)])
    assert isinstance(create, Create)
    assert create.not_before == at(60)


def test_a_rolling_deploy_comes_before_replacements() -> None:
    old, extra = idle("x", replace_first=True), make_runner("n", S.SETUP, replaces="x")
    [drain] = planned(rolling(), [old, extra])
    assert isinstance(drain, Drain)
    assert drain.runner_id == "n"
    assert [type(a) for a in planned(rolling(), [old])] == [Create]


def test_an_account_has_no_more_runners_than_its_quota_allows() -> None:
    waiting = [make_runner(name, S.PENDING, created_at=at(index)) for index, name in enumerate("abc")]
    bounded = {LOCAL: Quotas(runners=2), AccountId("other"): Quotas()}

    def launches(runners: Sequence[Runner], quotas: QuotasOf) -> list[Placing]:
        room = Room()
        room.change(TakenRoom.of(runners, lambda _: None), 1)
        waiting = [(r, Needs(machine_types=("XS",))) for r in runners if r.state is S.PENDING]
        return plan_launches(waiting, room, (BIG_NODE,), at(9), quotas)

    def actions(*runners: Runner) -> list[Action]:
        return [
            action for action in launches(runners, lambda owner: bounded[owner]) if isinstance(action, Launch | Hold)
        ]

    first, second, third = actions(*waiting)
    assert (type(first), type(second), type(third)) == (Launch, Launch, Hold)
    assert isinstance(third, Hold)
    assert (third.reason, third.hopeless) == ("its account has all the runners that its quota allows: 2", False)
    assert [type(each) for each in actions(idle("x"), *waiting)] == [Launch, Hold, Hold]
    gone = make_runner("x", S.TERMINATED)
    assert [type(each) for each in actions(gone, *waiting)] == [Launch, Launch, Hold]
    other = idle("x", account=AccountId("other"))
    assert [type(each) for each in actions(other, *waiting)] == [Launch, Launch, Hold]
