"""The starts that failed in a row, by app and revision: what the next one has to wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from fal_server.core.failures import NO_FAILURES, Failures, failures_of
from fal_server.core.runners import Runner


class StartFailures:
    """Counts failed starts; a success forgets them, unless the runner that had it ends too soon after it."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], Failures] = {}
        self._before: dict[str, Failures] = {}

    def load(self, runners: Iterable[Runner], must_prove: Callable[[Runner], bool]) -> None:
        """Begin with what the rows of an earlier controller say; see core.failures.failures_of."""
        self._failures = failures_of(runners, must_prove)

    def of(self, app_name: str, revision_id: str | None) -> Failures:
        """Those of a revision."""
        return self._failures.get((app_name, revision_id or ""), NO_FAILURES)

    def with_one_more(self, runner: Runner) -> int:
        """How many there are in a row when this runner's start failed; an early end undoes its own success."""
        known = self.of(runner.app_name, runner.revision_id)
        return max(known.count, self._before.get(runner.runner_id, NO_FAILURES).count) + 1

    def failed(self, runner: Runner, at: datetime) -> None:
        """A start failed; the runner says how many did in a row."""
        failures = Failures(count=runner.failed_starts, at=at, runner_id=runner.runner_id, reason=runner.reason)
        self._failures[runner.app_name, runner.revision_id] = failures

    def succeeded(self, runner: Runner) -> None:
        """A start succeeded, so that others need not wait any more."""
        before = self._failures.pop((runner.app_name, runner.revision_id), None)
        if before is not None:
            self._before[runner.runner_id] = before

    def undo(self, runner: Runner, before: Failures) -> None:
        """What was counted did not come to pass: it could not be stored."""
        key = (runner.app_name, runner.revision_id)
        self._failures.pop(key, None)
        if before.count:
            self._failures[key] = before

    def ended(self, runner_id: str) -> None:
        """A runner has ended."""
        self._before.pop(runner_id, None)

    def forgive(self, app_name: str, revision_id: str | None) -> None:
        """Forget those of an app (of one revision)."""
        for key in [k for k in self._failures if k[0] == app_name and revision_id in (None, k[1])]:
            del self._failures[key]
