"""A Ray cluster in memory. It places each group on the first node that has its labels and room, as Ray would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fal_server.core.faults import Unavailable

MIB = 1024 * 1024


@dataclass
class FakeGroup:
    """A placement group."""

    bundle: Mapping[str, float]
    selector: Mapping[str, str]
    node: str = ""
    waits: str = "QUEUED"


@dataclass
class FakeRay:
    """Implements the placer's RayConnection.

    Attributes:
        nodes: by Ray's id, with address and resources.
        away: why it does not answer; empty while it does.
        orders: those that were carried out.
    """

    nodes: dict[str, tuple[str, Mapping[str, float]]] = field(default_factory=dict)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    groups: dict[str, FakeGroup] = field(default_factory=dict)
    away: str = ""
    orders: list[Mapping[str, Any]] = field(default_factory=list)
    closed: bool = False
    told: Mapping[str, Mapping[str, object]] | None = None
    about: Mapping[str, object] = field(default_factory=lambda: {"version": "2.60.0", "authenticated": True})

    async def obey(self, order: Mapping[str, Any]) -> Mapping[str, object]:
        if self.away:
            self.told = None  # it is asked by another process then
            raise Unavailable(self.away)
        self.orders.append(order)
        for name in order["remove"]:
            self.groups.pop(name, None)
        for name, wanted in order["make"].items():
            assert name not in self.groups
            self.groups[name] = FakeGroup(wanted["bundle"], wanted["selector"])
        self.settle()
        told = self.told
        self.told = groups = {
            name: {
                "state": "CREATED" if group.node else "PENDING",
                "bundle": group.bundle,
                "node": group.node,
                "waits": group.waits,
            }
            for name, group in self.groups.items()
            if name.startswith(order["prefix"])
        }
        return {
            "whole": told is None,
            "groups": {name: group for name, group in groups.items() if told is None or told.get(name) != group},
            "gone": [name for name in told or () if name not in groups],
            "nodes": {
                node: {
                    "address": address,
                    "host_name": "vm",
                    "labels": self.labels.get(node, {}),
                    "resources": resources,
                }
                for node, (address, resources) in self.nodes.items()
            },
            "refused": {},
        }

    async def close(self) -> None:
        self.closed = True

    def settle(self) -> None:
        """Place what can be placed, oldest first. Say why the rest waits."""
        for group in self.groups.values():
            if group.node and group.node not in self.nodes:
                group.node = ""  # Ray places it elsewhere when its node has died
            if group.node:
                continue
            allowed = [node for node in self.nodes if self._has_labels(node, group.selector)]
            large = [node for node in allowed if _holds(self.nodes[node][1], group.bundle)]
            room = [node for node in large if _holds(self._free(node), group.bundle)]
            group.node = room[0] if room else ""
            group.waits = "" if room else "NO_RESOURCES" if large else "INFEASIBLE"

    def on(self, runner_id: str) -> str:
        """Return the node that a runner's only group is on."""
        [group] = [group for name, group in self.groups.items() if f":{runner_id}:" in name]
        return group.node

    def _free(self, node: str) -> Mapping[str, float]:
        free = dict(self.nodes[node][1])
        for group in self.groups.values():
            if group.node == node:
                for name, count in group.bundle.items():
                    free[name] = free.get(name, 0.0) - count
        return free

    def _has_labels(self, node: str, selector: Mapping[str, str]) -> bool:
        for label, rule in selector.items():
            value = node if label == "ray.io/node-id" else self.labels.get(node, {}).get(label)
            negated, _, inner = rule.partition("in(")
            named = inner.rstrip(")").split(",")
            if (value in named) == (negated == "!"):
                return False
        return True


def _holds(resources: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= count for name, count in bundle.items())
