"""A runner that exceeds the memory of an operator's machine type. Every output says why it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controller import Controller, running
from tests.support.waiting import until

APP = """
import fal


class Hungry(fal.App, name="hungry", keep_alive=300):
    app_auth = "public"
    machine_type = "tiny"
    retry_config = {"connection_error": {"retries": 0}}

    @fal.endpoint("/")
    def take(self) -> dict:
        held = bytearray(400 << 20)
        for page in range(0, len(held), 4096):
            held[page] = 1
        return {"held": len(held)}
"""
TYPES = """
[TINY]
cpu = 0.5
memory = "200M"
"""
WHY = "machine type TINY with 200 MiB ran out of memory: deploy it with a larger one, such as XS"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    (tmp_path / "types.toml").write_text(TYPES)
    (tmp_path / "hungry.py").write_text(APP)
    with running(tmp_path / "state", "--machine-types", str(tmp_path / "types.toml")) as controller:
        controller.fal("deploy", str(tmp_path / "hungry.py"))
        yield controller


def test_everybody_is_told(controller: Controller) -> None:
    answer = controller.call("/local/hungry/", {})
    assert answer.status == 503
    assert WHY in json.loads(answer.body)["detail"]
    [ended] = json.loads(controller.fal("runners", "list", "--since", "1h", "--json").stdout)["runners"]
    runner = ended["runner_id"]
    assert WHY in ended["reason"]
    assert WHY in controller.fal("runners", "get", runner).stdout
    assert WHY in controller.fal("runners", "logs", runner).stdout
    explained = json.loads(controller.fal("apps", "explain", "hungry", "--json").stdout)["decisions"]
    assert [WHY in decision["reason"] for decision in explained if decision["action"] == "end"] == [True]
    assert "TINY" in controller.fal("runners", "types").stdout

    submitted = json.loads(controller.call("/queue/local/hungry", {}).body)
    path = f"/queue/local/hungry/requests/{submitted['request_id']}"
    until(lambda: json.loads(controller.call(f"{path}/status").body)["status"] == "COMPLETED", "it is given up")
    assert WHY in controller.call(path).body.decode()
    assert WHY in controller.fal("queue", "list", "hungry", "--json").stdout
