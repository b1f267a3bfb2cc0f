"""The queue of `tests/support/queue_app.py`, from the view of a client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.controller import ROOT, Answer, Controller
from tests.support.waiting import until

APP = ROOT / "tests" / "support" / "queue_app.py"


class Queue:
    """The queue of one app, from the view of a client."""

    def __init__(self, controller: Controller, app: str, folder: Path) -> None:
        self.controller = controller
        self.app = app
        self.notes_file = folder / "notes"
        self.gate = folder / "gate"

    def deploy(self, *options: str) -> Queue:
        self.controller.fal("deploy", str(APP), "--app-name", self.app, "--auth", "private", *options)
        return self

    def scale(self, **settings: int) -> None:
        flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        self.controller.fal("apps", "scale", self.app, *flags)

    def call(self, path: str, body: object = None, **options: Any) -> Answer:
        return self.controller.call(path, body, key=self.controller.key, **options)

    def submit(self, word: str, *, query: str = "", headers: dict[str, str] | None = None, **asked: object) -> str:
        answer = self.submitted(word, query=query, headers=headers, **asked)
        assert answer.status == 200, answer.body
        return str(answer.json()["request_id"])

    def submitted(
        self, word: str, *, query: str = "", headers: dict[str, str] | None = None, **asked: object
    ) -> Answer:
        body = {"word": word, "notes": str(self.notes_file)} | asked
        return self.call(f"/queue/local/{self.app}/note{query}", body, headers=headers or {})

    def status(self, request_id: str, query: str = "") -> Answer:
        return self.call(f"/queue/local/{self.app}/requests/{request_id}/status{query}")

    def result(self, request_id: str) -> Answer:
        return self.call(f"/queue/local/{self.app}/requests/{request_id}")

    def state(self, request_id: str) -> str:
        return str(self.status(request_id).json()["status"])

    def finished(self, request_id: str) -> Answer:
        """Wait for the result; return it."""
        until(lambda: self.status(request_id).status == 200, f"request {request_id} is completed")
        return self.result(request_id)

    def about(self, request_id: str) -> dict[str, Any]:
        """Return the output of `fal queue get`."""
        return json.loads(self.controller.fal("queue", "get", self.app, request_id, "--json").stdout)

    def notes(self) -> list[list[str]]:
        """Return the app's records: word, request id, pid."""
        return [line.split() for line in self.notes_file.read_text().splitlines()] if self.notes_file.exists() else []

    def noted(self, word: str, times: int = 1) -> list[str]:
        """Wait until the app gets a request; return its last record."""
        until(lambda: sum(note[0] == word for note in self.notes()) >= times, f"the app is asked {word}")
        return [note for note in self.notes() if note[0] == word][-1]

    def runner_ids(self) -> list[str]:
        listed = json.loads(self.controller.fal("runners", "list", "--json").stdout)["runners"]
        return [runner["runner_id"] for runner in listed if runner["alias"] == self.app]
