"""The ways to run a platform, and what clients need to know."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.conftest import OFFLINE, PORT, Box
from tests.support import ray
from tests.support.controller import Controller, start
from tests.support.machines import alone, network
from tests.support.postgresql import postgresql
from tests.support.waiting import until

# What the apps of these tests ask for: of each machine that runs them there are this many.
LABEL = "GPU-FAR"
GPUS = 4
_OFFERED = ("--gpu", f"{LABEL}={GPUS}")
_MACHINES = ("one", "two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A platform, as a client sees it.

    Attributes:
        owner: the controller that has the database.
        other: one that waits to take over; the owner itself if there is no other.
        nodes: the names of the machines that run apps.
    """

    owner: Controller
    other: Controller
    nodes: frozenset[str]

    def runners(self, app: str) -> Sequence[dict[str, str]]:
        """Return an app's living runners, as the other controller knows them."""
        listed: list[dict[str, str]] = json.loads(self.other.fal("runners", "list", "--json").stdout)["runners"]
        return [runner for runner in listed if runner["alias"] == app]

    def serving(self, app: str, count: int) -> Sequence[dict[str, str]]:
        """Wait until an app has so many runners that serve. Return them."""

        def ready() -> Sequence[dict[str, str]] | None:
            found = self.runners(app)
            return found if [each["state"] in {"IDLE", "RUNNING"} for each in found] == [True] * count else None

        return until(ready, f"{count} runners of {app}", 180)


Setup = Callable[[Path], AbstractContextManager[Platform]]


@contextmanager
def sqlite_local(directory: Path) -> Generator[Platform]:
    """Run one controller with a database in its directory."""
    with _controller(directory / "controller", *_OFFERED) as controller:
        yield _one(controller)


@contextmanager
def postgresql_local(directory: Path) -> Generator[Platform]:
    """Run one controller on a database server."""
    with (
        _database() as url,
        _controller(directory / "controller", *_OFFERED, variables={"FAL_DATABASE_URL": url}) as controller,
    ):
        yield _one(controller)


@contextmanager
def postgresql_nodes(directory: Path) -> Generator[Platform]:
    """Run two controllers on a database server, and two nodes."""
    with network(directory / "machines") as machines, _two_controllers(directory) as (owner, other):
        boxes = [Box.start(machines.add(name), GPUS) for name in _MACHINES]
        _join(owner, boxes)
        yield Platform(owner=owner, other=other, nodes=_joined(owner))


@contextmanager
def postgresql_ray(directory: Path) -> Generator[Platform]:
    """Run the same with Ray on each machine, which places runners."""
    engine = ("--engine", "ray", "--ray-address", ray.ADDRESS, "--ray-python", str(ray.PYTHON))
    with network(directory / "machines") as machines:
        parts = [ray.start_head(directory / "head.log")]
        try:
            parts[0].wait()
            with _two_controllers(directory, *engine, variables=ray.ENVIRONMENT) as (owner, other):
                boxes: list[Box] = []
                for name in _MACHINES:
                    machine = machines.add(name)
                    parts.append(ray.start_worker(machine, {LABEL: float(GPUS)}, directory / f"{name}.log"))
                    parts[-1].wait()
                    boxes.append(Box.start(machine, GPUS))
                _join(owner, boxes)
                until(lambda: _placed_by_ray(owner) == _joined(owner), "Ray's machines to have nodes", 180)
                yield Platform(owner=owner, other=other, nodes=_joined(owner))
        finally:
            for part in parts:
                part.kill()


@contextmanager
def _controller(directory: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> Generator[Controller]:
    offline = OFFLINE if alone() else {}  # among machines nothing leads to a registry
    controller = start(directory, *arguments, environment={**offline, **(variables or {})})
    try:
        yield controller
    finally:
        controller.stop(150)


@contextmanager
def _database() -> Generator[str]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as server:
        yield server.make("fal")


@contextmanager
def _two_controllers(
    directory: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> Generator[tuple[Controller, Controller]]:
    key = directory / "master.key"
    key.write_text("bWFzdGVyLWtleS1vZi10d28tY29udHJvbGxlcnMtMDE=\n")
    key.chmod(0o600)
    words = ("--standby", "--content-dir", str(directory / "content"), *arguments)
    with _database() as url:
        shared = {**(variables or {}), "FAL_DATABASE_URL": url, "FAL_MASTER_KEY_FILE": str(key)}
        with (
            _controller(directory / "first", *words, variables=shared) as first,
            _controller(directory / "second", *words, variables=shared) as second,
        ):
            until(lambda: f"at {first.host}" in second.fal("status", check=False).stdout, "the second one to wait")
            yield first, second


def _one(controller: Controller) -> Platform:
    [node] = json.loads(controller.fal("runners", "nodes", "--json").stdout)["nodes"]
    return Platform(owner=controller, other=controller, nodes=frozenset({node["name"]}))


def _join(controller: Controller, boxes: Sequence[Box]) -> None:
    for box in boxes:
        controller.fal("node", "join", f"{box.machine.address}:{PORT}", stdin=f"{box.token}\n".encode())


def _joined(controller: Controller) -> frozenset[str]:
    listed = json.loads(controller.fal("node", "list", "--json").stdout)["nodes"]
    return frozenset(node["name"] for node in listed)


def _placed_by_ray(controller: Controller) -> frozenset[str]:
    known = json.loads(controller.fal("status", "--json").stdout)["ray"]["nodes"]
    return frozenset(each["node"] for each in known if each["node"])
