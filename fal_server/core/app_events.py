"""The events of an app: its runners' changes, its deploys and its settings, in one form and one order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from fal_server.core.audit import AuditRow
from fal_server.core.history import StateChange
from fal_server.core.names import MAIN, SEPARATOR
from fal_server.core.revisions import Revision
from fal_server.core.runners import Runner, RunnerState, StopCause


class Category(StrEnum):
    """The published kinds of events."""

    RUNNER_PENDING = "runner_pending"
    RUNNER_DOCKER_PULL = "runner_docker_pull"
    RUNNER_SETUP = "runner_setup"
    RUNNER_STARTED = "runner_started"
    RUNNER_DRAINING = "runner_draining"
    RUNNER_STOPPING = "runner_stopping"
    RUNNER_FINISHED = "runner_finished"
    RUNNER_FAILED = "runner_failed"
    RUNNER_STARTUP_FAILURE = "runner_startup_failure"
    DEPLOYMENT_STARTED = "deployment_started"
    DEPLOYMENT_ENDED = "deployment_ended"
    DEPLOYMENT_FAILED = "deployment_failed"
    DEPLOYMENT_ROLLING_STARTED = "deployment_rolling_started"
    DEPLOYMENT_ROLLING_ENDED = "deployment_rolling_ended"
    DEPLOYMENT_ROLLING_FAILED = "deployment_rolling_failed"
    DEPLOYMENT_RECREATE_APPLIED = "deployment_recreate_applied"
    CONFIG_CHANGED = "config_changed"


class Origin(StrEnum):
    """The kind of row that an event comes from.

    Of two events at one time, the later name in the alphabet counts as newer.
    """

    AUDIT = "audit"
    REVISION = "revision"
    RUNNER = "runner"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class EventPlace:
    """The position of an event in time order; no two events of an app share one."""

    at: datetime
    origin: Origin
    of: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppChange:
    """An entry of a runner's history, with its number there, and the runner's current row."""

    change: StateChange
    number: int
    runner: Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class AppEvent:
    """One event; fields that do not apply to its category are None.

    Attributes:
        runner_state: the last state of a runner that failed.
        key_id: the key that caused it.
    """

    place: EventPlace
    category: Category
    runner: Runner | None = None
    reason: str | None = None
    runner_state: RunnerState | None = None
    new_revision_id: str | None = None
    old_revision_id: str | None = None
    key_id: str | None = None


_OF_STATE = {
    RunnerState.FAILURE_DELAY: Category.RUNNER_PENDING,
    RunnerState.PENDING: Category.RUNNER_PENDING,
    RunnerState.DOCKER_PULL: Category.RUNNER_DOCKER_PULL,
    RunnerState.SETUP: Category.RUNNER_SETUP,
    RunnerState.IDLE: Category.RUNNER_STARTED,
    RunnerState.RUNNING: Category.RUNNER_STARTED,
    RunnerState.DRAINING: Category.RUNNER_DRAINING,
    RunnerState.TERMINATING: Category.RUNNER_STOPPING,
}
# Categories of callers' changes to an app, by the action in the audit log. A deploy names its app before the revision
# has an id.
CAUSES: dict[str, Category] = {
    "Apps.RolloutApplication": Category.DEPLOYMENT_ROLLING_STARTED,
    "Apps.SetAlias": Category.DEPLOYMENT_STARTED,
    "Apps.UpdateApplication": Category.CONFIG_CHANGED,
    "Revisions.RegisterApplication": Category.DEPLOYMENT_STARTED,
}
DEPLOY = "Revisions.RegisterApplication"


def of_runner(found: AppChange) -> AppEvent:
    """Return the event of an entry in a runner's history."""
    change, runner = found.change, found.runner
    category, state = _OF_STATE.get(change.state), None
    if category is None:
        category = _end_of(runner)
        if category in (Category.RUNNER_FAILED, Category.RUNNER_STARTUP_FAILURE):
            state = _last_state(runner)
    return AppEvent(
        place=EventPlace(at=change.at, origin=Origin.RUNNER, of=change.runner_id, number=found.number),
        category=category,
        runner=runner,
        reason=change.reason or None,
        runner_state=state,
    )


def of_audit(row: AuditRow) -> AppEvent:
    """Return the event of an audit row whose action is in CAUSES."""
    named = named_in(row)
    return AppEvent(
        place=EventPlace(at=row.entry.at, origin=Origin.AUDIT, number=row.sequence),
        category=CAUSES[row.entry.action],
        new_revision_id=named.get("revision"),
        key_id=row.entry.key_id,
    )


def of_revision(revision: Revision, before: Revision | None, key_id: str | None) -> AppEvent:
    """Return the event of a revision that was built and stored.

    Args:
        before: the app's previous revision.
        key_id: the key that deployed it, if known.
    """
    return AppEvent(
        place=EventPlace(at=revision.created_at, origin=Origin.REVISION, of=revision.revision_id),
        category=Category.DEPLOYMENT_ENDED,
        new_revision_id=revision.revision_id,
        old_revision_id=None if before is None else before.revision_id,
        key_id=key_id,
    )


def app_of(row: AuditRow) -> str:
    """Return the full name of an audit row's app; empty if it names none."""
    named = named_in(row)
    name, environment = named.get("application_name") or named.get("alias") or "", named.get("environment_name", MAIN)
    return name if environment == MAIN or not name else f"{name}{SEPARATOR}{environment}"


def named_in(row: AuditRow) -> dict[str, str]:
    """Return the fields that an audit row names, with their values."""
    return {
        field: value for field, found, value in (part.partition("=") for part in row.entry.target.split(", ")) if found
    }


def deployer_of(revision: Revision, deploys: list[AuditRow]) -> str | None:
    """Return the key that deployed a revision: that of its app's last deploy before it was stored.

    Args:
        deploys: audit rows of the app's deploys.
    """
    # Allow for a small difference between the two clocks.
    started = [row for row in deploys if row.entry.at <= revision.created_at + timedelta(seconds=1)]
    return max(started, key=lambda row: row.sequence).entry.key_id if started else None


def _end_of(runner: Runner) -> Category:
    if runner.failed_starts or runner.stop_cause is StopCause.STARTUP_TIMEOUT:
        return Category.RUNNER_STARTUP_FAILURE
    broken = runner.stop_cause is not None or (runner.own_end and runner.exit_code != 0)
    return Category.RUNNER_FAILED if broken else Category.RUNNER_FINISHED


def _last_state(runner: Runner) -> RunnerState:
    if runner.ready_at is not None:
        return RunnerState.IDLE
    return RunnerState.PENDING if runner.started_at is None else RunnerState.SETUP
