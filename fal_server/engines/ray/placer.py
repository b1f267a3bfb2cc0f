"""Has Ray decide on which machine each runner starts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from fal_server.core.faults import InvalidArgument, Unavailable
from fal_server.core.machines import MachineTypes, Node
from fal_server.core.places import FreeRoom, Lack, Needs, Placement
from fal_server.core.runners import Runner
from fal_server.engines.ray.reservations import Bundle, Group, Reservations, Wanted

log = logging.getLogger(__name__)
NODE_LABEL = "fal-node"
_ROUND_SECONDS = 0.5
_RETRY_SECONDS = 2.0
# What the plan no longer asks for, as when its account has reached a quota, is removed after this time.
_IDLE_SECONDS = 10.0
_MIB = 1024 * 1024
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
    """

    id: str
    address: str
    node: str
    resources: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What Ray had at the last word of it.

    Attributes:
        placed: the names of the groups that are on a node, by runner.
    """

    groups: Mapping[str, Group] = field(default_factory=dict[str, Group])
    nodes: Mapping[str, RayNode] = field(default_factory=dict[str, RayNode])
    placed: Mapping[str, str] = field(default_factory=dict[str, str])


class RayPlacer:
    """Reserves a place for each runner, as a placement group of Ray, and lets it go when the runner has ended.

    Args:
        connection: to Ray.
        address: of Ray, for people.
        machine_types: what runners can be.
        nodes: returns the nodes in their current state.
        addresses: returns the names of the nodes that joined, by the host that each joined with.
        runners: returns all runners.
        may_act: whether no other controller can have taken over.
        changed: is called when a runner may have got its place.
        now: returns the time.
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
        self._elapsed = elapsed
        self._reservations = Reservations("fal")
        self._asks: dict[str, Wanted] = {}
        self._lasts_until: dict[str, float] = {}
        self._seen = _Seen()
        self._away_since: datetime | None = now()
        self._trouble = f"Ray at {address} has not answered yet"
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def open(self, owner: str) -> None:
        """Speak with Ray until it is closed.

        Args:
            owner: what tells this controller's reservations from those of others on the same cluster.
        """
        self._reservations = Reservations(f"fal-{owner}")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="reservations in Ray")

    async def close(self) -> None:
        """Let go what runners do not need any more, and end the connection."""
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
        ask = Wanted(choices=tuple(types.values()))
        found = self._found(runner, needs, tuple(types), ask, free)
        wait = found.again_seconds if isinstance(found, Lack) else 0
        self._lasts_until[runner.runner_id] = self._elapsed() + wait + _IDLE_SECONDS
        return found

    def described(self) -> dict[str, object]:
        """Describe Ray, and what is reserved in it, for people."""
        groups = self._seen.groups.values()
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
            **self._ray.about,
        }

    def _found(
        self, runner: Runner, needs: Needs, types: Sequence[str], ask: Wanted, free: FreeRoom
    ) -> Placement | Lack | None:
        if self._trouble:  # Ray is asked once it answers: by then, a quota may forbid it
            return Lack(reason=f"it waits: {self._trouble}", again_seconds=0)
        if self._asks.get(runner.runner_id) != ask:
            self._asks[runner.runner_id] = ask
            self._wake.set()
        name = self._seen.placed.get(runner.runner_id)
        if name is not None and self._reservations.is_for(name, group := self._seen.groups[name], ask):
            return self._place(group, types[self._reservations.choice_of(name)], needs, free)
        return self._lack(runner.runner_id, types, ask, free)

    def _place(self, group: Group, machine_type: str, needs: Needs, free: FreeRoom) -> Placement | Lack | None:
        ray_node = self._seen.nodes.get(group.node)
        node = None if ray_node is None else free.nodes.get(ray_node.node)
        if node is None or node.trouble:
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
        if not machines:
            return Lack(
                reason=f"no machine of Ray at {self._address} has joined: `fal node up` on each, then `fal node join`",
                again_seconds=0,
            )
        waits = self._reservations.waits(runner_id, ask)
        if not waits:
            return None
        wants = "; ".join(f"{name}: {_shown(each)}" for name, each in zip(types, ask.choices, strict=True))
        if not any(_fits(each, node.resources) for each in ask.choices for node in machines):
            return Lack(reason=f"no machine of Ray could hold it, even if empty (INFEASIBLE; {wants})", hopeless=True)
        troubles = [
            f"node {node.node!r}: {free.nodes[node.node].trouble}" for node in machines if free.nodes[node.node].trouble
        ]
        why = "; ".join(dict.fromkeys([*sorted(set(waits)), wants, *troubles]))
        return Lack(reason=f"Ray has no room for it now ({why})", again_seconds=0)

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
        """Have Ray make and remove what is to change, and what its answer shows to be changed, too."""
        order = self._order() if not self._trouble else _NOTHING
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
        living = {runner.runner_id: runner for runner in self._runners() if not runner.ended}
        now = self._elapsed()
        starting = [each for each, runner in living.items() if not runner.node]
        # A runner that was not asked for yet may have a group that an earlier process made.
        self._lasts_until = {each: self._lasts_until.get(each, now + _IDLE_SECONDS) for each in starting}
        idle = {each for each, until in self._lasts_until.items() if until < now}
        self._asks = {each: self._asks[each] for each in starting if each in self._asks and each not in idle}
        placed: dict[str, Wanted] = {}
        for runner in living.values():
            if runner.node:
                with suppress(InvalidArgument):  # a removed type, of which the size is not known
                    bundle = self._bundle(runner.machine_type, len(runner.gpus) or None)
                    there = tuple(node.id for node in self._seen.nodes.values() if node.node == runner.node)
                    placed[runner.runner_id] = Wanted(choices=(bundle,), nodes=there)
        troubles = {node.name: node.trouble for node in self._nodes()}
        unusable = [node.id for node in self._seen.nodes.values() if troubles.get(node.node, "none joined")]
        orders = self._reservations.plan(
            {**self._asks, **placed}, living.keys() - idle, self._seen.groups, unusable, now
        )
        return {
            "make": {name: {"bundle": bundle, "selector": labels} for name, (bundle, labels) in orders.make.items()},
            "remove": list(orders.remove),
        }

    def _take(self, answer: Mapping[str, object]) -> None:
        groups, nodes, refused = answer["groups"], answer["nodes"], answer["refused"]
        assert isinstance(groups, dict)
        assert isinstance(nodes, dict)
        assert isinstance(refused, dict)
        for name, why in refused.items():
            log.warning("Ray refused to reserve %s: %s", name, why)
        before = self._seen.groups
        known = {name: Group(**group) for name, group in groups.items()}
        self._seen = _Seen(
            groups=known,
            nodes={
                node_id: RayNode(
                    id=node_id,
                    address=node["address"],
                    node=_joined(node, self._addresses()),
                    resources=node["resources"],
                )
                for node_id, node in nodes.items()
            },
            placed={self._reservations.runner_of(name): name for name, group in known.items() if group.placed},
        )
        self._reservations.note(self._seen.groups)
        if self._seen.groups != before:
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
        resources = self._machine_types.resources_of(machine_type, num_gpus)
        return {"memory": float(resources.memory_mib * _MIB), **{k: float(n) for k, n in resources.gpus.items() if n}}


def _joined(node: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the name of the node that joined on a machine of Ray; empty if none did."""
    label = node["labels"].get(NODE_LABEL)
    if label in names.values():
        return str(label)
    return names.get(node["address"]) or names.get(node["host_name"], "")


def _fits(bundle: Bundle, resources: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= count for name, count in bundle.items())


def _shown(bundle: Bundle) -> str:
    parts = [f"{count / _MIB:.0f} MiB" if name == "memory" else f"{count:g} x {name}" for name, count in bundle.items()]
    return ", ".join(parts)
