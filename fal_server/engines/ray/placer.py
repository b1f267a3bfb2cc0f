"""Has Ray decide on which machine each runner starts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from fal_server.core.faults import InvalidArgument, Unavailable
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.places import FreeRoom, Lack, Needs, Placement, elsewhere, may_be_in
from fal_server.core.runners import Runner
from fal_server.engines.ray.reservations import Allowed, Bundle, Group, Reservations, Wanted

log = logging.getLogger(__name__)
NODE_LABEL = "fal-node"
_REGION_LABELS = ("ray.io/region", "region")
_ROUND_SECONDS = 0.5
_RETRY_SECONDS = 2.0
# While nothing waits or changes here, Ray is looked at in every fourth round only.
_CALM_ROUNDS = 4
# What the plan no longer asks for, as when its account has reached a quota, is removed after this time.
_IDLE_SECONDS = 10.0
_MIB = 1024 * 1024
# The resource of Ray that its head has, and no other machine.
_HEAD = "node:__internal_head__"
_NOTHING: Mapping[str, object] = {"make": {}, "remove": []}


class RayConnection(Protocol):
    """What the placer needs of `RayProcess`."""

    about: Mapping[str, object]

    async def obey(self, order: Mapping[str, object]) -> Mapping[str, object]:
        """Have an order carried out; return what there is after that."""
        ...

    async def close(self) -> None:
        """End the process."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A node of Ray.

    Attributes:
        node: the name of the node that joined on the same machine; empty if none did.
        regions: those that Ray's labels have for it, by the label.
    """

    id: str
    address: str
    node: str
    resources: Mapping[str, float]
    regions: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def label(self) -> str:
        """The region that Ray has for it; empty if it has none."""
        return next((self.regions[name] for name in _REGION_LABELS if name in self.regions), "")


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What Ray had at the last word of it.

    Attributes:
        groups: by runner, then by name.
    """

    groups: dict[str, dict[str, Group]] = field(default_factory=dict[str, dict[str, Group]])
    nodes: Mapping[str, RayNode] = field(default_factory=dict[str, RayNode])

    def placed(self, runner_id: str) -> str | None:
        """Return the name of a runner's group that is on a node."""
        return next((name for name, group in self.groups.get(runner_id, {}).items() if group.placed), None)


