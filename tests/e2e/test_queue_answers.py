"""Answers to queued requests with real runners. They decide about retries, and about what happens to the runner."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest

from fal.api import SyncServerlessClient
from fal_grpc.adapter.runner import RunnerState
from tests.support.controller import ROOT, Controller
from tests.support.waiting import until

APP = ROOT / "tests" / "support" / "gateway_app.py"
NAME = "queue-answers"


@pytest.fixture(scope="module")
def app(controller: Controller) -> Generator[Controller]:
    controller.fal("deploy", str(APP), "--app-name", NAME, "--auth", "public")
    yield controller
    controller.fal("apps", "delete", NAME)


@dataclass(frozen=True, kw_only=True)
class Row:
    """An instruction for the app, and its consequences for a request. The request may not be retried.

    Attributes:
        dead: whether the answer asks for a retry.
        ends: why the runner ends; empty if it stays.
    """

    path: str = "/answer"
    answers: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    error_type: str | None = None
    dead: bool = False
    ends: str = ""

    def __str__(self) -> str:
        return "-".join([self.path[1:], str(self.answers), *(f"{k}={v}" for k, v in self.headers.items())])


BROKE, ANSWERED = "it broke the connection of request", "it answered 503 to request"
RETRY, NO_RETRY, STOP = {"x-fal-needs-retry": "1"}, {"x-fal-needs-retry": "0"}, {"x-fal-stop-runner": "1"}
FAILED = "runner_server_error"
ROWS = [
    Row(answers=200),
    Row(answers=404, error_type="bad_request"),
    Row(answers=429, error_type="bad_request"),
    Row(answers=429, headers=RETRY, error_type="bad_request", dead=True),
    Row(answers=404, headers=RETRY, error_type="bad_request"),
    Row(answers=500, error_type=FAILED),
    Row(answers=500, headers=RETRY, error_type=FAILED, dead=True),
    Row(answers=502, error_type=FAILED),
    Row(answers=504, error_type="request_timeout", dead=True),
    Row(answers=504, headers=NO_RETRY, error_type="request_timeout"),
    Row(answers=503, error_type=FAILED, dead=True, ends=ANSWERED),
    Row(answers=503, headers=NO_RETRY, error_type=FAILED, ends=ANSWERED),
    Row(answers=200, headers=STOP, ends="the app asked for it"),
    Row(path="/deaf", answers=504, error_type="request_timeout", dead=True, ends=BROKE),
    Row(path="/die", status=503, error_type="runner_disconnected", dead=True, ends="worker exited with code"),
    Row(path="/half", status=503, error_type="runner_incomplete_response", dead=True, ends=BROKE),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_becomes_of_a_queued_requests_answer(app: Controller, row: Row) -> None:
    asked = {"status": row.answers, "headers": row.headers}
    accepted = app.call(f"/queue/local/{NAME}{row.path}", asked, headers={"X-Fal-No-Retry": "1"}).json()
    assert isinstance(accepted, dict)
    place = f"/queue/local/{NAME}/requests/{accepted['request_id']}"
    until(lambda: app.call(f"{place}/status").status == 200, "the request is completed")

    answer = app.call(place)
    assert (answer.status, answer.headers.get("x-fal-error-type")) == (row.status or row.answers, row.error_type)
    assert "x-fal-stop-runner" not in answer.headers
    assert "x-fal-needs-retry" not in answer.headers
    about = json.loads(app.fal("queue", "get", NAME, accepted["request_id"], "--json").stdout)
    assert (about["attempt"], about["dead"]) == (1, row.dead)

    with SyncServerlessClient(host=app.host, api_key=app.key) as client:
        if row.ends:
            until(lambda: client.runners.get(about["runner_id"]).state is RunnerState.TERMINATED, "the runner ends")
            assert row.ends in str(client.runners.get(about["runner_id"]).external_metadata["reason"])
        else:
            assert client.runners.get(about["runner_id"]).state in (RunnerState.IDLE, RunnerState.RUNNING)
