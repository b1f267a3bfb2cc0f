"""Incidents of the machine: a full disk, or a crash.

The controller's only node is its own machine. So the loss of a node kills controller, shims and workers at once, as by
a power cut, and a new controller starts with what is on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.incidents.operator_api import Operator, when
from tests.support.controller import ROOT, Controller, start
from tests.support.left_behind import kill_everything
from tests.support.waiting import until

_SOURCE = """
import fal

class Steady(fal.App, name="steady", keep_alive=300, max_concurrency=1):
    app_auth = "public"
    machine_type = "XS"

    def setup(self) -> None:
        import threading
        self.released = threading.Event()

    @fal.endpoint("/")
    def run(self) -> dict:
        from pathlib import Path
        if Path("{hold}").exists():
            print("holding", flush=True)
            self.released.wait()
        return {{"done": True}}
"""
_LEFT = 4 << 20


@contextmanager
def up(controller: Controller, place: Path) -> Iterator[Operator]:
    """Deploy an app that holds a request while a file `hold` exists. Stop the controller at the end."""
    try:
        (place / "app.py").write_text(_SOURCE.format(hold=place / "hold"))
        controller.fal("deploy", str(place / "app.py"))
        yield Operator(controller)
    finally:
        if controller.process.poll() is None:
            controller.stop()


def test_a_full_disk(tmp_path: Path) -> None:
    controller = start(tmp_path / "state", program=(str(ROOT / "tests" / "support" / "small_disk.py"),))
    with up(controller, tmp_path) as operator:
        disk = Path(f"/proc/{controller.process.pid}/root{tmp_path}/state/runners")
        free = os.statvfs(disk)
        with (disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, free.f_bavail * free.f_frsize - _LEFT)
        sent = controller.call("/queue/local/steady/", {}).json()
        until(lambda: [each for each in operator.runners("steady") if each.get("stateReason")], "a runner waits")

        (node,) = operator.ask("Runners.ListNodes")["nodes"]
        assert "the disk of " in node["trouble"]
        assert "is full" in node["trouble"]
        (runner,) = operator.runners("steady")
        assert runner["state"] == "PENDING"
        assert node["trouble"] in runner["stateReason"]
        last = operator.ask("Apps.ExplainApp", application_name="steady")["decisions"][-1]
        assert (last["action"], node["trouble"] in last["reason"]) == ("hold", True)
        assert "failedStarts" not in operator.app("steady"), "the app is not blamed"

        (disk / "filler").unlink()
        path = f"/queue/local/steady/requests/{sent['request_id']}"
        until(lambda: controller.call(path).status == 200, "it is served as soon as there is room")


def test_a_lost_node(tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    controller = start(tmp_path / "state")
    with up(controller, tmp_path) as operator:
        sent = controller.call("/queue/local/steady/", {}).json()

        def serving() -> list[str]:
            return [each["runnerId"] for each in operator.runners("steady") if each.get("inFlightRequests")]

        (lost,) = until(serving, "a runner has the request")
        started = when(operator.ask("Apps.ExplainApp", application_name="steady")["knownSince"])
        controller.process.kill()
        controller.process.wait()
        kill_everything(tmp_path / "state")

    (tmp_path / "hold").unlink()
    controller = start(tmp_path / "state")
    with up(controller, tmp_path) as operator:
        why = operator.ask("Apps.ExplainApp", application_name="steady")
        assert when(why["knownSince"]) > started, "the controller was started again"
        runner = operator.runner(lost)
        assert runner["stateReason"] == "it was gone when the controller came back"
        assert "exitCode" not in runner
        (event,) = operator.events("steady", "runner_failed")
        assert event["payload"]["job_id"] == lost
        assert "failedStarts" not in operator.app("steady"), "the app is not blamed"

        path = f"/queue/local/steady/requests/{sent['request_id']}"
        until(lambda: controller.call(path).status == 200, "another runner serves the request")
        (request,) = operator.requests("steady")
        assert (request["requestId"], request["attempt"], request["statusCode"]) == (sent["request_id"], 2, 200)
        assert request["runnerId"] != lost
