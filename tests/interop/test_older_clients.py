"""Older published clients deploy apps, list them and stop their runners. The oldest uses its own commands."""

from __future__ import annotations

import json
from pathlib import Path

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.support.controller import Controller
from tests.support.official import Official
from tests.support.waiting import until


@covers("older clients (1.20, 1.50, 1.70, 1.80)")
def test_a_deploy_a_call_and_a_runner(controller: Controller, older: tuple[str, Path], tmp_path: Path) -> None:
    version, python = older
    # The first two have only FAL_HOST.
    client = Official(
        python=python, home=tmp_path, host=controller.host, key=controller.key, extra={"FAL_HOST": controller.host}
    )
    app = f"older-{version.replace('.', '-')}"
    client.fal("deploy", f"{SAMPLES / 'old.py'}::OldApp", "--app-name", app, "--auth", "public")
    answer = controller.call(f"/local/{app}/", {"text": "hi"})
    assert (answer.status, answer.json()) == (200, {"text": "hi", "times": 1})
    assert controller.call(f"/local/{app}/", {"text": []}).status == 422
    [runner] = [one for one in client_runners(controller) if one["alias"] == app]
    runner_id = runner["runner_id"]
    assert runner_id in client.fal("runners", "list").stdout
    if version == "1.20":
        client.fal("runners", "kill", runner_id)
    else:
        until(lambda: "echo hi" in client.fal("runners", "logs", runner_id).stdout, "its line is there")
        client.fal("runners", "stop", runner_id)
    until(lambda: all(one["alias"] != app for one in client_runners(controller)), "its runner has ended")


def client_runners(controller: Controller) -> list[dict[str, str]]:
    """Return the runners, as our client lists them."""
    found: list[dict[str, str]] = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    return found