class RayPlacer:
    """Reserves a placement group of Ray for each runner. It lets the group go when the runner has ended.

    Args:
        connection: to Ray.
        address: of Ray, for people.
        machine_types: what runners can be.
        nodes: returns the nodes in their current state.
        addresses: returns the names of the nodes that joined, by the host that each joined with.
        runners: returns all runners; one that changed is another object.
        may_act: whether no other controller can have taken over.
        changed: is called when a runner may have got its place.
        now: returns the time.
        grows_seconds: how long a runner waits for a machine that the cluster lacks, and may get; 0: not at all.
        elapsed: returns a monotonic time in seconds.
    """

    def __init__(
        self,
        connection: RayConnection,
        *,
        address: str,
        machine_types: MachineTypes,
        nodes: Callable[[], Sequence[Node]],
        addresses: Callable[[], Mapping[str, str]],
        runners: Callable[[], Sequence[Runner]],
        may_act: Callable[[], bool],
        changed: Callable[[], None],
        now: Callable[[], datetime],
        grows_seconds: float = 0,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ray = connection
        self._address = address
        self._machine_types = machine_types
        self._nodes = nodes
        self._addresses = addresses
        self._runners = runners
        self._may_act = may_act
        self._changed = changed
        self._now = now
        self._grows_for = timedelta(seconds=grows_seconds)
        self._elapsed = elapsed
        self._reservations = Reservations("fal", steady=bool(self._grows_for))
        self._asks: dict[str, Wanted] = {}
        self._lasts_until: dict[str, float] = {}
        self._grows_until: dict[str, datetime] = {}
        self._seen = _Seen()
        # What the last plan of the reservations knew; the next one looks at the runners for which that has changed.
        self._known: dict[str, Runner] = {}
        self._where: Sequence[tuple[str, str, str, bool]] | None = None
        self._changed_groups: set[str] = set()
        self._calm_rounds = 0
        self._away_since: datetime | None = None
        self._trouble = f"Ray at {address} has not answered yet"
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def open(self, owner: str) -> None:
        """Speak with Ray until it is closed.

        Args:
            owner: what tells this controller's reservations from those of others on the same cluster.
        """
        self._reservations = Reservations(f"fal-{owner}", steady=bool(self._grows_for))
        self._task = asyncio.get_running_loop().create_task(self._run(), name="reservations in Ray")

    async def close(self) -> None:
        """Let go what runners no longer need, and end the connection."""
        if self._task is not None:
            self._closing = True
            if self._trouble:
                self._task.cancel()
            self._wake.set()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._ray.close()

    def reserve(self, runner: Runner, needs: Needs, free: FreeRoom) -> Placement | Lack | None:
        """Return where a runner starts; None while Ray has not said."""
        try:
            types = {name: self._bundle(name, needs.num_gpus) for name in needs.machine_types}
        except InvalidArgument as fault:  # a type of an earlier version, or one that the operator has removed
            return Lack(reason=fault.message, hopeless=True)
        ask = Wanted(choices=tuple(types.values()), regions=needs.regions)
        found = self._found(runner, needs, tuple(types), ask, free)
        wait = found.again_seconds if isinstance(found, Lack) else 0
        self._lasts_until[runner.runner_id] = self._elapsed() + wait + _IDLE_SECONDS
        return found

    def described(self) -> dict[str, object]:
        """Describe Ray, and what is reserved in it, for people."""
        groups = [group for mine in self._seen.groups.values() for group in mine.values()]
        troubles = {node.name: node.trouble for node in self._nodes()}
        return {
            "address": self._address,
            "trouble": self._trouble,
            "reserved": sum(group.placed for group in groups),
            "waiting": sum(not group.placed for group in groups),
            "nodes": [
                {"address": node.address, "node": node.node, "trouble": troubles.get(node.node, "")}
                for node in self._seen.nodes.values()
            ],
            "unlabelled": self._unlabelled() if self._grows_for else [],
            **self._ray.about,
        }

    def _found(
        self, runner: Runner, needs: Needs, types: Sequence[str], ask: Wanted, free: FreeRoom
    ) -> Placement | Lack | None:
        if self._trouble:  # Ray is asked once it answers: by then, a quota may forbid it
            return Lack(reason=f"it waits: {self._trouble}", again_seconds=0)
        if self._asks.get(runner.runner_id) != ask:
            self._asks[runner.runner_id] = ask
            self._grows_until.pop(runner.runner_id, None)
            self._wake.set()
        name = self._seen.placed(runner.runner_id)
        if name is not None:
            group = self._seen.groups[runner.runner_id][name]
            if self._reservations.is_for(name, group, ask):
                found = self._place(group, types[self._reservations.choice_of(name)], needs, free)
                if found is not None:
                    return found
        return self._lack(runner.runner_id, types, ask, free)

    def _place(self, group: Group, machine_type: str, needs: Needs, free: FreeRoom) -> Placement | Lack | None:
        ray_node = self._seen.nodes.get(group.node)
        node = None if ray_node is None else free.nodes.get(ray_node.node)
        regions = self._regions()
        if (
            node is None
            or node.trouble
            or not may_be_in(regions[group.node], needs.regions, self._known_regions(regions))
        ):
            return None  # the next round asks for another
        place = free.take(node, machine_type, needs.num_gpus)
        wanted = self._machine_types.resources_of(machine_type, needs.num_gpus).gpus
        if len(place.gpus) < sum(wanted.values()):
            return Lack(
                reason=f"Ray gave it {', '.join(wanted)} of node {node.name!r}, which has none free: --gpu of "
                "`fal node up` there and --resources of `ray start` differ"
            )
        return place

    def _lack(self, runner_id: str, types: Sequence[str], ask: Wanted, free: FreeRoom) -> Lack | None:
        machines = [node for node in self._seen.nodes.values() if node.node in free.nodes]
        without_ray = self._without_ray(ask, free)
        if not machines and (self._grows_for or not without_ray):
            return Lack(
                reason=f"no machine of Ray at {self._address} has joined: `fal node up` on each, then `fal node join`"
                f"{_after(without_ray)}",
                again_seconds=0,
            )
        regions = self._regions()
        known = {regions[node.id] for node in machines}
        machines = [node for node in machines if may_be_in(regions[node.id], ask.regions, known)]
        could = [node.node for node in machines if any(_fits(each, node.resources) for each in ask.choices)]
        troubles = {name: free.nodes[name].trouble for name in could if free.nodes[name].trouble}
        # Ray has no word for that: it knows nothing of our nodes, and forgets a machine that it lost.
        if len(troubles) == len(could) and (could or not self._grows_for) and (away := {**without_ray, **troubles}):
            return Lack(reason=_after(away).removeprefix("; "), again_seconds=0)
        if not machines:
            return Lack(reason=elsewhere(ask.regions, known), again_seconds=0)
        waits = self._reservations.waits(runner_id, ask)
        if not waits:
            return None
        wants = "; ".join(f"{name}: {_shown(each)}" for name, each in zip(types, ask.choices, strict=True))
        if not could:
            if self._grows_for and (until := self._grows(runner_id)) > self._now():
                return Lack(
                    reason=f"Ray has no machine for it yet, and until {until:%H:%M:%S} UTC it waits for one "
                    f"(INFEASIBLE; {wants}{self._unjoined(ask)}{_after(without_ray)})",
                    again_seconds=0,
                )
            return Lack(reason=f"no machine of Ray could hold it, even if empty (INFEASIBLE; {wants})", hopeless=True)
        why = "; ".join([*sorted(set(waits)), wants])
        return Lack(reason=f"Ray has no room for it now ({why}{_after(troubles)})", again_seconds=0)

    def _without_ray(self, ask: Wanted, free: FreeRoom) -> dict[str, str]:
        """Return the nodes without Ray that could hold a runner. Say why, for each."""
        with_ray = {node.node for node in self._seen.nodes.values()}
        nodes = [free.nodes[name] for name in sorted({*self._addresses().values()} & free.nodes.keys())]
        known = {node.region for node in nodes}
        return {
            node.name: node.trouble or "Ray does not run there, or has another address for it"
            for node in nodes
            if node.name not in with_ray
            and may_be_in(node.region, ask.regions, known)
            and (not node.described or any(_fits(each, _bundle_of(node.total)) for each in ask.choices))
        }

    def _label(self, wanted: Sequence[str]) -> Mapping[str, str]:
        """Return the label that tells an autoscaler where a runner may be.

        Nothing if some machine that would do now lacks it.
        """
        if not wanted or not self._grows_for:
            return {}
        regions = self._regions()
        joined = [node for node in self._seen.nodes.values() if node.node]
        if joined and not any(regions[node.id] for node in joined):
            return {}  # what apps allow says nothing
        name = self._label_name()
        if any(node.regions.get(name) != regions[node.id] for node in joined if regions[node.id] in wanted):
            return {}
        return {name: f"in({','.join(sorted(wanted))})"}

    def _label_name(self) -> str:
        """Return the label that has the machines' regions."""
        joined = [node for node in self._seen.nodes.values() if node.node]
        return next(
            (name for name in _REGION_LABELS if any(name in node.regions for node in joined)), _REGION_LABELS[0]
        )

    def _unlabelled(self) -> list[str]:
        """Return the addresses of machines whose region Ray's autoscaler does not know."""
        name, regions = self._label_name(), self._regions()
        joined = [node for node in self._seen.nodes.values() if node.node]
        return [node.address for node in joined if (node.regions.get(name) or None) != regions[node.id]]

    def _grows(self, runner_id: str) -> datetime:
        """Return until when a runner waits for the cluster to grow."""
        return self._grows_until.setdefault(runner_id, self._now() + self._grows_for)

    def _unjoined(self, ask: Wanted) -> str:
        """Name the machines that could hold a runner if their node joined."""
        found = [
            node.address
            for node in self._seen.nodes.values()
            if not node.node
            and _HEAD not in node.resources
            and any(_fits(each, node.resources) for each in ask.choices)
        ]
        return f"; `fal node up` and `fal node join` are missing for {', '.join(found)}" if found else ""

    async def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing  # the last round comes after that
            self._wake.clear()
            seconds = _ROUND_SECONDS
            if self._may_act():
                try:
                    await self._round()
                except Unavailable as fault:
                    self._note_trouble(fault.message)
                    seconds = _RETRY_SECONDS
                except Exception as error:
                    log.exception("reservations in Ray failed")
                    self._note_trouble(f"{type(error).__name__}, see the controller's log")
                    seconds = _RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if closing else seconds):
                    await self._wake.wait()

    async def _round(self) -> None:
        """Have Ray make and remove what is to change. Do the same for what its answer shows to be changed."""
        order = self._order() if not self._trouble else _NOTHING
        calm = not self._trouble and order == _NOTHING and not self._asks and not self._closing
        self._calm_rounds = (self._calm_rounds + 1) % _CALM_ROUNDS if calm else 0
        if self._calm_rounds:
            return
        for _ in range(2):
            self._take(await self._ray.obey({"prefix": self._reservations.prefix, **order}))
            if self._trouble:
                log.info("Ray at %s answers, with %d nodes", self._address, len(self._seen.nodes))
                self._trouble, self._away_since = "", None
                self._changed()
            order = self._order()
            if order == _NOTHING or not self._may_act():
                return

    def _order(self) -> Mapping[str, object]:
        """Plan for the runners that wait or have changed."""
        before, where_before = self._known, self._where
        living = {runner.runner_id: runner for runner in self._runners() if not runner.ended}
        now = self._elapsed()
        starting = [each for each, runner in living.items() if not runner.node]
        # A runner that was not asked for yet may have a group that an earlier process made.
        self._lasts_until = {each: self._lasts_until.get(each, now + _IDLE_SECONDS) for each in starting}
        idle = {each for each, until in self._lasts_until.items() if until < now}
        self._asks = {each: self._asks[each] for each in starting if each in self._asks and each not in idle}
        self._grows_until = {each: until for each, until in self._grows_until.items() if each in self._asks}
        troubles = {node.name: node.trouble for node in self._nodes()}
        regions = self._regions()
        where = [
            (each.id, each.node, regions[each.id], not troubles.get(each.node, "none joined"))
            for each in self._seen.nodes.values()
        ]
        known = self._known_regions(regions)
        allowed = {
            wanted: Allowed(
                unusable=frozenset(
                    node_id
                    for node_id, _, region, usable in where
                    if not usable or not may_be_in(region, wanted, known)
                ),
                labels=self._label(wanted),
            )
            for wanted in {(), *(ask.regions for ask in self._asks.values())}
        }
        look = {*starting, *self._changed_groups}
        if where == where_before:
            look |= {each for each, runner in living.items() if before.get(each) is not runner}
            look |= before.keys() - living.keys()
        else:
            look |= living.keys() | before.keys() | self._seen.groups.keys()
        orders = self._reservations.plan(
            {each: ask for each in look if (ask := self._wanted(each, living)) is not None},
            {each for each in look if each in living and each not in idle},
            {name: group for each in look for name, group in self._seen.groups.get(each, {}).items()},
            lambda ask: allowed[ask.regions],
            now,
            look,
        )
        self._known, self._where = living, where
        # Whether an order was carried out shows in the groups, at the next plan.
        self._changed_groups = set(map(self._reservations.runner_of, (*orders.make, *orders.remove)))
        return {
            "make": {name: {"bundle": bundle, "selector": labels} for name, (bundle, labels) in orders.make.items()},
            "remove": list(orders.remove),
        }

    def _regions(self) -> Mapping[str, str]:
        """Return the regions of Ray's nodes. What `fal node up` said goes before Ray's label."""
        said = {node.name: node.region for node in self._nodes()}
        return {each.id: said.get(each.node) or each.label for each in self._seen.nodes.values()}

    def _known_regions(self, regions: Mapping[str, str]) -> Collection[str]:
        return {regions[each.id] for each in self._seen.nodes.values() if each.node}

    def _wanted(self, runner_id: str, living: Mapping[str, Runner]) -> Wanted | None:
        """Return what a runner has reserved, or is to have. None means that it is not asked for."""
        runner = living.get(runner_id)
        if runner is None or not runner.node:
            return self._asks.get(runner_id)
        try:
            bundle = self._bundle(runner.machine_type, len(runner.gpus) or None)
        except InvalidArgument:  # a removed type, of which the size is not known
            return None
        there = tuple(node.id for node in self._seen.nodes.values() if node.node == runner.node)
        return Wanted(choices=(bundle,), nodes=there)

    def _take(self, answer: Mapping[str, object]) -> None:
        """Take the changes that Ray's answer shows."""
        groups, gone, nodes, refused = answer["groups"], answer["gone"], answer["nodes"], answer["refused"]
        assert isinstance(groups, dict)
        assert isinstance(gone, list)
        assert isinstance(nodes, dict)
        assert isinstance(refused, dict)
        for name, why in refused.items():
            log.warning("Ray refused to reserve %s: %s", name, why)
        if answer["whole"]:
            self._where = None
            gone = [name for mine in self._seen.groups.values() for name in mine if name not in groups]
        changed = {name: Group(**group) for name, group in groups.items()}
        for name in gone:
            runner_id = self._reservations.runner_of(name)
            self._seen.groups.get(runner_id, {}).pop(name, None)
            if not self._seen.groups.get(runner_id):
                self._seen.groups.pop(runner_id, None)
        for name, group in changed.items():
            self._seen.groups.setdefault(self._reservations.runner_of(name), {})[name] = group
        self._changed_groups.update(map(self._reservations.runner_of, (*changed, *gone)))
        names = self._addresses()
        self._seen.nodes = {
            node_id: RayNode(
                id=node_id,
                address=node["address"],
                node=_joined(node, names),
                resources=node["resources"],
                regions={name: str(node["labels"][name]) for name in _REGION_LABELS if name in node["labels"]},
            )
            for node_id, node in nodes.items()
        }
        self._reservations.note(changed)
        if changed or gone:
            self._changed()

    def _note_trouble(self, message: str) -> None:
        if self._away_since is None:
            self._away_since = self._now()
        trouble = f"Ray at {self._address} does not answer since {self._away_since:%H:%M:%S} UTC: {message}"
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble
        self._changed()

    def _bundle(self, machine_type: str, num_gpus: int | None) -> Bundle:
        """Return what a runner reserves.

        Raises:
            InvalidArgument: there is no such machine type.
        """
        return _bundle_of(self._machine_types.resources_of(machine_type, num_gpus))


def _after(troubles: Mapping[str, str]) -> str:
    """Name nodes and what is wrong with them, after other words."""
    return "".join(f"; nothing can be started on node {name!r}: {why}" for name, why in troubles.items())


def _joined(node: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the name of the node that joined on Ray's machine. Empty if none did."""
    label = node["labels"].get(NODE_LABEL)
    if label in names.values():
        return str(label)
    return names.get(node["address"]) or names.get(node["host_name"], "")


def _bundle_of(resources: Resources) -> Bundle:
    return {"memory": float(resources.memory_mib * _MIB), **{k: float(n) for k, n in resources.gpus.items() if n}}


def _fits(bundle: Bundle, resources: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= count for name, count in bundle.items())


def _shown(bundle: Bundle) -> str:
    parts = [f"{count / _MIB:.0f} MiB" if name == "memory" else f"{count:g} x {name}" for name, count in bundle.items()]
    return ", ".join(parts)
