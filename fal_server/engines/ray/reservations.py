"""Compares the runners that want a place with Ray's placement groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import TypeAlias

Bundle: TypeAlias = Mapping[str, float]
"""What a runner reserves, by the names that Ray has for it."""
# A runner with several machine types waits so long for each of them before Ray is asked for the next.
_PATIENCE_SECONDS = 1.0
# If the cluster may grow, its autoscaler needs a request that stays, once each of them was tried.
_STEADY_SECONDS = 30.0
_NODE_LABEL = "ray.io/node-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A placement group, as Ray describes it.

    Attributes:
        bundle: what it reserves.
        node: the id of Ray's node that it is on; empty while it is on none.
        waits: Ray's word for why it is on none; QUEUED while Ray has not tried yet.
    """

    state: str
    bundle: Bundle
    node: str = ""
    waits: str = ""

    @property
    def placed(self) -> bool:
        """Whether its resources are reserved."""
        return self.state == "CREATED" and self.node != ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a runner wants to have reserved.

    Attributes:
        choices: what does, best first.
        nodes: Ray's nodes that it runs on already; None if it does not run yet.
        regions: where it may be; empty means anywhere.
    """

    choices: tuple[Bundle, ...]
    nodes: tuple[str, ...] | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Where a runner that has no place may get one.

    Attributes:
        unusable: the ids of Ray's nodes on which it cannot be started.
        labels: those that its node must have, beside its id.
    """

    unusable: Collection[str]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What Ray is to change.

    Attributes:
        make: by name, the bundle and the labels that its node must have.
        remove: their names.
    """

    make: Mapping[str, tuple[Bundle, Mapping[str, str]]]
    remove: Sequence[str]


@dataclass(slots=True)
class _Made:
    """A group that this controller asked for last for a runner."""

    name: str
    choices: tuple[Bundle, ...]
    choice: int
    selector: Mapping[str, str]
    at: float
    waits: dict[int, str] = field(default_factory=dict[int, str])


class Reservations:
    """Plans which placement groups are made and removed. Each runner that has a place or wants one gets one group.

    Args:
        prefix: what the names of this controller's groups start with, and of no other's on the same cluster.
        steady: whether to change seldom what is asked for.
    """

    def __init__(self, prefix: str, *, steady: bool = False) -> None:
        self.prefix = f"{prefix}:"
        self._steady = steady
        self._made: dict[str, _Made] = {}
        self._serial = 0

    def plan(
        self,
        asks: Mapping[str, Wanted],
        live: Collection[str],
        groups: Mapping[str, Group],
        allowed: Callable[[Wanted], Allowed],
        now: float,
        look: Collection[str],
    ) -> Orders:
        """Return what Ray is to change for some runners.

        Args:
            asks: what these runners want, by their ids.
            live: the ids of those that have not ended.
            groups: by name, those of theirs that Ray has.
            allowed: returns where a runner may be started.
            now: a monotonic time in seconds.
            look: the ids of these runners.
        """
        remove: list[str] = []
        kept: dict[str, str] = {}
        for name, group in sorted(groups.items(), key=lambda item: (not item[1].placed, item[0])):
            runner_id = self.runner_of(name)
            ask = asks.get(runner_id)
            if (
                runner_id not in live
                or runner_id in kept
                or (ask and not self._stands(name, group, ask, allowed(ask).unusable))
            ):
                remove.append(name)
            else:
                kept[runner_id] = name
        make: dict[str, tuple[Bundle, Mapping[str, str]]] = {}
        for runner_id, ask in asks.items():
            selector = _selector(allowed(ask)) if ask.nodes is None else _on(ask.nodes)
            if ask.nodes == () or not ask.choices:
                continue  # Ray has no such node
            made, standing = self._made.get(runner_id), kept.get(runner_id)
            unchanged = made is not None and made.selector == selector and made.choices == ask.choices
            same = made if unchanged else None
            choice = 0
            if standing is not None:
                group = groups[standing]
                if group.placed or (same and same.name == standing and not self._gives_up(same, group, ask, now)):
                    continue
                remove.append(standing)
                choice = (same.choice + 1) % len(ask.choices) if same else 0
            self._serial += 1
            name = f"{self.prefix}{runner_id}:{choice}.{self._serial}.{int(now * 1000)}"
            self._made[runner_id] = _Made(
                name=name,
                choices=ask.choices,
                choice=choice,
                selector=selector,
                at=now,
                waits=same.waits if same else {},
            )
            make[name] = (ask.choices[choice], selector)
        for runner_id in look:
            if runner_id not in asks:
                self._made.pop(runner_id, None)
        return Orders(make=make, remove=remove)

    def note(self, groups: Mapping[str, Group]) -> None:
        """Note why groups wait, of those that have changed."""
        for name, group in groups.items():
            made = self._made.get(self.runner_of(name))
            if made is not None and made.name == name and group.waits not in {"", "QUEUED"}:
                made.waits[made.choice] = group.waits

    def waits(self, runner_id: str, ask: Wanted) -> Sequence[str]:
        """Return why a runner has no place, for each of its choices. Nothing while one was not tried."""
        made = self._made.get(runner_id)
        if made is None or made.choices != ask.choices or len(made.waits) < len(ask.choices):
            return ()
        return [made.waits[choice] for choice in range(len(ask.choices))]

    def runner_of(self, name: str) -> str:
        """Return the id of a group's runner."""
        return name.removeprefix(self.prefix).partition(":")[0]

    def choice_of(self, name: str) -> int:
        """Return which of its runner's choices a group is for."""
        return int(name.rpartition(":")[2].partition(".")[0])

    def is_for(self, name: str, group: Group, ask: Wanted) -> bool:
        """Return whether a group reserves what its runner asks for now. That may have changed since it was made."""
        made, choice = self._made.get(self.runner_of(name)), self.choice_of(name)
        if made is not None and made.name == name:
            return made.choices == ask.choices
        # An earlier process made it, so only Ray knows its size.
        return choice < len(ask.choices) and _equal(group.bundle, ask.choices[choice])

    def _stands(self, name: str, group: Group, ask: Wanted, unusable: Collection[str]) -> bool:
        if ask.nodes is not None:
            return group.node in ask.nodes if group.placed else self._is_latest(name, ask)
        return group.node not in unusable and self.is_for(name, group, ask)

    def _is_latest(self, name: str, ask: Wanted) -> bool:
        made = self._made.get(self.runner_of(name))
        return made is not None and made.name == name and made.selector == _on(ask.nodes or ())

    def _gives_up(self, made: _Made, group: Group, ask: Wanted, now: float) -> bool:
        tried_all = len(made.waits) == len(ask.choices)
        patience = _STEADY_SECONDS if self._steady and tried_all else _PATIENCE_SECONDS
        waited = group.waits not in {"", "QUEUED"} and now - made.at >= patience
        return waited and len(ask.choices) > 1


def _equal(one: Bundle, other: Bundle) -> bool:
    return one.keys() == other.keys() and all(isclose(one[name], other[name], rel_tol=1e-6) for name in one)


def _selector(allowed: Allowed) -> Mapping[str, str]:
    names = ",".join(sorted(allowed.unusable))
    return {**allowed.labels, **({_NODE_LABEL: f"!in({names})"} if names else {})}


def _on(nodes: Sequence[str]) -> Mapping[str, str]:
    return {_NODE_LABEL: f"in({','.join(sorted(nodes))})"}
