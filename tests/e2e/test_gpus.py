"""Three runners on four GPUs over deploy, crash, reattachment and scale-down. No GPU has two owners."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

from fal.api import NodeInfo, RunnerInfo, SyncServerlessClient
from tests.support.controller import Controller, start
from tests.support.nvml import built_library, environment_of
from tests.support.waiting import until

APP = """
import os
import fal


class OnGpus(fal.App, name="on-gpus", keep_alive=300, min_concurrency=3, max_concurrency=3):
    app_auth = "public"
    machine_type = "GPU-H100"

    @fal.endpoint("/")
    def run(self) -> dict:
        return {"sees": os.environ.get("CUDA_VISIBLE_DEVICES")}
"""
PAIR = APP.replace("on-gpus", "pair").replace("OnGpus", "Pair").replace("min_concurrency=3, max_concurrency=3, ", "")


class Machine:
    """A state directory on a machine with four GPUs, and its controller."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.library = built_library(root)
        self.controller = self._start()

    def _start(self) -> Controller:
        if self.library is None:  # no compiler: fake GPUs are assigned in the same way, but no runner sees them
            return start(self.root / "state", "--gpu", "GPU-H100=4")
        return start(self.root / "state", environment=environment_of(self.library, 4))

    def die_and_come_back(self) -> None:
        self.controller.process.send_signal(signal.SIGKILL)
        self.controller.process.wait()
        self.controller = self._start()

    def look(self) -> tuple[list[RunnerInfo], NodeInfo]:
        with SyncServerlessClient(host=self.controller.host, api_key=self.controller.key) as client:
            return client.runners.list(), client.runners.nodes().nodes[0]

    def owners(self) -> dict[str, str]:
        """Return the owner of each GPU, by both lists, which must agree."""
        runners, node = self.look()
        assert all(count == 1 for count in Counter(gpu for runner in runners for gpu in runner.gpus).values())
        mine = {gpu: runner.runner_id for runner in runners for gpu in runner.gpus}
        shown = {gpu.id: gpu.runner_id for gpu in node.gpus if gpu.held}
        assert mine == shown
        return mine

    def ready(self, app: str, count: int) -> bool:
        runners, _ = self.look()
        return [runner.state.value for runner in runners if runner.alias == app] == ["IDLE"] * count


def test_three_runners_on_four_gpus(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    try:
        _walk(machine, tmp_path)
        assert machine.controller.stop() == 0
    finally:
        if machine.controller.process.poll() is None:
            machine.controller.stop()


def _walk(machine: Machine, folder: Path) -> None:
    (folder / "on_gpus.py").write_text(APP)
    (folder / "pair.py").write_text(
        PAIR.replace('machine_type = "GPU-H100"', 'machine_type = "GPU-H100"\n    num_gpus = 2')
    )
    machine.controller.fal("deploy", str(folder / "on_gpus.py"))
    until(lambda: machine.ready("on-gpus", 3), "three runners")
    before = machine.owners()
    assert len(before) == 3
    status = machine.controller.fal("status").stdout
    assert "4 x GPU-H100, 3 in use" in status
    assert all(gpu in status for gpu in before)
    for gpu, runner in before.items():
        assert gpu in machine.controller.fal("runners", "get", runner).stdout
        shown = machine.controller.fal("runners", "exec", runner, "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES").stdout
        assert shown.strip() == ("" if machine.library is None else gpu)
    wide = machine.controller.fal("runners", "list", "-o", "wide").stdout
    assert all(gpu in wide for gpu in before)

    machine.die_and_come_back()
    assert machine.owners() == before

    # One GPU is left, so a runner with two waits, and reports why.
    machine.controller.fal("deploy", str(folder / "pair.py"))
    with SyncServerlessClient(host=machine.controller.host, api_key=machine.controller.key) as client:
        client.apps.scale("pair", min_concurrency=1)
    until(lambda: "2 x GPU-H100 asked for, 1 free" in _reasons(machine), "the pair is held")
    assert machine.owners() == before

    # Two of three end, and the runner with two gets their GPUs.
    with SyncServerlessClient(host=machine.controller.host, api_key=machine.controller.key) as client:
        client.apps.scale("on-gpus", min_concurrency=1, max_concurrency=1, keep_alive=0)
    until(lambda: machine.ready("pair", 1) and machine.ready("on-gpus", 1), "the pair has its GPUs")
    after = machine.owners()
    assert len(after) == 3
    assert sorted(Counter(after.values()).values()) == [1, 2]
    [kept] = [gpu for gpu, runner in after.items() if before.get(gpu) == runner]
    machine.die_and_come_back()
    assert machine.owners() == after
    assert kept in machine.owners()
    answer = machine.controller.call("/local/on-gpus/", {})
    assert json.loads(answer.body)["sees"] == (None if machine.library is None else kept)


def _reasons(machine: Machine) -> str:
    return "\n".join(runner.state_reason or "" for runner in machine.look()[0])
