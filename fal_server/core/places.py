"""Room on nodes, and the choice of a place for a runner."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from fal_server.core.faults import InvalidArgument
from fal_server.core.gpus import assign
from fal_server.core.identity import AccountId
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.runners import NO_PROCESS, Runner

_Key = TypeVar("_Key", bound=Hashable)
# Seconds until the next attempt if no node had room.
UNSCHEDULABLE_DELAY_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The requirements of a runner that is to start.

    Attributes:
        machine_types: the acceptable ones, best first.
        delayed: whether it still waits after a failed start.
        rolling: whether it is the first runner of a rolling deploy's target revision.
        patience_seconds: how long a rolling deploy waits for room; None means forever.
        ephemeral: whether one call waits for this runner.
        regions: where it may be; empty means anywhere.
    """

    machine_types: tuple[str, ...]
    num_gpus: int | None = None
    delayed: bool = True
    rolling: bool = False
    patience_seconds: int | None = None
    ephemeral: bool = False
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a runner starts, and as what.

    Attributes:
        gpus: the ids of the node's GPUs that become its own.
    """

    node: str
    machine_type: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Why there is no place for a runner.

    Attributes:
        reason: for people.
        hopeless: whether there are nodes, but none would have room even if it were empty.
        again_seconds: when to ask again; 0 asks at every plan.
    """

    reason: str
    hopeless: bool = False
    again_seconds: int = UNSCHEDULABLE_DELAY_SECONDS


class Room:
    """Counts the resources that runners with a process hold on each node. It also counts what accounts may have."""

    def __init__(self) -> None:
        self._taken: dict[str, Counter[tuple[str, int | None]]] = defaultdict(Counter)
        self._gpus: dict[str, Counter[str]] = defaultdict(Counter)
        self._runners: Counter[AccountId] = Counter()

    def change(self, held: TakenRoom, by: int) -> None:
        """Add the resources of some runners (1), or subtract them (-1)."""
        for (node, machine_type, num_gpus), count in held.places.items():
            _count(self._taken[node], (machine_type, num_gpus), count * by)
        for node, gpu in held.gpus:
            _count(self._gpus[node], gpu, by)
        for account, count in held.runners.items():
            _count(self._runners, account, count * by)

    def runners(self, account: AccountId) -> int:
        """Return how many runners with a process an account has."""
        return self._runners[account]

    def gpus(self, node: str) -> set[str]:
        """Return the ids of a node's GPUs that runners hold."""
        return set(self._gpus.get(node, ()))

    def free(self, node: Node) -> Resources:
        """Return a node's free resources."""
        left = node.total
        for (machine_type, num_gpus), count in self._taken.get(node.name, {}).items():
            try:
                each = node.machine_types.resources_of(machine_type, num_gpus)
            except InvalidArgument:  # its runner continues, but its size is unknown
                continue
            left = left.minus(each.times(count))
        return left


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenRoom:
    """The resources that some runners hold.

    Attributes:
        count: the number of runners.
        places: the number by node, machine type and number of GPUs.
        gpus: the node and the id of each GPU.
        runners: the number with a process, by account.
    """

    count: int
    places: Mapping[tuple[str, str, int | None], int]
    gpus: tuple[tuple[str, str], ...]
    runners: Mapping[AccountId, int]

    @classmethod
    def of(cls, runners: Iterable[Runner], num_gpus: Callable[[Runner], int | None]) -> TakenRoom:
        """Return the resources that runners hold. Those without a process, and ended ones, hold none.

        Args:
            num_gpus: the number of GPUs of a runner, instead of its machine type's.
        """
        living = [r for r in runners if r.state not in NO_PROCESS and not r.ended]
        return cls(
            count=len(living),
            places=Counter((r.node, r.machine_type, num_gpus(r)) for r in living),
            gpus=tuple((r.node, gpu) for r in living if r.gpus for gpu in r.gpus),
            runners=Counter(r.account for r in living),
        )


def _count(counter: Counter[_Key], key: _Key, by: int) -> None:
    counter[key] += by
    if not counter[key]:
        del counter[key]


class FreeRoom:
    """What nodes have free during one plan.

    Args:
        nodes: with their total resources.
        room: what runners hold of them.
    """

    def __init__(self, nodes: Sequence[Node], room: Room) -> None:
        self.nodes = {node.name: node for node in sorted(nodes, key=lambda node: node.name)}
        self._free = {node.name: room.free(node) for node in nodes}
        self._held = {node.name: room.gpus(node.name) for node in nodes}

    def fit(self, needs: Needs) -> Placement | Lack:
        """Take room on the first node that has it."""
        lacks: list[str] = []
        known = frozenset(node.region for node in self.nodes.values())
        nodes = [node for node in self.nodes.values() if may_be_in(node.region, needs.regions, known)]
        if self.nodes and not nodes:
            return Lack(reason=elsewhere(needs.regions, known))
        for node in nodes:
            if node.trouble:
                lacks.append(f"nothing can be started on node {node.name!r}: {node.trouble}")
                continue
            machine_type, lack = _choose(needs, node.machine_types, self._free[node.name])
            if machine_type is not None:
                return self.take(node, machine_type, needs.num_gpus)
            lacks.append(lack)
        return Lack(
            reason="; ".join(dict.fromkeys(lacks)) or "there is no node",
            hopeless=bool(nodes) and not any(_could_hold(node, needs) for node in nodes),
        )

    def take(self, node: Node, machine_type: str, num_gpus: int | None) -> Placement:
        """Take room on a node, even if it has none. The place has as many of the GPUs as are free."""
        taken = node.machine_types.resources_of(machine_type, num_gpus)
        gpus = assign(node.gpus, self._held[node.name], taken.gpus)
        self._free[node.name] = self._free[node.name].minus(taken)
        self._held[node.name] |= set(gpus)
        return Placement(node=node.name, machine_type=machine_type, gpus=gpus)


def may_be_in(region: str, wanted: Collection[str], known: Collection[str]) -> bool:
    """Return whether a runner may be in a region.

    Args:
        region: of a machine; empty if its operator did not say.
        wanted: those that the app allows; empty means any.
        known: those of all machines. If no machine has one, what apps allow says nothing.
    """
    return not wanted or region in wanted or not any(known)


def elsewhere(wanted: Iterable[str], known: Iterable[str]) -> str:
    """Explain that no machine is in a region that an app allows."""
    there = ", ".join(sorted(region or "none" for region in known))
    return f"no machine is in a region that the app allows ({', '.join(wanted)}); they are in: {there}"


Reserve: TypeAlias = Callable[[Runner, Needs, FreeRoom], Placement | Lack | None]
"""Decides where a runner starts; None while that is not known yet."""


def first_fit(_runner: Runner, needs: Needs, free: FreeRoom) -> Placement | Lack | None:
    """Take the first node that has room: a static placer."""
    return free.fit(needs)


def _could_hold(node: Node, needs: Needs) -> bool:
    """Return whether an empty node may hold a runner. One that has said nothing yet may."""
    return not node.described or _choose(needs, node.machine_types, node.total)[0] is not None


def _choose(wanted: Needs, types: MachineTypes, room: Resources) -> tuple[str | None, str]:
    try:
        return types.choose(wanted.machine_types, wanted.num_gpus, room)
    except InvalidArgument as fault:  # a type of an earlier version, or one that the operator has removed
        return None, fault.message
