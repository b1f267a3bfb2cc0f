"""A controller and its nodes, each on a machine of its own. For the machines see tests/support/machines.py."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.controller import BIN, ROOT, Controller, start
from tests.support.machines import Machine, MachineProcess, Machines, network
from tests.support.waiting import until

PORT = 7411
# What the apps of these tests need is in the cache; see __main__.py.
OFFLINE = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(ROOT / ".cache" / "uv")}


@dataclass
class Box:
    """A machine with a node process.

    Attributes:
        process: the node process that was started last.
        token: what has it join, if it has not joined.
    """

    machine: Machine
    process: MachineProcess
    token: str = ""

    @classmethod
    def start(cls, machine: Machine, gpus: int = 1) -> Box:
        """Start the node process, and wait until it listens.

        Args:
            gpus: how many it offers.
        """
        process = machine.popen(
            [
                *(str(BIN / "fal"), "node", "up", "--node-dir", str(machine.directory / "node")),
                *("--host", machine.address, "--port", str(PORT), "--gpu", f"GPU-FAR={gpus}", "--isolation", "view"),
            ],
            {**os.environ, **OFFLINE, "COLUMNS": "200", "HOME": str(machine.directory)},
            machine.directory / "node.log",
        )
        assert process.outer.stdout is not None
        first = process.outer.stdout.readline()
        assert first.startswith("Node "), f"{first}\n{(machine.directory / 'node.log').read_text()}"
        box = cls(machine, process)
        if "joined" not in first:
            process.outer.stdout.readline()
            box.token = process.outer.stdout.readline().removeprefix("token: ").strip()
        return box

    @property
    def data(self) -> Path:
        """The directory that its runners see as /data."""
        return self.machine.directory / "node" / "data"

    def restart(self) -> None:
        """Start the machine and its node process again."""
        self.machine.power_on()
        self.process = Box.start(self.machine).process


class Cluster:
    """A controller, and boxes that joined."""

    def __init__(self, controller: Controller, machines: Machines) -> None:
        self.controller = controller
        self.machines = machines

    def add(self, *names: str) -> list[Box]:
        """Start boxes, and have them join."""
        machines = [self.machines.add(name) for name in names]
        with ThreadPoolExecutor() as threads:
            boxes = list(threads.map(Box.start, machines))
        for box in boxes:
            self.controller.fal("node", "join", f"{box.machine.address}:{PORT}", stdin=f"{box.token}\n".encode())
        return boxes

    def runners(self) -> list[dict[str, str]]:
        """Return the runners that live."""
        found: list[dict[str, str]] = json.loads(self.controller.fal("runners", "list", "--json").stdout)["runners"]
        return found

    def trouble(self, box: Box) -> str:
        """Return what keeps runners from starting on a box."""
        nodes: Sequence[dict[str, str]] = json.loads(self.controller.fal("node", "list", "--json").stdout)["nodes"]
        [found] = [node for node in nodes if node["host"] == box.machine.address]
        return found["trouble"]

    def runner_on(self, box: Box) -> str:
        """Return the id of the runner that serves on a box."""

        def find() -> str:
            name = box.machine.name
            found = [
                r
                for r in self.runners()
                if r.get("node", "").startswith(f"{name}-") and r["state"] in {"RUNNING", "IDLE"}
            ]
            return found[0]["runner_id"] if found else ""

        return until(find, f"the runner on {box.machine.name}")


@contextmanager
def running_cluster(directory: Path, *arguments: str) -> Generator[Cluster]:
    """Run a controller without nodes; see `cluster`."""
    with network(directory / "machines") as machines:
        controller = start(directory / "controller", *arguments, environment=OFFLINE)
        try:
            yield Cluster(controller, machines)
        finally:
            controller.stop(150)  # it waits for runners that it does not reach, too, but not for ever


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    """Start a controller without nodes. All that a test adds ends with the test."""
    with running_cluster(tmp_path) as cluster:
        yield cluster
