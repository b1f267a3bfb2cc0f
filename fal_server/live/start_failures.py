"""Consecutive failed starts by app and revision, which delay the next start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from fal_server.core.failures import NO_FAILURES, Failures, failure_of, failures_of
from fal_server.core.identity import AppId
from fal_server.core.runners import Runner


class StartFailures:
    """Counts consecutive failed starts. A success resets the count, unless that runner soon ends.

    Cache: `load` rebuilds it from the rows of runners.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[AppId, str], Failures] = {}
        self._before: dict[str, Failures] = {}

    def load(self, runners: Iterable[Runner], must_prove: Callable[[Runner], bool]) -> None:
        """Count the failures in the rows of earlier runners; see core.failures.failures_of."""
        self._failures = failures_of(runners, must_prove)

    def of(self, app_id: AppId, revision_id: str | None) -> Failures:
        """Return the consecutive failed starts of a revision."""
        return self._failures.get((app_id, revision_id or ""), NO_FAILURES)

    def with_one_more(self, runner: Runner) -> int:
        """Return the count with this runner's failed start. An early end undoes the runner's own success."""
        known = self.of(runner.app_id, runner.revision_id)
        return max(known.count, self._before.get(runner.runner_id, NO_FAILURES).count) + 1

    def failed(self, runner: Runner, at: datetime) -> None:
        """Record a failed start; the runner's row already has the count."""
        self._failures[runner.app_id, runner.revision_id] = failure_of(runner, at)

    def succeeded(self, runner: Runner) -> None:
        """Reset the count, because a start succeeded."""
        before = self._failures.pop((runner.app_id, runner.revision_id), None)
        if before is not None:
            self._before[runner.runner_id] = before

    def undo(self, runner: Runner, before: Failures) -> None:
        """Undo a recorded failure that could not be stored."""
        key = (runner.app_id, runner.revision_id)
        self._failures.pop(key, None)
        if before.count:
            self._failures[key] = before

    def ended(self, runner_id: str) -> None:
        """Drop the data about an ended runner."""
        self._before.pop(runner_id, None)

    def forgive(self, app_id: AppId, revision_id: str | None) -> None:
        """Reset the counts of an app, or of one of its revisions."""
        for key in [k for k in self._failures if k[0] == app_id and revision_id in (None, k[1])]:
            del self._failures[key]
