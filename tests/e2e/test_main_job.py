"""The usual work with a real controller. It is deploy, call, list, read, enter, stop and kill, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from fal.api import SyncServerlessClient
from fal_grpc.adapter.runner import RunnerState
from fal_runner.process.proc import ProcessInfo, process_info
from tests.support.controller import ROOT, Controller
from tests.support.left_behind import groups, identity
from tests.support.waiting import until

EXAMPLES = ROOT / "examples"


def client(controller: Controller) -> SyncServerlessClient:
    return SyncServerlessClient(host=controller.host, api_key=controller.key)


def runners(controller: Controller, app: str) -> list[dict[str, object]]:
    listed = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    return [runner for runner in listed if runner["alias"] == app]


def processes_of(controller: Controller, runner_id: str) -> list[ProcessInfo]:
    """Return the living processes of a runner's app, without its shim. That stays until the last lines are stored."""
    shim = identity(controller.state_dir, runner_id)["pid"]
    found = [process for process in groups(controller.state_dir)[runner_id] if process.pid != shim]
    assert found
    return found


def alive(processes: list[ProcessInfo]) -> list[ProcessInfo]:
    """Return the processes that have not ended."""
    now = [process_info(process.pid) for process in processes]
    return [
        process
        for process, found in zip(processes, now, strict=True)
        if found is not None and found.alive and found.started_ticks == process.started_ticks
    ]


def deploy(controller: Controller, app: str, example: str = "hello.py", *options: str) -> str:
    """Deploy an example under the test's own name; return its path."""
    controller.fal("deploy", str(EXAMPLES / example), "--app-name", app, "--auth", "public", *options)
    return f"/local/{app}"


def serving(controller: Controller, app: str) -> str:
    path = deploy(controller, app)
    answer = controller.call(path, {"name": app})
    assert answer.status == 200, answer.body
    (runner,) = runners(controller, app)
    return str(runner["runner_id"])


def test_an_app_answers_and_its_runner_is_listed_read_entered_and_stopped(controller: Controller) -> None:
    runner_id = serving(controller, "story")
    (runner,) = runners(controller, "story")
    assert runner["state"] == "IDLE"
    assert runner["machine_type"] == "XS"

    logs = json.loads(controller.fal("runners", "logs", runner_id, "--json").stdout)["logs"]
    assert any("ready after" in line["message"] for line in logs)

    script = "import os, sys; print(os.environ['FAL_APP_NAME']); print('err', file=sys.stderr); sys.exit(7)"
    done = controller.fal("runners", "exec", runner_id, "--", "python", "-c", script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "story\n", "err\n")

    processes = processes_of(controller, runner_id)
    controller.fal("runners", "stop", runner_id)
    with client(controller) as sdk:
        until(lambda: sdk.runners.get(runner_id).state is RunnerState.TERMINATED, "the runner ends")
        assert sdk.runners.get(runner_id).external_metadata["reason"] == "stopped by request"
    assert not alive(processes)

    gone = controller.fal("runners", "stop", runner_id, check=False)
    assert gone.returncode == 1
    assert runner_id in gone.stderr


