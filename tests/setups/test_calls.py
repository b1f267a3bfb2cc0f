"""Calls: direct, queued, by the command line, and their history."""

from __future__ import annotations

import json

from tests.setups.apps import Deployed
from tests.setups.platform import Platform
from tests.support.waiting import until


def test_a_deployed_app_answers_through_each_controller(platform: Platform, app: Deployed) -> None:
    found = [app.ask(controller, "hello").json() for controller in (platform.owner, platform.other)]
    assert found == [{"word": "hello", "runner": app.runner()}] * 2


def test_a_queued_request_gets_its_result(platform: Platform, app: Deployed) -> None:
    accepted = platform.owner.call(f"/queue/local/{app.name}", {"word": "later"}, key=platform.owner.key).json()
    assert isinstance(accepted, dict)
    path = f"/queue/local/{app.name}/requests/{accepted['request_id']}"
    key = platform.other.key
    until(lambda: platform.other.call(f"{path}/status", key=key).status == 200, "the end of the request")
    assert platform.other.call(path, key=key).json() == {"word": "later", "runner": app.runner()}


def test_the_command_line_calls_the_app(platform: Platform, app: Deployed) -> None:
    for controller in (platform.owner, platform.other):
        assert json.loads(controller.fal("api", app.name, "word=typed").stdout)["word"] == "typed"


def test_a_call_is_in_the_history(platform: Platform, app: Deployed) -> None:
    request_id = app.ask(platform.owner, "remembered").headers["x-fal-request-id"]
    listed = json.loads(platform.other.fal("requests", "list", app.name, "--json").stdout)["requests"]
    [found] = [each for each in listed if each["request_id"] == request_id]
    assert (found["status_code"], found["runner_id"]) == (200, app.runner())
    words = ("requests", "get", request_id, "--logs")
    until(lambda: "asked for remembered" in platform.other.fal(*words).stdout, "the line of the request")


def test_the_account_of_one_controller_is_that_of_the_other(platform: Platform, app: Deployed) -> None:
    for command in ("apps list", f"apps list-rev {app.name}", "runners list", "keys list", "secrets list"):
        words = (*command.split(), "-o", "name")
        said = platform.owner.fal(*words).stdout
        assert said
        assert platform.other.fal(*words).stdout == said
