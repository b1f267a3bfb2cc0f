"""Explains to waiting callers why no runner of an app takes requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.core.apps import App
from fal_server.core.identity import AppId
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.live.catalog import Catalog
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock

_USUAL_SETUP = timedelta(seconds=2)  # a shorter one is over before anybody has read of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Why a request waits, other than for requests ahead of it.

    Value: it never changes.

    Attributes:
        reason: for people.
        next_try_at: when the next attempt starts; None if that does not depend on time alone.
    """

    reason: str
    next_try_at: datetime | None = None


class Delays:
    """Explains why no runner of an app takes requests.

    Cache: it reads the catalog and the fleet.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet, clock: Clock) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._clock = clock

    def not_in_time(self, app_id: AppId, seconds: float) -> str:
        """Return the message for a request that no runner took in time."""
        delay = self.of(app_id) or self.of_setup(app_id)
        why = "" if delay is None else f": {delay.reason}"
        return f"no runner of {str(app_id)!r} took the request within {seconds:g} s{why}"

    def of(self, app_id: AppId) -> Delay | None:
        """Return why an app has no runner. None if one serves, or nothing prevents its start."""
        app = self._catalog.get(app_id)
        if app is None:
            return None
        runners = self._serving(app)
        if any(runner.state is RunnerState.IDLE for runner in runners):
            return None
        if app.scaling.max_concurrency == 0:
            return Delay(reason=f"the app is paused: `fal apps scale {app_id} --max-concurrency 1` wakes it")
        waiting = [runner for runner in runners if runner.not_before is not None]
        failures = self._fleet.failures(app_id, app.revision_id)
        if failures.count:
            starts = "the last start failed" if failures.count == 1 else f"the last {failures.count} starts failed"
            logs = f"; `fal runners logs {failures.runner_id}` shows what it wrote" if failures.runner_id else ""
            next_try_at = min((runner.not_before for runner in waiting if runner.not_before), default=None)
            return Delay(reason=f"{starts}: {failures.reason or 'no reason is known'}{logs}", next_try_at=next_try_at)
        held = next((runner for runner in waiting if runner.state is RunnerState.PENDING), None)
        return None if held is None else Delay(reason=held.reason, next_try_at=held.not_before)

    def of_setup(self, app_id: AppId) -> Delay | None:
        """Return that the setup of an app's only runners takes long. None if it does not, or another runner serves."""
        app = self._catalog.get(app_id)
        runners = [] if app is None else self._serving(app)
        if any(runner.state is RunnerState.IDLE for runner in runners):
            return None
        long_ago = self._clock.now() - _USUAL_SETUP
        for runner in runners:
            if runner.state is RunnerState.SETUP and runner.started_at is not None and runner.started_at < long_ago:
                logs = f"`fal runners logs {runner.runner_id}` shows what it writes"
                return Delay(reason=f"runner {runner.runner_id} is in its setup: {logs}")
        return None

    def _serving(self, app: App) -> list[Runner]:
        """Return the runners that are to serve an app's current revision."""
        return [
            runner
            for runner in self._fleet.of_app(app.app_id)
            if runner.revision_id == app.revision_id and runner.desired is Desired.SERVE
        ]
