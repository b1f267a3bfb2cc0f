"""A controller whose runners Ray places. Two machines of the same Ray cluster have nodes that joined."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tests.cluster.conftest import OFFLINE, PORT, Box, Cluster
from tests.support.controller import Controller, start
from tests.support.machines import Machines, network
from tests.support.ray import ADDRESS, ENVIRONMENT, PYTHON, RayProcess, start_head, start_worker
from tests.support.waiting import until

# Reads what Ray itself says, beside the controller; makes groups of these names first.
_GROUPS = """
import json, sys, ray
from ray.util import placement_group, placement_group_table
ray.init(address=sys.argv[1], namespace="fal", log_to_driver=False, configure_logging=False, logging_level="ERROR")
for name in sys.argv[2:]:
    placement_group([{"memory": 1e6}], name=name, lifetime="detached")
groups = placement_group_table().values()
print(json.dumps({each["name"]: each["state"] for each in groups if each["state"] != "REMOVED"}))
"""


class RayCluster(Cluster):
    """The cluster, with Ray on each machine.

    Args:
        directory: where the controller and the logs are.
        head: Ray on the controller's machine.
        machines: none yet.
    """

    def __init__(self, directory: Path, head: RayProcess, machines: Machines) -> None:
        super().__init__(_controller(directory), machines)
        self.directory = directory
        self.head = head
        self.boxes: list[Box] = []
        self.workers: list[RayProcess] = []

    def fill(self, *names: str) -> None:
        """Add machines with Ray and a node that joined."""
        for name in names:
            machine = self.machines.add(name)
            self.workers.append(start_worker(machine, {"GPU-FAR": 1.0}, self.directory / f"{name}.log"))
            self.workers[-1].wait()
            self.boxes.append(box := Box.start(machine))
            self.controller.fal("node", "join", f"{machine.address}:{PORT}", stdin=f"{box.token}\n".encode())
        until(lambda: self.ray()["nodes"] and all(self.joined().values()), "Ray's nodes")

    def joined(self) -> Mapping[str, str]:
        """Return the node on each Ray machine of this cluster, by address."""
        nodes = {each["address"]: each["node"] for each in self.ray()["nodes"]}
        return {box.machine.address: nodes.get(box.machine.address, "") for box in self.boxes}

    def ray(self) -> dict[str, list[dict[str, str]]]:
        """Return what `fal status` says of Ray."""
        found: dict[str, list[dict[str, str]]] = json.loads(self.controller.fal("status", "--json").stdout)["ray"]
        return found

    def crash(self) -> None:
        """Kill the controller, and start it again."""
        self.controller.process.kill()
        self.controller.process.wait()
        self.controller = _controller(self.directory)


def _controller(directory: Path) -> Controller:
    words = ("--engine", "ray", "--ray-address", ADDRESS, "--ray-python", str(PYTHON))
    return start(directory / "controller", *words, environment={**OFFLINE, **ENVIRONMENT})


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[RayCluster]:
    """Start everything once: Ray takes its time."""
    directory = tmp_path_factory.mktemp("ray")
    with network(directory / "machines") as machines:
        head = start_head(directory / "head.log")
        head.wait()
        made = RayCluster(directory, head, machines)
        try:
            made.fill("one", "two")
            yield made
        finally:
            made.controller.stop(150)
            for process in (*made.workers, head):
                process.kill()


def groups(*made: str) -> Mapping[str, str]:
    """Return the states of Ray's placement groups by name, after making these."""
    done = subprocess.run(
        [str(PYTHON), "-c", _GROUPS, ADDRESS, *made],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found
