"""Incidents of apps that do not start, or end soon."""

from __future__ import annotations

from tests.incidents.conftest import Deploy
from tests.incidents.operator_api import Operator
from tests.support.controller import Controller
from tests.support.waiting import until

_APP = """
import fal

class It(fal.App, name="{name}", keep_alive=300, max_concurrency=1):
    app_auth = "public"
    machine_type = "{machine}"
    requirements = {requirements}
    retry_config = {{"connection_error": {{"retries": 0}}}}

    def setup(self) -> None:
        {setup}

    @fal.endpoint("/")
    def run(self) -> dict:
        {body}
        return {{"done": True}}
"""


def app(
    name: str, *, setup: str = "pass", body: str = "pass", machine: str = "XS", requirements: tuple[str, ...] = ()
) -> str:
    """Return the source of an app."""
    return _APP.format(name=name, setup=setup, body=body, machine=machine, requirements=list(requirements))


def test_a_failing_setup(controller: Controller, operator: Operator, deploy: Deploy) -> None:
    deploy(app("no-weights", setup="open('/models/weights')"))
    assert controller.call("/local/no-weights/", {}).status == 503

    seen = operator.app("no-weights")
    assert (seen.get("activeRunners", 0), seen["failedStarts"]) == (0, 1)
    assert "FileNotFoundError" in seen["lastFailure"]
    assert "/models/weights" in seen["lastFailure"]
    until(
        lambda: "in setup\n    open('/models/weights')" in operator.lines_of_runner(seen["failedRunnerId"]),
        "its line is stored",
    )
    (event,) = operator.events("no-weights", "runner_startup_failure")
    assert event["payload"]["job_id"] == seen["failedRunnerId"]
    assert event["payload"]["state"] == "setup"


def test_a_crash_loop(controller: Controller, operator: Operator, deploy: Deploy) -> None:
    deploy(app("loop", setup="print('no license', flush=True); import os; os._exit(3)"), "--no-scale")
    controller.fal("apps", "scale", "loop", "--min-concurrency", "1")

    def again() -> bool:
        return operator.app("loop").get("failedStarts", 0) >= 2

    until(again, "it has crashed twice")
    seen = operator.app("loop")
    assert seen["lastFailure"] == "worker exited with code 3"
    until(lambda: "no license" in operator.lines_of_runner(seen["failedRunnerId"]), "its line is stored")
    (next_one,) = operator.runners("loop")
    assert next_one["state"] == "FAILURE_DELAY"
    ended = operator.events("loop", "runner_startup_failure")
    assert len({event["payload"]["job_id"] for event in ended}) >= 2
    controller.fal("apps", "delete", "loop", "--yes")


def test_a_wrong_requirement(operator: Operator, deploy: Deploy) -> None:
    deploy(app("wants-much", requirements=("humanize==99.0",)), works=False)

    wrote = operator.lines_of_builds("wants-much")
    assert "humanize==99.0" in wrote
    assert wrote.endswith("your requirements are unsatisfiable.")
    history = operator.platform("/logs/history?app_id=local/wants-much&run_source=grpc-register&level=error", [])
    assert {line["labels"]["source"] for line in history["items"]} == {"build"}
    assert any("humanize==99.0" in line["message"] for line in history["items"])
    (row, *_) = operator.changes("Revisions.BuildEnvironment")
    assert row["target"] == "application_name=wants-much"
    assert row["keyId"]


def test_out_of_memory(controller: Controller, operator: Operator, deploy: Deploy) -> None:
    deploy(app("hungry", machine="TINY", body="held = b'x' * (400 << 20)"))
    assert controller.call("/local/hungry/", {}).status == 503

    (request,) = operator.requests("hungry", status="REQUEST_STATUS_ERROR")
    runner = operator.runner(request["runnerId"])
    why = "machine type TINY with 200 MiB ran out of memory: deploy it with a larger one, such as XS"
    assert why in runner["stateReason"]
    until(lambda: why in operator.lines_of_runner(request["runnerId"]), "its line is stored")
    (event,) = operator.events("hungry", "runner_failed")
    assert event["payload"]["reason"] == runner["stateReason"]
    types = {each["name"]: int(each["memoryBytes"]) for each in operator.ask("Runners.ListNodes")["machineTypes"]}
    assert types["XS"] > 400 << 20 > types["TINY"]


def test_a_bad_revision(controller: Controller, operator: Operator, deploy: Deploy) -> None:
    deploy(app("shop"))
    assert controller.call("/local/shop/", {}).status == 200
    deploy(app("shop", body="{}['price']"))
    assert [controller.call("/local/shop/", {}).status for _ in range(2)] == [500, 500]

    ended: dict[str, set[int]] = {}
    for request in operator.requests("shop"):
        ended.setdefault(request["revisionId"], set()).add(request["statusCode"])
    newest, before = operator.platform("/apps/local/shop/revisions")["revisions"]
    assert newest["is_current"]
    assert ended == {newest["revision_id"]: {500}, before["revision_id"]: {200}}
    deployed = operator.events("shop", "deployment_ended")[0]["payload"]
    assert deployed["new_application_id"] == newest["revision_id"]
    assert controller.key.partition(":")[0] in deployed["actor"]["full_name"]
    failed = operator.requests("shop", status="REQUEST_STATUS_ERROR", page_size=1)[0]
    until(lambda: "KeyError: 'price'" in operator.lines_of_request("shop", failed["requestId"]), "its line is stored")

    operator.ask("Apps.SetAlias", alias="shop", revision=before["revision_id"])
    until(lambda: controller.call("/local/shop/", {}).status == 200, "the revision before serves again")


def test_a_wrong_secret(controller: Controller, operator: Operator, deploy: Deploy) -> None:
    service = "if os.environ['API_TOKEN'] != 'right': raise PermissionError('401: the service refuses API_TOKEN')"
    controller.fal("secrets", "set", "API_TOKEN=right")
    deploy(app("asks-service", body=f"import os\n        {service}"))
    assert controller.call("/local/asks-service/", {}).status == 200
    controller.fal("secrets", "set", "API_TOKEN=wrong")
    controller.fal("apps", "rollout", "asks-service", "--force")
    until(lambda: controller.call("/local/asks-service/", {}).status == 500, "a new runner has the new value")

    failed = operator.requests("asks-service", status="REQUEST_STATUS_ERROR")[0]
    until(
        lambda: "401: the service refuses API_TOKEN" in operator.lines_of_request("asks-service", failed["requestId"]),
        "its line is stored",
    )
    revisions = {request["revisionId"] for request in operator.requests("asks-service")}
    assert revisions == {failed["revisionId"]}, "the code is the same"
    worked = operator.requests("asks-service", status="REQUEST_STATUS_SUCCESS")[0]
    changed = operator.changes("Secrets.SetSecret")[0]
    assert changed["target"].startswith("name=API_TOKEN")
    assert operator.runner(worked["runnerId"])["createdAt"] < changed["at"]
    assert changed["at"] < operator.runner(failed["runnerId"])["createdAt"]
    assert changed["keyId"] == controller.key.partition(":")[0]
