"""Incidents of requests that are slow, cut off, refused, or never served."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.incidents.conftest import Deploy
from tests.incidents.operator_api import Operator, seconds, when
from tests.support.controller import Controller
from tests.support.waiting import until

_SOURCE = """
import fal

class Studio(fal.App, name="studio", keep_alive=300, max_concurrency=1):
    app_auth = "{auth}"
    machine_type = "XS"
    request_timeout = {timeout}

    @fal.endpoint("/")
    def run(self) -> dict:
        return {{"done": True}}

    @fal.endpoint("/render")
    def render(self) -> dict:
        import threading
        print("rendering in software, for there is no GPU", flush=True)
        threading.Event().wait(2)
        return {{"done": True}}

    @fal.endpoint("/wait")
    def wait(self) -> dict:
        import threading
        print("waiting for a lock", flush=True)
        threading.Event().wait()
        return {{}}
"""


@pytest.fixture
def studio(controller: Controller, deploy: Deploy) -> Iterator[None]:
    """An app of its own for each test."""
    deploy(_SOURCE.format(auth="public", timeout=3600))
    yield
    controller.fal("apps", "delete", "studio", "--yes")


def test_a_slow_endpoint(controller: Controller, operator: Operator, studio: None) -> None:
    for path in ("/", "/render") * 3:
        assert controller.call(f"/local/studio{path}", {}).status == 200

    stats = operator.ask("Requests.GetRequestStats", application_name="studio", by_endpoint=True)["stats"]
    run = {each["endpoint"]: seconds(each["run"]["p50"]) for each in stats}
    assert max(run, key=lambda endpoint: run[endpoint]) == "/render"
    assert run["/render"] >= 2 * 0.99  # quantiles are within a hundredth
    slow = next(each for each in stats if each["endpoint"] == "/render")
    assert seconds(slow["wait"]["p50"]) < run["/render"] / 2, "it is the app, not the lack of runners"
    request = operator.requests("studio", endpoint="/render")[0]
    until(
        lambda: "rendering in software" in operator.lines_of_request("studio", request["requestId"]),
        "its line is stored",
    )


def test_a_timeout(controller: Controller, operator: Operator, deploy: Deploy) -> None:
    deploy(_SOURCE.format(auth="public", timeout=1))
    assert controller.call("/local/studio/wait", {}).status == 504

    request = operator.requests("studio")[0]
    assert (request["statusCode"], request["errorType"], request["endpoint"]) == (504, "request_timeout", "/wait")
    spent = when(request["endedAt"]) - when(request["startedAt"])
    # Timers count milliseconds.
    assert round(spent / timedelta(milliseconds=1)) >= 1000 * operator.app("studio")["requestTimeout"]
    until(
        lambda: "waiting for a lock" in operator.lines_of_request("studio", request["requestId"]), "its line is stored"
    )
    until(lambda: "stateReason" in operator.runner(request["runnerId"]), "its runner is ended")
    why = operator.runner(request["runnerId"])["stateReason"]
    assert why == f"request {request['requestId']} outlived request_timeout"
    controller.fal("apps", "delete", "studio", "--yes")


def test_a_stuck_queue(controller: Controller, operator: Operator, studio: None) -> None:
    sent = [controller.call(f"/queue/local/studio{path}", {}).json() for path in ("/wait", "/", "/")]
    until(lambda: operator.runners("studio") and operator.runners("studio")[0].get("inFlightRequests"), "one is served")

    assert operator.platform("/apps/local/studio/queue") == {"queue_size": 2}
    why = operator.ask("Apps.ExplainApp", application_name="studio")
    assert why["load"] == {"inFlight": 1, "queued": 2, "eligible": 2}
    assert why["decision"]["arithmetic"] == "3 requests / 1 at once = 3 runners, buffer 0, min 0, max 1: 1"
    (runner,) = operator.runners("studio")
    (lease,) = runner["externalMetadata"]["leases"]
    assert lease["request_id"] == sent[0]["request_id"]
    assert datetime.fromtimestamp(lease["leased_at_epoch"], UTC) < datetime.now(UTC)
    until(
        lambda: "waiting for a lock" in operator.lines_of_request("studio", lease["request_id"]), "its line is stored"
    )

    operator.ask("Runners.KillRunner", runner_id=runner["runnerId"])
    operator.ask("Apps.UpdateApplication", application_name="studio", max_concurrency=2)
    paths = [f"/queue/local/studio/requests/{request['request_id']}" for request in sent[1:]]
    until(lambda: [controller.call(path).status for path in paths] == [200, 200], "the others are served")


def test_an_expired_key(controller: Controller, operator: Operator, deploy: Deploy) -> None:
    deploy(_SOURCE.format(auth="private", timeout=3600))
    at = datetime.now(UTC) + timedelta(seconds=1)
    made = operator.ask("Keys.CreateUserKey", scope="API", alias="the shop's", expires_at=at.isoformat())
    key = f"{made['keyId']}:{made['keySecret']}"
    until(lambda: datetime.now(UTC) > at, "the key expires")

    refused = controller.call("/local/studio/", {}, key=key)
    assert (refused.status, f"key {made['keyId']} has expired" in refused.json()["detail"]) == (401, True)
    (known,) = [each for each in operator.ask("Keys.ListUserKeys")["userKeys"] if each["keyId"] == made["keyId"]]
    assert when(known["expiresAt"]) <= datetime.now(UTC)
    assert known["alias"] == "the shop's"
    assert controller.call("/local/studio/", {}, key=controller.key).status == 200, "the app works"
    controller.fal("apps", "delete", "studio", "--yes")
