"""The API of an operator's program, without the machine. It has a key, the contract over HTTP, and the platform API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.support.controller import Controller


@dataclass
class Operator:
    """Calls a controller's APIs."""

    controller: Controller

    def ask(self, method: str, **request: object) -> Any:
        """Call a method of the contract and return its answer. `Runners.GetRunner` is such a method."""
        answer = self.controller.call(f"/fal.v1.{method.replace('.', '/')}", request, key=self.controller.key)
        assert answer.status == 200, answer.body
        return answer.json()

    def platform(self, path: str, body: object = None) -> Any:
        """Call the platform API and return its answer."""
        answer = self.controller.call(f"/v1/serverless{path}", body, key=self.controller.key)
        assert answer.status == 200, answer.body
        return answer.json()

    def app(self, name: str) -> Any:
        """Return an app from the list of apps."""
        return next(app for app in self.ask("Apps.ListAliases")["aliases"] if app["alias"] == name)

    def runner(self, runner_id: str) -> Any:
        """Return a runner, living or ended."""
        return self.ask("Runners.GetRunner", runner_id=runner_id)["runner"]

    def runners(self, app: str) -> list[Any]:
        """Return the living and pending runners of an app."""
        return self.ask("Runners.ListAliasRunners", alias=app, list_pending=True).get("runners", [])

    def requests(self, app: str, **chosen: object) -> list[Any]:
        """Return ended requests to an app, the latest first."""
        return self.ask("Requests.ListRequests", application_name=app, **chosen).get("requests", [])

    def lines_of_runner(self, runner_id: str) -> str:
        """Return the lines of a runner and about it."""
        return self._lines({"runner_id": runner_id})

    def lines_of_request(self, app: str, request_id: str) -> str:
        """Return the lines of a request."""
        return self._lines({"app": {"app": app}, "request_id": request_id})

    def lines_of_builds(self, app: str) -> str:
        """Return the lines of an app's builds."""
        return self._lines({"app": {"app": app}, "sources": ["SOURCE_BUILD"]})

    def _lines(self, selector: object) -> str:
        found = self.ask("Logs.ListLogs", selector=selector, order="ORDER_OLDEST_FIRST")
        return "\n".join(entry["message"] for entry in found.get("entries", []))

    def events(self, app: str, *categories: str) -> list[Any]:
        """Return the events of an app, the latest first."""
        return self.platform(f"/apps/local/{app}/events?limit=1000&category={','.join(categories)}")["events"]

    def changes(self, action: str) -> list[Any]:
        """Return the changes from the audit log, the latest first."""
        return [row for row in self.ask("Audit.ListAuditEntries")["entries"] if row["action"] == action]


def when(text: str) -> datetime:
    """Return a time of an answer."""
    return datetime.fromisoformat(text)


def seconds(text: str) -> float:
    """Return a duration of an answer."""
    return float(text.removesuffix("s"))
