"""Where runners are, what they print, and how they end."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager

from fal.api import RunnerState, SyncServerlessClient
from tests.setups.apps import Deployed
from tests.setups.platform import Platform
from tests.support.controller import BIN, Controller
from tests.support.waiting import until


@contextmanager
def command(controller: Controller, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run a command that goes on until Ctrl-C."""
    process = subprocess.Popen(
        [str(BIN / "fal"), *arguments], env=controller.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def test_a_runner_is_listed_with_its_state_and_its_node(platform: Platform, app: Deployed) -> None:
    runner_id = app.runner()
    for controller in (platform.owner, platform.other):
        listed = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
        [runner] = [each for each in listed if each["alias"] == app.name]
        assert (runner["runner_id"], runner["state"] in {"IDLE", "RUNNING"}) == (runner_id, True)
        assert runner["node"] in platform.nodes
        [line] = [
            line for line in controller.fal("runners", "list", "-o", "wide").stdout.splitlines() if runner_id in line
        ]
        assert runner["node"] in line
    with SyncServerlessClient(host=platform.other.host, api_key=platform.other.key) as client:
        assert client.runners.get(runner_id).state in {RunnerState.IDLE, RunnerState.RUNNING}


def test_lines_reach_a_follower(platform: Platform, app: Deployed) -> None:
    with command(platform.other, "runners", "logs", app.runner(), "--follow") as following:
        assert following.stdout is not None
        for number in range(3):
            word = f"line-{number}"
            app.ask(platform.owner, word)
            assert any(f"asked for {word}" in line for line in following.stdout)


def test_a_command_gets_input_and_gives_its_exit_code(platform: Platform, app: Deployed) -> None:
    words = ("runners", "exec", app.runner(), "--", "sh", "-c", "cat; echo error >&2; exit 42")
    for controller in (platform.owner, platform.other):
        done = controller.fal(*words, stdin=b"\x01input\n", check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("\x01input\n", "error\n", 42)


def test_a_port_of_a_runner_is_reached(platform: Platform, app: Deployed) -> None:
    with command(platform.other, "runners", "port-forward", app.runner(), ":app") as forwarding:
        assert forwarding.stdout is not None
        address = forwarding.stdout.readline().split()[0]
        request = urllib.request.Request(f"http://{address}/", b'{"word": "forwarded"}')
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            assert json.loads(answer.read())["word"] == "forwarded"


def test_stopped_and_killed_runners_are_replaced(platform: Platform, own_app: Deployed) -> None:
    for how in ("stop", "kill"):
        runner_id = own_app.runner()
        platform.other.fal("runners", how, runner_id)
        until(lambda runner_id=runner_id: runner_id not in _ids(platform, own_app), f"the end after {how}")
        shown = json.loads(platform.owner.fal("runners", "get", runner_id, "--json").stdout)
        assert shown["state"] == "TERMINATED"
        answer = own_app.ask(platform.other, how).json()
        assert isinstance(answer, dict)
        assert answer["runner"] == own_app.runner() != runner_id


def test_an_app_is_scaled(platform: Platform, own_app: Deployed) -> None:
    [first] = platform.serving(own_app.name, 1)
    platform.other.fal("apps", "scale", own_app.name, "--min-concurrency", "2")
    both = platform.serving(own_app.name, 2)
    assert first["runner_id"] in {each["runner_id"] for each in both}
    assert {each["node"] for each in both} <= platform.nodes


def _ids(platform: Platform, app: Deployed) -> set[str]:
    return {each["runner_id"] for each in platform.runners(app.name)}
