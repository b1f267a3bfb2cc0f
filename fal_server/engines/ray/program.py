"""Speaks with Ray in an interpreter that has the cluster's version. It needs nothing else.

`python program.py ADDRESS` reads orders, a line of JSON each, and answers each with a line, which says what there is
once the order was carried out. It does nothing by itself, and ends with its standard input.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

# Ray tries a new placement group within milliseconds; an answer that has its result saves a round.
_SETTLE_SECONDS = 0.3
_LOOK_SECONDS = 0.01
# An answer to an order that makes groups has what came of those. At least so often it has what became of all.
_WHOLE_SECONDS = 3.0
_TRIED = {"INFEASIBLE", "NO_RESOURCES"}


class RayProgram:
    """Does in Ray what one order says.

    Args:
        ray: the module, which is connected.
    """

    def __init__(self, ray: ModuleType) -> None:
        self._ray: Any = ray
        self._groups_of_ray: Any = import_module("ray.util.placement_group")
        self._told: dict[str, dict[str, Any]] | None = None
        self._nodes: dict[str, dict[str, Any]] = {}
        self._looked_at = 0.0

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Remove and make placement groups; return nodes and changed groups.

        The groups are those of the order's prefix; the first answer has all.
        """
        module = self._groups_of_ray
        for name in order["remove"]:
            with suppress(ValueError):  # it is gone already
                module.remove_placement_group(module.get_placement_group(name))
        made: dict[str, Any] = {}
        refused: dict[str, str] = {}
        for name, wanted in order["make"].items():
            selector = [wanted["selector"]] if wanted["selector"] else None
            try:
                made[name] = module.placement_group(
                    [wanted["bundle"]], name=name, lifetime="detached", bundle_label_selector=selector
                )
            except ValueError as error:  # as for a name that there is already
                refused[name] = " ".join(str(error).split())[:300]
        groups, told = self._look(order, self._settled(made)), self._told
        self._told = groups
        return {
            "whole": told is None,
            "groups": {name: group for name, group in groups.items() if told is None or told.get(name) != group},
            "gone": [name for name in told or () if name not in groups],
            "nodes": self._nodes,
            "refused": refused,
        }

    def _settled(self, made: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return new groups once Ray has tried them, or time is up."""
        table = self._groups_of_ray.placement_group_table
        until = time.monotonic() + _SETTLE_SECONDS
        for each in made.values():
            # A wait ends as soon as Ray has placed a group.
            while not each.wait(_LOOK_SECONDS) and not _is_tried(table(each)) and time.monotonic() < until:
                pass
        return {name: table(each) for name, each in made.items()}

    def _look(self, order: dict[str, Any], settled: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the groups, and note the nodes. A start waits for this, so it asks for the new groups alone."""
        now = time.monotonic()
        if self._told is not None and settled and now - self._looked_at < _WHOLE_SECONDS:
            new = {name: _group(group) for name, group in settled.items() if group}
            if all(group["node"] in {"", *self._nodes} for group in new.values()):
                gone = {*order["remove"], *settled}
                return {**{name: group for name, group in self._told.items() if name not in gone}, **new}
        self._looked_at = now
        self._nodes = {node["NodeID"]: _node(node) for node in self._ray.nodes() if node["Alive"]}
        return self._groups(order["prefix"])

    def _groups(self, prefix: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for group in self._groups_of_ray.placement_group_table().values():
            if group["name"].startswith(prefix) and group["state"] != "REMOVED":
                found[group["name"]] = _group(group)
        return found


def _group(group: dict[str, Any]) -> dict[str, Any]:
    placed = group["state"] == "CREATED"
    return {
        "state": group["state"],
        "bundle": dict(group["bundles"][0]),
        "node": group["bundles_to_node_id"][0] if placed else "",
        "waits": "" if placed else group["stats"]["scheduling_state"],
    }


def _is_tried(group: dict[str, Any]) -> bool:
    """Return whether Ray has tried a group. It has placed it, says why it waits, or has it no more."""
    return not group or group["state"] == "CREATED" or group["stats"]["scheduling_state"] in _TRIED


def _node(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": node["NodeManagerAddress"],
        "host_name": node["NodeManagerHostname"],
        "labels": node.get("Labels") or {},
        "resources": node["Resources"],
    }


def main() -> int:
    """Serve a controller until it is gone.

    Returns:
        1 if Ray cannot be used; why is in the last line of its standard output.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        os._exit(0)  # the controller is gone, and a call of Ray may last

    threading.Thread(target=read, daemon=True).start()
    try:
        ray: Any = import_module("ray")
        ray.init(
            address=sys.argv[1],
            namespace="fal",
            log_to_driver=False,
            configure_logging=False,
            logging_level="ERROR",
        )
        program = RayProgram(ray)
        about = {
            "version": ray.__version__,
            "python": platform.python_version(),
            "authenticated": os.environ.get("RAY_AUTH_MODE") == "token",
        }
        out.write(json.dumps(about) + "\n")
        while True:
            out.write(json.dumps(program.obey(orders.get())) + "\n")
    except Exception as error:  # noqa: BLE001  # whatever it is, the controller shows it
        text = " ".join(str(error).split())
        out.write(json.dumps({"trouble": f"{type(error).__name__}: {text[:500]}"}) + "\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
