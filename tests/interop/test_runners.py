"""The official client's runner commands: lists, logs, stopping, killing, exec, shell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.support.controller import Controller
from tests.support.official import Official
from tests.support.waiting import until


def runners_of(official: Official, app: str) -> list[dict[str, Any]]:
    return [runner for runner in official.json("runners", "list")["runners"] if runner["alias"] == app]


def a_runner(controller: Controller, official: Official, app: str) -> str:
    """Return a runner of an app that has served a request."""
    answer = controller.call(f"/local/{app}", {"text": "the"})
    assert answer.status == 200, answer.body
    return str(runners_of(official, app)[0]["runner_id"])


@pytest.fixture(scope="module")
def ending(official: Official) -> str:
    """Return an app whose runners tests may end."""
    official.fal("deploy", SAMPLES / "tiny.py", "--app-name", "ending", "--auth", "public")
    return "ending"


@covers("runners list", "apps runners")
def test_runners_are_listed(controller: Controller, official: Official, tiny: str) -> None:
    runner_id = a_runner(controller, official, tiny)
    (runner,) = runners_of(official, tiny)
    assert runner["machine_type"] == "XS"
    assert runner["state"] in {"IDLE", "RUNNING"}
    assert runner["replacement"] == "NO_REPLACE"
    assert 0 < runner["expiration_countdown"] <= 120
    assert runner["uptime_seconds"] >= 0
    table = official.fal("runners", "list", "--since", "1h", "--state", "idle", "running").stdout
    assert runner_id in table
    assert "Runners: " in table
    (of_app,) = official.json("apps", "runners", tiny)["runners"]
    assert of_app["runner_id"] == runner_id
    assert official.fal("runners", "list", "--since", "3 days", check=False).returncode == 2


@covers("runners logs")
def test_logs_are_read(controller: Controller, official: Official, tiny: str) -> None:
    runner_id = a_runner(controller, official, tiny)

    def printed() -> list[dict[str, Any]] | None:
        logs = official.json("runners", "logs", runner_id)["logs"]
        return logs if any("echo the" in line["message"] for line in logs) else None

    logs = until(printed, "the line is logged")
    assert {"timestamp", "level", "message"} <= set(logs[0])
    assert all(line["job_id"] == runner_id and line["timestamp"].endswith("Z") for line in logs)
    assert any("setup is done" in line["message"] for line in logs)
    assert "echo the" in official.fal("runners", "logs", runner_id, "--search", "echo", "-n", "+1").stdout
    assert "setup is done" not in official.fal("runners", "logs", runner_id, "--search", "echo").stdout
    assert official.json("runners", "logs", runner_id, "--until", "2000-01-01T00:00:00")["logs"] == []
    missing = official.fal("runners", "logs", "nobody", check=False)
    assert missing.returncode == 1
    assert "nobody" in missing.stdout


@covers("runners logs --follow")
def test_logs_are_followed_to_the_end_of_the_runner(controller: Controller, official: Official, ending: str) -> None:
    runner_id = a_runner(controller, official, ending)
    with official.terminal("runners", "logs", runner_id, "--follow") as following:
        following.wait_for("echo the")
        assert controller.call(f"/local/{ending}", {"text": "later"}).status == 200
        following.wait_for("echo later")
        official.fal("runners", "kill", runner_id)
        assert following.wait() == 0


@covers("runners stop", "runners stop --replace", "runners kill")
@pytest.mark.parametrize("how", [("stop",), ("stop", "--replace"), ("kill",)])
def test_runners_are_ended(controller: Controller, official: Official, ending: str, how: tuple[str, ...]) -> None:
    runner_id = a_runner(controller, official, ending)
    command, *flags = how
    assert official.fal("runners", command, runner_id, *flags).stdout == ""

    def terminated() -> bool:
        listed = official.json("runners", "list", "--since", "1h", "--state", "terminated")["runners"]
        return runner_id in [runner["runner_id"] for runner in listed]

    until(terminated, "the runner is terminated")
    left = runners_of(official, ending)
    assert runner_id not in [runner["runner_id"] for runner in left]
    assert len(left) == (1 if flags else 0)
    again = official.fal("runners", command, runner_id, check=False)
    assert again.returncode == 1
    assert runner_id in again.stdout


@covers("runners exec")
def test_commands_run_inside(controller: Controller, official: Official, tiny: str) -> None:
    runner_id = a_runner(controller, official, tiny)
    script = "import os, sys; print(os.environ['FAL_APP_NAME']); print('err', file=sys.stderr); sys.exit(7)"
    done = official.fal("runners", "exec", runner_id, "--", "python", "-c", script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "tiny\n", "err\n")
    assert official.fal("runners", "exec", "nobody", "--", "true", check=False).returncode == 1


@covers("runners exec -it")
def test_commands_read_a_pipe_or_a_terminal(controller: Controller, official: Official, tiny: str) -> None:
    runner_id = a_runner(controller, official, tiny)
    done = official.fal("runners", "exec", "-it", runner_id, "--", "wc", "-c", stdin=b"x" * 300_000)
    assert done.stdout.strip() == "300000"
    with official.terminal(
        "runners", "exec", "-it", runner_id, "--", "sh", "-c", "stty size; read a; exit $a"
    ) as asked:
        asked.wait_for(r"30 100")
        asked.type("9\n")
        assert asked.wait() == 9


@covers("runners shell")
def test_a_shell_opens(controller: Controller, official: Official, tiny: str) -> None:
    runner_id = a_runner(controller, official, tiny)
    with official.terminal("runners", "shell", runner_id) as shell:
        shell.wait_for("[#$] ")
        shell.type("echo $((6 * 7)) from $FAL_APP_NAME\n")
        shell.wait_for("42 from tiny")
        shell.type("exit 5\n")
        assert shell.wait() == 5


SDK = """
import json, sys
from fal.api import SyncServerlessClient
client = SyncServerlessClient()
runner = next(r for r in client.runners.list() if r.alias == "tiny")
same = client.apps.runners("tiny")[0]
print(json.dumps([runner.runner_id, same.runner_id, runner.state.value, str(runner.machine_type)]))
"""


@covers("SyncServerlessClient().runners")
def test_the_sdk_lists_runners(controller: Controller, official: Official, tiny: str) -> None:
    runner_id = a_runner(controller, official, tiny)
    first, second, state, machine = official.script(SDK)
    assert (first, second, machine) == (runner_id, runner_id, "XS")
    assert state in {"IDLE", "RUNNING"}
