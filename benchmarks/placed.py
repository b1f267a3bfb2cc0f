"""Measure starts and requests on other machines beside the controller's own. They are namespaces.

In one run, in turns: the first answer of an app without runners, for which a worker waits, on the controller's machine,
on a node, and on one that Ray chose; and requests to a runner on the controller's machine, to one on a node through its
door, and to one on a node of a trusted network.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks._warm_workers import wait_for_workers
from benchmarks.http_hop import Run, load
from tests.cluster.conftest import OFFLINE, PORT, Box
from tests.support import ray
from tests.support.controller import Controller, running, start
from tests.support.machines import Machine, Machines, alone, network
from tests.support.waiting import until

_APP = """
import fal

class Placed(fal.App, name="{name}", keep_alive=600, max_concurrency=1, max_multiplexing=64):
    machine_type = "{label}"
    app_auth = "public"

    @fal.endpoint("/")
    def run(self) -> str:
        return "here"
"""
# Both are as large, and each is offered on one machine alone.
_HERE, _ELSEWHERE = "GPU-HERE", "GPU-FAR"
_OFFERED = ("--gpu", f"{_HERE}=1")
_STARTS = 9
_LOADS = {1: 7, 32: 7}
_HERE_WAY, _NODE_WAY, _RAY_WAY = "here", "on a node", "on a node that Ray chose"
_WAYS = {_HERE_WAY: None, _NODE_WAY: None, _RAY_WAY: 1.15}


def _deploy(controller: Controller, name: str, label: str) -> None:
    source = controller.state_dir / f"{name}.py"
    source.write_text(_APP.format(name=name, label=label))
    controller.fal("deploy", str(source))


def _first_answer(controller: Controller, name: str) -> float:
    """Return the seconds from a request to its answer."""
    since = time.perf_counter()
    answer = controller.call(f"/local/{name}/", {})
    if answer.status != 200:
        raise SystemExit(f"{name}: {answer.body.decode()}")
    return time.perf_counter() - since


def _runners(controller: Controller) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    return listed


def _end_runners(controllers: Sequence[Controller], workers: dict[int, int]) -> None:
    """End the runners, as after keep_alive. Wait for what waits for the next ones."""
    for controller in controllers:
        for runner in _runners(controller):
            controller.fal("runners", "stop", runner["runner_id"])
    until(lambda: not any(_runners(controller) for controller in controllers), "the end of the runners")
    wait_for_workers(workers)


def _node(controller: Controller, machine: Machine) -> Box:
    box = Box.start(machine)
    controller.fal("node", "join", f"{box.machine.address}:{PORT}", stdin=f"{box.token}\n".encode())
    return box


@contextmanager
def _controller(directory: Path, *arguments: str) -> Generator[Controller]:
    controller = start(directory, *arguments, environment={**OFFLINE, **ray.ENVIRONMENT})
    try:
        yield controller
    finally:
        controller.stop(150)


@contextmanager
def _with_ray(directory: Path, machines: Machines) -> Generator[tuple[Controller, Box]]:
    """Run a controller whose only machine is one of a Ray cluster."""
    parts = [ray.start_head(directory / "head.log")]
    try:
        parts[0].wait()
        engine = ("--engine", "ray", "--ray-address", ray.ADDRESS, "--ray-python", str(ray.PYTHON))
        with _controller(directory / "placed", *engine) as controller:
            box = _node(controller, machines.add("placed"))
            parts.append(ray.start_worker(box.machine, {_ELSEWHERE: 1.0}, directory / "ray.log"))
            parts[-1].wait()
            yield controller, box
    finally:
        for part in parts:
            part.kill()


def _measure_starts(ways: dict[str, tuple[Controller, str, int]]) -> dict[str, list[float]]:
    """Take the time of first answers.

    Args:
        ways: the controller, the app, and the pid of the process that keeps a worker waiting for it.
    """
    took: dict[str, list[float]] = defaultdict(list)
    controllers = list({id(controller): controller for controller, _, _ in ways.values()}.values())
    workers = {pid: 1 for _, _, pid in ways.values()}
    for controller, name, _ in ways.values():
        _first_answer(controller, name)
    for number in range(_STARTS):
        _end_runners(controllers, workers)
        order = list(ways.items())
        for way, (controller, name, _) in order if number % 2 else reversed(order):
            took[way].append(_first_answer(controller, name))
    return took


def _measure_requests(controller: Controller, box: Box, further: Machine) -> dict[tuple[str, int], list[Run]]:
    """Load the app here, on the node, and on a trusted network."""
    runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for name in ("near", "far"):
        _first_answer(controller, name)
    trusted = _node(controller, further)
    _deploy(controller, "straight", _ELSEWHERE)  # the other node is full
    _first_answer(controller, "straight")
    own = controller.process.pid
    ways = {"near": [own], "far": [own, box.process.pid], "straight": [own, trusted.process.pid]}
    for connections, rounds in _LOADS.items():
        for number in range(rounds):
            order = list(ways.items())
            for name, pids in order if number % 2 else reversed(order):
                path = f"/local/{name}/".encode()
                runs[name, connections].append(load(controller.port, path, controller.key, connections, pids))
    return runs


def _ratio(of: Sequence[float], to: Sequence[float]) -> float:
    return statistics.median(here / there for here, there in zip(of, to, strict=True))


def _show(took: dict[str, list[float]], runs: dict[tuple[str, int], list[Run]]) -> None:
    print(f"{'first answer, ms':28}{'median':>8}{'least':>8}{'of here':>9}   aim")
    for way, seconds in took.items():
        aim = _WAYS[way]
        ratio = _ratio(seconds, took[_HERE_WAY])
        print(f"{way:28}{statistics.median(seconds) * 1000:8.0f}{min(seconds) * 1000:8.0f}{ratio:9.2f}   {aim or ''}")
    for connections in _LOADS:
        near, far, straight = (runs[name, connections] for name in ("near", "far", "straight"))
        print(f"requests at {connections}: here, through the door, on a trusted network; and the latter two of here")
        for of in ("per_second", "p50_ms", "p99_ms", "cpu_us"):
            values = [statistics.median(run[of] for run in side) for side in (near, far, straight)]
            ratios = [_ratio([run[of] for run in side], [run[of] for run in near]) for side in (far, straight)]
            shown = "".join(f"{value:10,.2f}" for value in values)
            print(f"  {of:12}{shown}   {ratios[0]:.2f} {ratios[1]:.2f}")
    print(f"load {os.getloadavg()[0]:.1f}")


def _measure(directory: Path) -> None:
    with ExitStack() as stack:
        machines = stack.enter_context(network(directory / "machines"))
        further = machines.add("trusted")
        trust = ("--trusted-network", f"{further.address}/32")
        own = stack.enter_context(_controller(directory / "own", *_OFFERED, *trust))
        box = _node(own, machines.add("far"))
        ways = {
            _HERE_WAY: (own, "near", own.process.pid),
            _NODE_WAY: (own, "far", box.process.pid),
        }
        if ray.PYTHON.exists():
            placed, placed_box = stack.enter_context(_with_ray(directory, machines))
            ways[_RAY_WAY] = (placed, "far", placed_box.process.pid)
        else:
            print("Ray is missing, so nothing is placed by it: `make bench-placed` installs it first", file=sys.stderr)
        for controller, name, _ in ways.values():
            _deploy(controller, name, _HERE if name == "near" else _ELSEWHERE)
        _show(_measure_starts(ways), _measure_requests(own, box, further))


def main() -> None:
    """Measure and print, in a network of namespaces."""
    with tempfile.TemporaryDirectory(prefix="fal-placed-") as name:
        if alone():
            _measure(Path(name))
            return
        # The cache gets what the app needs, because machines reach no registry.
        with running(Path(name) / "controller", *_OFFERED) as local:
            _deploy(local, "near", _HERE)
            _first_answer(local, "near")
    command = [sys.executable, "-m", "tests.support.machines", sys.executable, "-m", "benchmarks.placed"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
