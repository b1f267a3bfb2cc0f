"""The placer that asks Ray, against a Ray in memory. The real one is in tests/ray."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.actions import Hold, Launch
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.placement import Placing, plan_launches
from fal_server.core.places import FreeRoom, Lack, Needs, Placement, Room, TakenRoom
from fal_server.core.quotas import Quotas
from fal_server.core.runners import Runner, RunnerState
from fal_server.engines.ray.placer import RayPlacer
from fal_server.engines.ray.reservations import Allowed, Group, Reservations, Wanted
from tests.fakes.domain import at, make_runner
from tests.fakes.ray import MIB, FakeGroup, FakeRay

T = TypeVar("T")
BOX = {"memory": 1024.0 * MIB, "GPU-X": 1.0}
XS = Needs(machine_types=("XS",))  # 512 MiB


def box(name: str, **changes: object) -> Node:
    return replace(Node(name=name, total=Resources(memory_mib=1024, gpus={"GPU-X": 1})), **changes)


@dataclass(frozen=True, kw_only=True)
class CountingTypes(MachineTypes):
    """The usual machine types, which note whose size is asked for."""

    sized: list[str]

    def resources_of(self, name: str, num_gpus: int | None = None) -> Resources:
        self.sized.append(name)
        return super().resources_of(name, num_gpus)


@dataclass
class World:
    """A placer, its Ray, and what the controller has."""

    ray: FakeRay
    placer: RayPlacer
    nodes: list[Node]
    runners: dict[str, Runner] = field(default_factory=dict)
    changes: int = 0
    may_act: bool = True
    seconds: float = 0.0
    rounds: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    sized: list[str] = field(default_factory=list)

    def all_runners(self) -> list[Runner]:
        self.rounds += 1
        return list(self.runners.values())

    def pending(self, *names: str) -> None:
        for name in names:
            self.runners[name] = make_runner(name, RunnerState.PENDING)

    def placed(self, name: str, node: str, machine_type: str = "XS") -> None:
        self.runners[name] = make_runner(name, RunnerState.IDLE, node=node, machine_type=machine_type)

    def end(self, name: str) -> None:
        self.runners[name] = replace(self.runners[name], state=RunnerState.TERMINATED, ended_at=at(1))

    def ask(self, name: str, needs: Needs = XS) -> Placement | Lack | None:
        return self.placer.reserve(self.runners[name], needs, FreeRoom(self.nodes, Room()))

    async def answer(self, name: str, needs: Needs = XS) -> Placement | Lack:
        """Wanted until Ray has said something."""

        def said() -> Placement | Lack | None:
            found = self.ask(name, needs)
            return None if isinstance(found, Lack) and "not answered" in found.reason else found

        return await eventually(said)

    async def place(self, name: str, needs: Needs = XS) -> Placement:
        """Wanted until there is a place."""

        def placed() -> Placement | None:
            found = self.ask(name, needs)
            return found if isinstance(found, Placement) else None

        return await eventually(placed)

    async def lack(self, name: str, words: str, needs: Needs = XS) -> Lack:
        """Wanted until the reason has these words."""

        def lacking() -> Lack | None:
            found = self.ask(name, needs)
            return found if isinstance(found, Lack) and words in found.reason else None

        return await eventually(lacking)

    async def until(self, *names: str) -> None:
        """Wait until these runners, and no others, have a group."""
        await eventually(lambda: sorted(each.split(":")[1] for each in self.ray.groups) == sorted(names))


async def eventually(look: Callable[[], T | None]) -> T:
    end = time.monotonic() + 60  # only guards against hanging
    while not (found := look()):
        assert time.monotonic() < end
        await asyncio.to_thread(select.select, [], [], [], 0.01)
    return found


@asynccontextmanager
async def world(*nodes: Node, ray: FakeRay | None = None, grows_seconds: float = 0) -> AsyncGenerator[World]:
    known = list(nodes or (box("one"), box("two")))
    addresses = {f"10.0.0.{number}": node.name for number, node in enumerate(known, 1)}
    if ray is None:
        ray = FakeRay(nodes={f"ray-{name}": (address, BOX) for address, name in addresses.items()})
        ray.nodes["ray-head"] = ("10.0.0.99", {"memory": 1e12, "GPU-X": 8.0})  # nothing of ours runs there
    sized: list[str] = []
    placer = RayPlacer(
        ray,
        address="10.0.0.99:6379",
        machine_types=CountingTypes(sized=sized),
        nodes=lambda: made.nodes,
        addresses=lambda: addresses,
        runners=lambda: made.all_runners(),
        may_act=lambda: made.may_act,
        changed=lambda: None,
        now=lambda: at(made.seconds),
        grows_seconds=grows_seconds,
        elapsed=lambda: made.seconds,
    )
    made = World(ray, placer, known, addresses=addresses, sized=sized)
    try:
        yield made
    finally:
        await placer.close()
    assert ray.closed


async def test_a_runner_starts_where_ray_has_room_and_a_node_has_joined() -> None:
    async with world() as w:
        w.pending("a", "b", "c")
        w.placer.open("id")
        needs = Needs(machine_types=("GPU-X",))
        places = [await w.answer(name, needs) for name in "ab"]
        assert sorted(place.node for place in places if isinstance(place, Placement)) == ["one", "two"]
        assert all(isinstance(place, Placement) and place.gpus == ("GPU-X/0",) for place in places)
        lack = await w.lack("c", "NO_RESOURCES", needs)
        assert lack == Lack(
            reason="Ray has no room for it now (NO_RESOURCES; GPU-X: 1024 MiB, 1 x GPU-X)", again_seconds=0
        )
        w.end("a")
        assert isinstance(await w.lack("c", "NO_RESOURCES", needs), Lack)
        await w.place("c", needs)
        await w.until("b", "c")


async def test_what_no_machine_could_hold_is_hopeless() -> None:
    async with world() as w:
        w.pending("a")
        w.placer.open("id")
        lack = await w.lack("a", "INFEASIBLE", Needs(machine_types=("GPU-Y",)))
        assert lack.hopeless
        assert "GPU-Y: 1024 MiB, 1 x GPU-Y" in lack.reason


async def test_in_a_cluster_that_grows_it_waits_for_a_machine_and_not_for_ever() -> None:
    async with world(box("one"), grows_seconds=60) as w:
        w.pending("a", "b")
        w.placer.open("id")
        wants = Needs(machine_types=("GPU-Y",))
        lack = await w.lack("a", "INFEASIBLE", wants)
        assert lack == Lack(
            reason="Ray has no machine for it yet, and until 03:05:05 UTC it waits for one "
            "(INFEASIBLE; GPU-Y: 1024 MiB, 1 x GPU-Y)",
            again_seconds=0,
        )
        made = set(w.ray.groups)
        w.seconds += 59
        assert not (await w.lack("a", "until 03:05:05 UTC", wants)).hopeless
        assert set(w.ray.groups) == made, "the autoscaler sees one request that stays"
        w.ray.nodes["ray-new"] = ("10.0.0.7", {"memory": 1e12, "GPU-Y": 1.0})
        await w.lack("a", "`fal node up` and `fal node join` are missing for 10.0.0.7", wants)
        w.seconds += 1
        assert (await w.lack("a", "even if empty", wants)).hopeless
        assert not (await w.lack("b", "until 03:06:05 UTC", wants)).hopeless
        w.end("b")
        w.nodes.append(Node(name="new", total=Resources(memory_mib=1024, gpus={"GPU-Y": 1})))
        w.addresses["10.0.0.7"] = "new"
        assert (await w.place("a", wants)).node == "new"


async def test_in_a_cluster_that_grows_each_machine_type_is_asked_for_long_enough() -> None:
    async with world(grows_seconds=600) as w:
        w.pending("a")
        w.placer.open("id")
        both = Needs(machine_types=("GPU-Y", "GPU-Z"))
        await eventually(lambda: w.ask("a", both) is None and w.ray.groups)
        w.seconds += 1
        await w.lack("a", "INFEASIBLE", both)
        for choice, seconds in (("1", 0), ("1", 29), ("0", 1), ("0", 29), ("1", 1)):
            w.seconds += seconds
            start = f"fal-id:a:{choice}."
            await eventually(lambda start=start: w.ask("a", both) and next(iter(w.ray.groups)).startswith(start))


async def test_a_round_looks_at_what_has_changed_or_waits() -> None:
    async with world() as w:
        for number in range(500):
            w.placed(f"r{number}", "local")
        w.pending("a")
        w.placer.open("id")
        await w.place("a")
        await asyncio.gather(*(round_of(w) for _ in range(3)))
        w.sized.clear()
        w.placed("r7", "local", "M")
        await round_of(w)
        assert w.sized.count("M") == 1
        assert set(w.sized) <= {"M", "XS"}
        assert len(w.sized) < 20, "one that changed, and one that waits"
        orders, rounds = len(w.ray.orders), w.rounds
        w.placed("a", "one")
        await eventually(lambda: w.rounds > rounds + 8)
        assert len(w.ray.orders) - orders < 6, "Ray is not asked at each round"


async def round_of(w: World) -> None:
    """Wait for a whole round."""
    before = w.rounds
    await eventually(lambda: w.rounds > before + 2)


async def test_the_next_machine_type_is_tried_if_the_best_has_no_room() -> None:
    async with world() as w:
        w.pending("a", "b")
        w.placer.open("id")
        best_first = Needs(machine_types=("GPU-Y", "XS"))
        await eventually(lambda: w.ask("a", best_first) is None and w.ray.groups)
        w.seconds += 1
        place = await w.place("a", best_first)
        assert place.machine_type == "XS"
        await eventually(lambda: w.ask("b", Needs(machine_types=("GPU-Y", "L"))) is None and len(w.ray.groups) == 2)
        w.seconds += 1
        lack = await w.lack("b", "L: 4096 MiB", Needs(machine_types=("GPU-Y", "L")))
        assert lack.hopeless
        w.placed("a", place.node)
        await w.until("a", "b")


async def test_another_machine_type_replaces_one_that_no_machine_could_hold() -> None:
    async with world() as w:
        w.pending("a")
        w.placer.open("id")
        await w.lack("a", "INFEASIBLE", Needs(machine_types=("GPU-Y",)))
        assert w.ask("a") is None, "the reason of the earlier machine type is not this one's"
        place = await w.place("a")
        assert place.machine_type == "XS"
        await w.until("a")


async def test_another_machine_type_replaces_one_that_waits() -> None:
    async with world() as w:
        w.pending("a", "b", "c")
        w.placer.open("id")
        gpu = Needs(machine_types=("GPU-X",))
        for name in "ab":
            w.placed(name, (await w.place(name, gpu)).node, "GPU-X")
        await w.lack("c", "NO_RESOURCES", gpu)
        [old] = [name for name in w.ray.groups if ":c:" in name]
        assert w.ask("c") is None
        w.end("a")
        place = await w.place("c")
        assert (place.machine_type, place.gpus) == ("XS", ())
        [new] = [name for name in w.ray.groups if ":c:" in name]
        assert new != old
        assert w.ray.groups[new].bundle == {"memory": 512.0 * MIB}


async def test_a_placed_group_of_an_earlier_machine_type_starts_nothing() -> None:
    async with world() as w:
        w.pending("a")
        w.placer.open("id")
        assert (await w.place("a", Needs(machine_types=("GPU-X",)))).gpus
        assert w.ask("a") is None
        assert not (await w.place("a")).gpus
        assert [group.bundle for group in w.ray.groups.values()] == [{"memory": 512.0 * MIB}]


@pytest.mark.parametrize(("machine_type", "kept"), [("GPU-X", True), ("XS", False)])
async def test_what_an_earlier_process_reserved_is_kept_if_it_is_what_is_asked_for(
    machine_type: str, kept: bool
) -> None:
    async with world() as w:
        w.pending("a")
        w.placer.open("id")
        await w.place("a", Needs(machine_types=("GPU-X",)))
        before = set(w.ray.groups)
    async with world(ray=FakeRay(nodes=w.ray.nodes, groups=w.ray.groups)) as w:
        w.seconds = 100
        w.pending("a")
        w.placer.open("id")
        place = await w.place("a", Needs(machine_types=(machine_type,)))
        assert place.machine_type == machine_type
        assert (set(w.ray.groups) == before) == kept


async def test_what_is_not_asked_for_any_more_is_removed() -> None:
    async with world() as w:
        w.pending("a", "b")
        w.placer.open("id")
        await w.place("a")
        await w.place("b")
        w.seconds += 9
        await w.place("b")
        w.seconds += 2
        await w.until("b")
        assert w.ask("a") is None
        await w.place("a")
        await w.until("a", "b")


async def test_a_group_of_an_earlier_process_is_removed_if_nothing_asks_for_it() -> None:
    async with world() as w:
        w.pending("a", "b")
        w.placer.open("id")
        await w.place("a")
        await w.place("b")
    async with world(ray=FakeRay(nodes=w.ray.nodes, groups=w.ray.groups)) as w:
        w.seconds = 100
        w.pending("a", "b")
        w.placer.open("id")
        await w.place("b")
        assert len(w.ray.groups) == 2, "the plan has time to ask"
        w.seconds += 9
        await w.place("b")
        w.seconds += 2
        await w.until("b")


async def test_what_is_hopeless_stays_asked_for_until_it_is_asked_for_again() -> None:
    async with world() as w:
        w.pending("a", "b")
        w.placer.open("id")
        lack = await w.lack("a", "INFEASIBLE", Needs(machine_types=("GPU-Y",)))
        w.seconds += lack.again_seconds + 5
        await w.place("b")
        await w.until("a", "b")


async def test_runners_above_a_quota_reserve_nothing() -> None:
    async with world() as w:
        w.pending("a", "b", "c")
        w.placer.open("id")

        def plan() -> list[Placing]:
            waiting = [(runner, XS) for runner in w.runners.values() if not runner.node]
            room = Room()
            running = [runner for runner in w.runners.values() if runner.node]
            room.change(TakenRoom.of(running, lambda _: None), 1)
            return plan_launches(waiting, room, w.nodes, at(60), lambda _: Quotas(runners=1), w.placer.reserve)

        [launch] = await eventually(lambda: [each for each in plan() if isinstance(each, Launch)])
        w.placed(launch.runner_id, launch.node)
        assert {type(each) for each in plan()} == {Hold}
        await w.until(launch.runner_id)
        made = [name for order in w.ray.orders for name in order["make"]]
        assert [name.split(":")[1] for name in made] == [launch.runner_id]


async def test_asking_for_a_place_does_not_search_the_groups_of_all_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        names = [f"r{number}" for number in range(4)]
        w.pending(*names)
        w.placer.open("id")
        for name in names:
            await w.place(name)
        looked_at: list[str] = []
        find = Reservations.runner_of

        def runner_of(self: Reservations, name: str) -> str:
            looked_at.append(name)
            return find(self, name)

        monkeypatch.setattr(Reservations, "runner_of", runner_of)
        for name in names:
            looked_at.clear()
            assert isinstance(w.ask(name), Placement)
            assert len(looked_at) <= 1


async def test_a_node_in_trouble_gets_nothing_and_ray_is_asked_for_another() -> None:
    async with world() as w:
        w.pending("a")
        w.placer.open("id")
        first = await w.place("a")
        w.nodes[:] = [replace(node, trouble="it is drained") if node.name == first.node else node for node in w.nodes]
        second = await w.place("a")
        assert second.node != first.node
        w.nodes[:] = [replace(node, trouble="it is drained") for node in w.nodes]
        lack = await w.lack("a", "it is drained")
        assert not lack.hopeless


async def test_a_reservation_lasts_until_its_runner_has_ended() -> None:
    async with world() as w:
        w.pending("a")
        w.placer.open("id")
        place = await w.place("a")
        [name] = w.ray.groups
        w.placed("a", place.node)
        w.pending("b")
        await w.answer("b")
        assert name in w.ray.groups
        w.end("a")
        await w.until("b")


async def test_reservations_outlive_the_controller_and_the_unwanted_are_removed_at_its_start() -> None:
    async with world() as w:
        w.pending("a", "b")
        w.placer.open("id")
        place = await w.place("a")
        await w.answer("b")
        kept = [name for name in w.ray.groups if ":a:" in name]
    ray = FakeRay(nodes=w.ray.nodes, groups=w.ray.groups)
    async with world(ray=ray) as w:
        await ray.obey(
            {"prefix": "fal-other:", "remove": [], "make": {"fal-other:x:0.1": {"bundle": {}, "selector": {}}}}
        )
        w.placed("a", place.node)  # b was not stored
        w.placer.open("id")
        await w.until("a", "x")
        assert [name for name in ray.groups if ":a:" in name] == kept


async def test_a_runner_that_ray_knows_nothing_of_gets_its_room_reserved_where_it_is() -> None:
    async with world() as w:
        w.placed("a", "two", "GPU-X")
        w.placed("here", "local")
        w.placer.open("id")
        await w.until("a")
        assert w.ray.on("a") == "ray-two"


async def test_a_group_that_ray_moved_from_a_dead_node_is_removed() -> None:
    async with world() as w:
        w.placed("a", "one")
        w.placer.open("id")
        await w.until("a")
        gone = w.ray.nodes.pop("ray-one")
        w.ray.settle()
        await w.until()
        w.ray.nodes["ray-again"] = gone
        await w.until("a")
        assert w.ray.on("a") == "ray-again"


async def test_nothing_is_ordered_while_another_controller_may_have_taken_over() -> None:
    async with world() as w:
        w.pending("a")
        w.placer.open("id")
        await w.answer("a")
        w.may_act = False
        w.end("a")
        count = len(w.ray.orders)
        w.pending("b")
        assert w.ask("b") is None
        await w.placer.close()
        assert len(w.ray.orders) == count


async def test_a_runner_starts_in_a_region_that_its_app_allows() -> None:
    ray = FakeRay(
        nodes={"ray-one": ("10.0.0.1", BOX), "ray-two": ("10.0.0.2", BOX)},
        labels={"ray-one": {"ray.io/region": "us-east"}, "ray-two": {"ray.io/region": "not what the node says"}},
    )
    async with world(box("one"), box("two", region="eu-north"), ray=ray) as w:
        w.pending("a", "b", "c")
        w.placer.open("id")
        for name, region, node in (("a", "us-east", "one"), ("b", "eu-north", "two")):
            needs = replace(XS, regions=("elsewhere", region))
            w.placed(name, (await w.place(name, needs)).node)
            assert w.runners[name].node == node
        nowhere = replace(XS, regions=("us-west",))
        lack = await w.lack("c", "in a region", nowhere)
        assert lack == Lack(
            reason="no machine is in a region that the app allows (us-west); they are in: eu-north, us-east",
            again_seconds=0,
        )
        w.nodes[1] = replace(w.nodes[1], region="us-west")
        assert (await w.place("c", nowhere)).node == "two"


async def test_a_placed_group_moves_if_its_app_allows_other_regions() -> None:
    async with world(box("one", region="us-east"), box("two", region="eu-north")) as w:
        w.pending("a")
        w.placer.open("id")
        assert (await w.place("a", replace(XS, regions=("us-east",)))).node == "one"
        assert (await w.place("a", replace(XS, regions=("eu-north",)))).node == "two"
        await w.until("a")


async def test_a_ray_that_is_away_starts_nothing_and_says_since_when() -> None:
    async with world() as w:
        w.pending("a", "b")
        w.placer.open("id")
        assert isinstance(await w.answer("a"), Placement)
        w.ray.away = "no answer in 10 s"
        lack = await w.lack("b", "does not answer since 03:04:05 UTC: no answer in 10 s")
        assert lack.again_seconds == 0
        assert isinstance(w.ask("a"), Lack)
        assert (
            w.placer.described()["trouble"]
            == "Ray at 10.0.0.99:6379 does not answer since 03:04:05 UTC: no answer in 10 s"
        )
        w.ray.away = ""
        await w.place("b")
        assert w.placer.described()["trouble"] == ""


async def test_without_a_node_on_rays_machines_the_reason_names_the_next_step() -> None:
    ray = FakeRay(nodes={"ray-head": ("10.0.0.99", BOX)})
    async with world(ray=ray) as w:
        w.addresses.clear()
        w.pending("a")
        w.placer.open("id")
        lack = await w.lack("a", "`fal node up` on each, then `fal node join`")
        assert not lack.hopeless


async def test_a_silent_node_is_named_before_ray_says_anything() -> None:
    async with world(box("one", trouble="it does not answer")) as w:
        w.pending("a")
        w.placer.open("id")
        lack = await w.answer("a")
        assert lack == Lack(reason="nothing can be started on node 'one': it does not answer", again_seconds=0)
        assert not w.ray.groups


async def test_a_machine_that_ray_has_lost_is_waited_for_and_named() -> None:
    async with world(box("one"), box("two", region="us-east")) as w:
        del w.ray.nodes["ray-one"], w.ray.nodes["ray-two"]
        w.pending("a", "b")
        w.placer.open("id")
        lack = await w.lack("a", "node 'one': Ray does not run there, or has another address for it", XS)
        assert not lack.hopeless
        w.ray.nodes["ray-small"] = ("10.0.0.3", {"memory": 1.0})
        w.nodes[:] = [replace(w.nodes[0], trouble="it does not answer"), w.nodes[1], box("small")]
        w.addresses["10.0.0.3"] = "small"
        lack = await w.lack("a", "node 'one': it does not answer; ")
        assert not lack.hopeless
        assert (await w.lack("b", "even if empty", Needs(machine_types=("L",)))).hopeless, "neither could hold it"
        w.ray.nodes["ray-two"] = ("10.0.0.2", BOX)
        assert (await w.place("a")).node == "two"


async def test_in_a_cluster_that_grows_the_autoscaler_is_told_the_region() -> None:
    ray = FakeRay(
        nodes={"ray-one": ("10.0.0.1", BOX), "ray-two": ("10.0.0.2", BOX)},
        labels={"ray-one": {"ray.io/region": "us-east"}},
    )
    async with world(box("one"), box("two", region="eu-north"), ray=ray, grows_seconds=60) as w:
        w.pending("a", "b", "c")
        w.placer.open("id")
        west = replace(XS, regions=("us-west", "us-east"), machine_types=("GPU-Y",))
        await w.lack("a", "INFEASIBLE", west)
        [group] = w.ray.groups.values()
        assert group.selector["ray.io/region"] == "in(us-east,us-west)"
        assert w.placer.described()["unlabelled"] == ["10.0.0.2"]
        north = replace(XS, regions=("eu-north",))
        assert (await w.place("b", north)).node == "two", "Ray's label is missing there"
        ray.labels["ray-two"] = {"ray.io/region": "eu-north"}
        await eventually(lambda: not w.placer.described()["unlabelled"])
        assert (await w.place("c", replace(XS, regions=("eu-north", "us-west")))).node == "two"
        assert {group.selector.get("ray.io/region") for name, group in ray.groups.items() if ":c:" in name} == {
            "in(eu-north,us-west)"
        }


async def test_without_an_autoscaler_no_label_is_asked_for() -> None:
    async with world(box("one", region="us-east")) as w:
        w.pending("a")
        w.placer.open("id")
        await w.place("a", replace(XS, regions=("us-east",)))
        assert [list(group.selector) for group in w.ray.groups.values()] == [["ray.io/node-id"]]
        assert w.placer.described()["unlabelled"] == []


async def test_a_label_names_the_node_of_a_machine_with_another_address() -> None:
    ray = FakeRay(nodes={"ray-one": ("192.168.7.7", BOX)}, labels={"ray-one": {"fal-node": "one"}})
    async with world(ray=ray) as w:
        w.pending("a")
        w.placer.open("id")
        place = await w.place("a")
        assert place.node == "one"
        assert w.placer.described()["nodes"] == [{"address": "192.168.7.7", "node": "one", "trouble": ""}]


@pytest.mark.parametrize("resources", [{"memory": 1024.0 * MIB, "GPU-X": 4.0}])
async def test_more_gpus_in_ray_than_on_the_node_are_named(resources: dict[str, float]) -> None:
    ray = FakeRay(nodes={"ray-one": ("10.0.0.1", resources)})
    async with world(box("one"), ray=ray) as w:
        w.pending("a")
        w.placer.open("id")
        lack = await w.lack("a", "differ", Needs(machine_types=("GPU-X",), num_gpus=2))
        assert lack.reason.startswith("Ray gave it GPU-X of node 'one', which has none free")


@given(st.lists(st.tuples(st.sampled_from(["ask", "end", "lose", "return", "trouble", "restart"]), st.integers(0, 5))))
def test_each_living_runner_keeps_at_most_one_group_and_no_other_has_any(steps: list[tuple[str, int]]) -> None:
    ray = FakeRay(nodes={f"n{number}": (f"10.0.0.{number}", BOX) for number in range(3)})
    reservations, asks, live, unusable = Reservations("fal-id"), dict[str, Wanted](), set[str](), set[str]()
    lost = dict(ray.nodes)
    for now, (what, number) in enumerate(steps):
        name, node = f"r{number}", f"n{number % 3}"
        if what == "ask":
            asks[name] = Wanted(choices=({"GPU-X": 1.0}, {"memory": 512.0 * MIB}))
            live.add(name)
        elif what == "end":
            live.discard(name)
            asks.pop(name, None)
        elif what == "lose":
            ray.nodes.pop(node, None)
        elif what == "return":
            ray.nodes[node] = lost[node]
        elif what == "trouble":
            unusable ^= {node}
        else:
            reservations = Reservations("fal-id")
        ray.settle()
        for _ in range(4):
            groups = {
                each: Group(state="CREATED" if g.node else "PENDING", bundle=g.bundle, node=g.node, waits=g.waits)
                for each, g in ray.groups.items()
            }
            reservations.note(groups)
            owned = set(map(reservations.runner_of, groups))
            allowed = Allowed(unusable=frozenset(unusable & ray.nodes.keys()))
            look = {*asks, *live, *owned}
            orders = reservations.plan(asks, live, groups, lambda _, may=allowed: may, now * 10.0, look)
            for each in orders.remove:
                del ray.groups[each]
            for each, (bundle, selector) in orders.make.items():
                ray.groups[each] = FakeGroup(bundle, selector)
            ray.settle()
        owners = [reservations.runner_of(each) for each in ray.groups]
        assert sorted(owners) == sorted(live & asks.keys())
        assert not any(group.node in unusable for group in ray.groups.values())
