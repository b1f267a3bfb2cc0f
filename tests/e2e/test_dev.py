"""`fal dev` with a real controller. Edits are served, mistakes are shown, and nothing is left."""

from __future__ import annotations

import json
import signal

import pytest

from tests.support.dev import Dev

APP = """
import fal
import dev_helper
from dev_helper import VALUE


class Tried(fal.App, name="{name}"):
    def setup(self) -> None:
        if hasattr(dev_helper, "FAILS"):
            raise OSError(dev_helper.FAILS)

    @fal.endpoint("/")
    def answer(self) -> dict[str, int]:
        print("answering", VALUE)
        return {{"value": VALUE}}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "dev_helper.py").write_text("VALUE = 1\n")
    return tmp_path


@pytest.fixture
def dev(controller, place, request):
    started: list[Dev] = []
    name = f"tried-{abs(hash(request.node.name)) % 10**6}"

    def start(*arguments: str, app: str = APP) -> Dev:
        (place / "app.py").write_text(app.format(name=name))
        started.append(Dev(f"{name}-dev", place, controller.environment, "app.py", *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.stop()


def value(controller, dev):
    answer = controller.call(f"/local/{dev.name}/", {})
    assert answer.status == 200, answer.body
    return answer.json()["value"]


def test_an_edit_is_served_and_a_mistake_is_shown_while_the_version_before_serves(controller, dev, place):
    running = dev()
    assert f"/local/{running.name}/" in running.until("to call it")
    running.until("Watching 2 files")
    assert value(controller, running) == 1
    running.until("answering 1")

    (place / "dev_helper.py").write_text("VALUE = 2\n")
    running.until("dev_helper.py edited")
    running.until("ready after")
    assert value(controller, running) == 2

    (place / "dev_helper.py").write_text("VALUE = \n")
    assert f"{place / 'dev_helper.py'}, line 1: SyntaxError" in running.until("Error:")
    running.until("The previous version keeps serving.")
    assert value(controller, running) == 2

    (place / "dev_helper.py").write_text("VALUE = 3\nFAILS = 'no weights'\n")
    running.until("OSError: no weights")
    assert "OSError" in running.until("Error:")
    running.until("The previous version keeps serving.")
    assert value(controller, running) == 2

    (place / "dev_helper.py").write_text("VALUE = 4\n")
    running.until("ready after")
    assert value(controller, running) == 4

    assert running.stop() == 130
    assert f"{running.name} has ended." in running.lines[-1]
    assert running.name not in controller.fal("apps", "list", "--json").stdout
    assert running.name not in controller.fal("runners", "list", "--json").stdout
    assert running.name not in controller.fal("apps", "list-rev", "--json").stdout


def test_an_app_that_cannot_be_loaded_is_served_once_it_can(controller, dev, place):
    (place / "dev_helper.py").write_text("VALEU = 1\n")
    running = dev()
    running.until("cannot import name 'VALUE'")
    running.until("Nothing is served until the next edit.")
    (place / "dev_helper.py").write_text("VALUE = 1\n")
    running.until("Watching")
    assert value(controller, running) == 1
    assert running.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert running.name not in controller.fal("apps", "list", "--json").stdout


def test_an_app_that_fails_to_start_is_served_once_it_starts(controller, dev, place):
    (place / "dev_helper.py").write_text("VALUE = 1\nFAILS = 'no weights'\n")
    running = dev()
    running.until("OSError: no weights")
    running.until("Nothing is served until the next edit.")
    (place / "dev_helper.py").write_text("VALUE = 2\n")
    running.until("Watching")
    assert value(controller, running) == 2


def test_a_deployed_app_is_not_replaced(controller, dev, place):
    (place / "app.py").write_text(APP.format(name="deployed"))
    controller.fal("deploy", str(place / "app.py"), "--app-name", "deployed-by-hand")
    before = json.loads(controller.fal("apps", "list", "--json").stdout)
    running = dev("--app-name", "deployed-by-hand")
    running.until("an app 'deployed-by-hand' is deployed already")
    assert running.process.wait(60) == 1
    assert json.loads(controller.fal("apps", "list", "--json").stdout) == before