def test_a_killed_runner_leaves_nothing_and_the_next_request_gets_another(controller: Controller) -> None:
    runner_id = serving(controller, "killed")
    controller.fal("runners", "exec", runner_id, "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
    processes = processes_of(controller, runner_id)
    controller.fal("runners", "kill", runner_id)
    until(lambda: not alive(processes), "everything of the runner is gone")
    assert controller.call("/local/killed", {"name": "x"}).status == 200
    assert [r["runner_id"] for r in runners(controller, "killed")] != [runner_id]


@pytest.mark.parametrize("victim", ["worker", "shim"])
def test_an_app_recovers_from_the_death_of_its(controller: Controller, victim: str) -> None:
    app = f"dies-{victim}"
    runner_id = serving(controller, app)
    shim = json.loads((controller.state_dir / "runners" / runner_id / "shim.json").read_text())["pid"]
    worker = next(child.pid for child in psutil.Process(shim).children())
    processes = processes_of(controller, runner_id)
    os.kill(worker if victim == "worker" else shim, signal.SIGKILL)
    with client(controller) as sdk:
        until(lambda: sdk.runners.get(runner_id).state is RunnerState.TERMINATED, "the end is noticed")
    assert not alive(processes)
    until(lambda: controller.call(f"/local/{app}", {"name": "x"}).status == 200, "the app answers again", 90)


def test_a_stream_comes_bit_by_bit_and_functions_work(controller: Controller) -> None:
    path = deploy(controller, "counting", "stream.py")
    events = controller.call(f"{path}/stream", {"until": 3, "pause_seconds": 0}).body.decode()
    assert events.count("data: ") == 3

    path = deploy(controller, "shouting", "function.py::shout")
    assert controller.call(f"{path}/", {"text": "hi"}).json() == {"text": "HI!"}

    ran = controller.fal("run", str(EXAMPLES / "function.py::report"))
    assert "counts to 1,000,000" in ran.stdout + ran.stderr


def test_secrets_reach_the_runner_and_nothing_else(controller: Controller) -> None:
    value = "Welcome-to-the-planted-value"
    controller.fal("secrets", "set", f"GREETING={value}")
    controller.fal("deploy", str(EXAMPLES / "with_setup.py"), "--app-name", "secretive")
    assert controller.call("/local/secretive/", {"number": 5}).status == 401
    answer = controller.call("/local/secretive/", {"number": 1234567}, key=controller.key)
    assert value in answer.body.decode()
    (runner,) = runners(controller, "secretive")
    controller.fal(
        "runners", "exec", str(runner["runner_id"]), "--", "sh", "-c", "echo $GREETING >&2; test -n $GREETING"
    )
    for path in Path(controller.state_dir).rglob("*"):
        if path.is_file():
            assert value.encode() not in path.read_bytes(), path


def test_a_failing_start_says_why_to_whoever_calls(controller: Controller, tmp_path: Path) -> None:
    source = tmp_path / "broken.py"
    source.write_text(
        "import fal\n\n\nclass Broken(fal.App, name='broken'):\n    machine_type = 'XS'\n\n"
        "    def setup(self):\n        raise RuntimeError('no [weights] here')\n\n"
        "    @fal.endpoint('/')\n    def run(self) -> dict:\n        return {}\n"
    )
    controller.fal("deploy", str(source), "--auth", "public")
    answer = controller.call("/local/broken/", {})
    assert answer.status == 503
    body = answer.json()
    assert isinstance(body, dict)
    assert "fal runners logs" in body["detail"]
    ended = json.loads(controller.fal("runners", "list", "--since", "5m", "--json").stdout)["runners"]
    runner_id = next(r["runner_id"] for r in ended if r["alias"] == "broken" and r["state"] == "TERMINATED")
    assert "no [weights] here" in controller.fal("runners", "logs", runner_id).stdout


def test_what_no_node_can_fit_says_so(controller: Controller, tmp_path: Path) -> None:
    source = tmp_path / "large.py"
    source.write_text(
        "import fal\n\n\nclass Large(fal.App, name='large', min_concurrency=1):\n    machine_type = 'GPU-H100'\n\n"
        "    @fal.endpoint('/')\n    def run(self) -> dict:\n        return {}\n"
    )
    controller.fal("deploy", str(source), "--auth", "public")
    answer = controller.call("/local/large/", {})
    assert answer.status == 503
    assert "GPU-H100" in answer.body.decode()
    (runner,) = runners(controller, "large")
    assert runner["state"] == "PENDING"
    with client(controller) as sdk:
        assert "GPU-H100" in str(sdk.runners.get(str(runner["runner_id"])).external_metadata["reason"])
    controller.fal("apps", "delete", "large")
