"""An app that system tests deploy, roll out and call."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fal.api import RunnerInfo, RunnerState, SyncServerlessClient
from tests.support.controller import Controller
from tests.support.waiting import until

SOURCE = """
import threading
from pathlib import Path

import fal
from fastapi import Response


class Rolled(fal.App, name="rolled", min_concurrency={least}, max_concurrency=3, max_multiplexing=8):
    machine_type = "{machine}"
    startup_timeout = {startup}

    def setup(self):
        print("setup of {version}", flush=True)
        {setup}
        self.well = True

    @fal.endpoint("/")
    def run(self) -> str:
        threading.Event().wait(0.02)
        return "{version}"

    @fal.endpoint("/slow")
    def slow(self) -> str:
        print("slow in {version}", flush=True)
        while not Path("{gate}").exists():
            threading.Event().wait(0.02)
        return "{version}"

    @fal.endpoint("/break")
    def break_it(self, response: Response) -> str:
        self.well = False
        response.headers["x-fal-runner-health-check"] = "1"
        return "broken"

    {check}
    def check(self, response: Response) -> str:
        response.status_code = 200 if self.well else 500
        return "checked"
"""
CHECK = '@fal.endpoint("/check", health_check=fal.HealthCheck(call_regularly=False))'


class Load:
    """Callers that go on until stopped.

    Attributes:
        answers: the count of each answer.
        failures: all answers other than 200.
    """

    def __init__(self, controller: Controller, app: str) -> None:
        self._controller = controller
        self._app = app
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.answers: dict[str, int] = {}
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._over.is_set():
            answer = self._controller.call(f"/local/{self._app}/", {})
            with self._lock:
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {answer.body!r}")
                word = answer.body.decode(errors="replace").strip('"')
                self.answers[word] = self.answers.get(word, 0) + 1

    def stop(self) -> None:
        self._over.set()

    def comes_from(self, version: str) -> None:
        """Wait until this version answers as many requests as run at once."""
        before = self.answers.get(version, 0)
        until(lambda: self.answers.get(version, 0) >= before + 8 or self.failures, f"{version} answers")


@contextmanager
def load_on(controller: Controller, app: str, callers: int = 4) -> Iterator[Load]:
    load = Load(controller, app)
    with ThreadPoolExecutor(callers) as pool:
        work = [pool.submit(load.run) for _ in range(callers)]
        try:
            yield load
        finally:
            load.stop()
    for done in work:
        done.result()


class Rollouts:
    """One app that belongs to the test."""

    def __init__(self, controller: Controller, app: str, directory: Path) -> None:
        self.controller = controller
        self.app = app
        self.source = directory / "rolled.py"
        self.gate = directory / "gate"  # slow requests end when it exists
        self.sdk = SyncServerlessClient(host=controller.host, api_key=controller.key)

    def write(
        self,
        version: str,
        *,
        setup: str = "pass",
        least: int = 1,
        check: bool = False,
        startup: int = 60,
        machine: str = "XS",
    ) -> Path:
        """Write the app's source in a version; startup_timeout in seconds."""
        path = self.source.with_name(f"{version}.py")
        endpoint = CHECK if check else '@fal.endpoint("/check")'
        values = {"version": version, "setup": setup, "least": least, "startup": startup, "machine": machine}
        path.write_text(SOURCE.format(check=endpoint, gate=self.gate, **values))
        return path

    def deploy(self, version: str, *options: str, **source: object) -> str:
        """Deploy a version; return its revision."""
        path = self.write(version, **source)  # type: ignore[arg-type]
        self.controller.fal("deploy", str(path), "--app-name", self.app, "--auth", "public", *options)
        return self.revision()

    def revision(self) -> str:
        [app] = [app for app in self.sdk.apps.list() if app.alias == self.app]
        return app.revision

    def serving(self) -> list[RunnerInfo]:
        wanted = (RunnerState.IDLE, RunnerState.RUNNING)
        return [runner for runner in self.sdk.apps.runners(self.app) if runner.state in wanted]

    def pending(self) -> list[dict[str, str]]:
        """Return the waiting runners of `fal runners list`, with their reasons."""
        listed = json.loads(self.controller.fal("runners", "list", "--output", "json").stdout)
        mine = [r for r in listed["runners"] if r["alias"] == self.app]
        return [r for r in mine if r["state"] == "PENDING" and "room" in r.get("reason", "")]

    def logs(self) -> str:
        """Return the output of its runners."""
        return self.controller.fal("apps", "logs", self.app, check=False).stdout

    def is_rolling(self) -> bool:
        [app] = [app for app in self.sdk.apps.list() if app.alias == self.app]
        return app.is_rolling

    def ended(self, runner_id: str) -> RunnerInfo:
        found = until(
            lambda: found if (found := self.sdk.runners.get(runner_id)).state is RunnerState.TERMINATED else None,
            f"runner {runner_id} ends",
        )
        assert found is not None
        return found
