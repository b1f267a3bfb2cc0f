"""A placer that takes its time, as a cluster's scheduler does. It is in the place of the first fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fal_server.core.actions import Abandon, Drop, Hold, Launch
from fal_server.core.machines import Node, Resources
from fal_server.core.placement import Placing, plan_launches
from fal_server.core.places import FreeRoom, Lack, Needs, Placement, Room
from fal_server.core.quotas import Quotas
from fal_server.core.reconcile import Look, StandingPlan
from fal_server.core.runners import Runner, RunnerState
from tests.fakes.domain import at, make_runner

GPU_NODE = Node(name="far", total=Resources(memory_mib=4096, gpus={"GPU-X": 2}))


class SlowPlacer:
    """Says what a test has it say; records who asked."""

    def __init__(self, said: Placement | Lack | None = None) -> None:
        self.said = said
        self.asked: list[str] = []

    def reserve(self, runner: Runner, _needs: Needs, _free: FreeRoom) -> Placement | Lack | None:
        self.asked.append(runner.runner_id)
        return self.said


def pending(**changes: object) -> Runner:
    return replace(make_runner("r", RunnerState.PENDING, created_at=at(0)), **changes)


def launches(placer: SlowPlacer, runner: Runner, needs: Needs | None = None, runners: int = 0) -> list[Placing]:
    asked: Sequence[tuple[Runner, Needs]] = [(runner, needs or Needs(machine_types=("XS",)))]
    return plan_launches(asked, Room(), [GPU_NODE], at(60), lambda _: Quotas(runners=runners), placer.reserve)


def test_nothing_happens_until_the_placer_knows() -> None:
    assert launches(SlowPlacer(None), pending()) == []


def test_a_place_starts_the_runner_there() -> None:
    place = Placement(node="far", machine_type="XS", gpus=("GPU-X/1",))
    [launch] = launches(SlowPlacer(place), pending())
    assert launch == Launch(runner_id="r", node="far", machine_type="XS", gpus=("GPU-X/1",))


def test_a_reason_is_told_once_and_asked_about_at_every_plan() -> None:
    placer = SlowPlacer(Lack(reason="Ray: it waits", again_seconds=0))
    [hold] = launches(placer, pending())
    assert hold == Hold(runner_id="r", reason="Ray: it waits", not_before=at(60), hopeless=False)
    assert launches(placer, pending(reason="Ray: it waits", not_before=at(60))) == []
    assert placer.asked == ["r", "r"]


def test_an_unchanged_reason_does_not_outlast_a_rolling_deploys_patience() -> None:
    placer = SlowPlacer(Lack(reason="it waits", again_seconds=0))
    needs = Needs(machine_types=("XS",), rolling=True, patience_seconds=30)
    [action] = launches(placer, pending(reason="it waits", not_before=at(5)), needs)
    assert isinstance(action, Abandon)


def test_a_runner_that_fits_nowhere_ends_its_call() -> None:
    placer = SlowPlacer(Lack(reason="no such GPU", hopeless=True))
    [action] = launches(placer, pending(), Needs(machine_types=("XS",), ephemeral=True))
    assert action == Drop(runner_id="r", reason="no such GPU")


def test_a_placer_is_not_asked_for_what_a_quota_forbids() -> None:
    placer = SlowPlacer(Placement(node="far", machine_type="XS"))
    first = pending()
    second = replace(first, runner_id="s", created_at=at(1))
    asked = [(runner, Needs(machine_types=("XS",))) for runner in (first, second)]
    plan_launches(asked, Room(), [GPU_NODE], at(60), lambda _: Quotas(runners=1), placer.reserve)
    assert placer.asked == ["r"]


def test_a_slow_placer_is_not_asked_for_more_than_a_quota_leaves() -> None:
    placer = SlowPlacer(None)
    runners = [replace(pending(), runner_id=name, created_at=at(number)) for number, name in enumerate("rst")]
    asked = [(runner, Needs(machine_types=("XS",))) for runner in runners]
    actions = plan_launches(asked, Room(), [GPU_NODE], at(60), lambda _: Quotas(runners=2), placer.reserve)
    assert placer.asked == ["r", "s"]
    assert actions == [], "whether the third is above the quota is not known yet"


def test_a_runner_without_a_place_leaves_the_quota_to_those_behind_it() -> None:
    placer = SlowPlacer(Lack(reason="no such GPU"))
    runners = [replace(pending(), runner_id=name, created_at=at(number)) for number, name in enumerate("rs")]
    asked = [(runner, Needs(machine_types=("XS",))) for runner in runners]
    plan_launches(asked, Room(), [GPU_NODE], at(60), lambda _: Quotas(runners=1), placer.reserve)
    assert placer.asked == ["r", "s"]


def test_an_app_whose_runner_waits_is_examined_again() -> None:
    placer = SlowPlacer(None)
    plan = StandingPlan(placer.reserve)
    runner = pending()
    assert plan.plan([Look(app_id=runner.app_id, given=None, runners=[], usage={})], [GPU_NODE], at(1)) == []
    assert runner.app_id not in plan.due(at(2))
    plan.launches([(runner, Needs(machine_types=("XS",)))], [GPU_NODE], at(2), lambda _: Quotas())
    assert runner.app_id in plan.due(at(3))


def test_a_placer_gives_the_gpus_that_nobody_holds() -> None:
    free = FreeRoom([GPU_NODE], Room())
    [first, second, third] = [free.take(GPU_NODE, "GPU-X", 1).gpus for _ in range(3)]
    assert (first, second, third) == (("GPU-X/0",), ("GPU-X/1",), ())


def fitted(needs: Needs, *regions: str) -> Placement | Lack:
    nodes = [replace(GPU_NODE, name=f"n{number}", region=region) for number, region in enumerate(regions)]
    return FreeRoom(nodes, Room()).fit(needs)


def test_a_runner_starts_in_any_region_that_its_app_allows() -> None:
    needs = Needs(machine_types=("XS",), regions=("eu-north", "us-east"))
    for regions in (("us-west", "us-east"), ("", "eu-north")):
        place = fitted(needs, *regions)
        assert isinstance(place, Placement)
        assert place.node == "n1"
    assert fitted(needs, "us-west", "") == Lack(
        reason="no machine is in a region that the app allows (eu-north, us-east); they are in: none, us-west"
    )


def test_regions_say_nothing_if_no_machine_has_one() -> None:
    assert isinstance(fitted(Needs(machine_types=("XS",), regions=("us-east",)), "", ""), Placement)
    assert isinstance(fitted(Needs(machine_types=("XS",)), "us-west"), Placement)


def test_a_node_that_has_said_nothing_yet_may_hold_anything() -> None:
    unheard = Node(
        name="away", total=Resources(gpus={}), region="us-east", trouble="it was not reached yet", described=False
    )
    free = FreeRoom([replace(GPU_NODE, name="local"), unheard], Room())
    for needs in (Needs(machine_types=("XS",), regions=("us-east",)), Needs(machine_types=("GPU-Y",))):
        lack = free.fit(needs)
        assert isinstance(lack, Lack)
        assert "nothing can be started on node 'away': it was not reached yet" in lack.reason
        assert not lack.hopeless


def test_what_is_too_large_for_its_region_is_hopeless() -> None:
    needs = Needs(machine_types=("GPU-Y",), regions=("us-east",))
    lack = fitted(needs, "us-east", "us-west")
    assert isinstance(lack, Lack)
    assert lack.hopeless
