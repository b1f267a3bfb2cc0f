"""The history of a real controller: calls, queue, commands and metrics page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.controller import Controller

APP = """
import fal


class Remembered(fal.App):
    keep_alive = 300

    @fal.endpoint("/")
    def root(self, x: int = 0) -> dict:
        print("working on", x)
        if x == 7:
            raise RuntimeError("seven is not allowed")
        return {"x": x}
"""


@pytest.fixture(scope="module")
def deployed(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    path: Path = tmp_path_factory.mktemp("remembered") / "app.py"
    path.write_text(APP)
    controller.fal("deploy", f"{path}::Remembered", "--app-name", "remembered")
    return controller


def test_from_a_failed_call_to_its_log(deployed: Controller) -> None:
    fine = deployed.call("/local/remembered/?x=1", {}, key=deployed.key)
    failed = deployed.call("/local/remembered/?x=7", {}, key=deployed.key)
    assert (fine.status, failed.status) == (200, 500)
    listed = json.loads(deployed.fal("requests", "list", "remembered", "--status", "error", "--json").stdout)
    (found,) = listed["requests"]
    assert found["request_id"] == failed.headers["x-fal-request-id"]
    assert (found["status_code"], found["error_type"]) == (500, "runner_server_error")
    shown = deployed.fal("requests", "get", found["request_id"][:13], "--logs").stdout
    assert "seven is not allowed" in shown
    assert "working on 1" not in shown
    stats = json.loads(deployed.fal("apps", "stats", "remembered", "--json").stdout)["stats"]
    assert sum(each["count"] for each in stats) >= 2
    assert stats[0]["cold_starts"] == 1
    page = deployed.call("/metrics", key=deployed.key)
    families = {family.name: family for family in text_string_to_metric_families(page.body.decode())}
    ended = {
        sample.labels["status"]: sample.value
        for sample in families["fal_requests"].samples
        if sample.labels["application"] == "local/remembered"
    }
    assert ended == {"200": 1, "500": 1}
