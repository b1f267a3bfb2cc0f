"""The events of an app in one form and one order. They are its runners' changes, deploys and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from fal_server.core.apps import App
from fal_server.core.audit import AuditRow
from fal_server.core.history import StateChange
from fal_server.core.identity import AppId
from fal_server.core.names import MAIN, SEPARATOR
from fal_server.core.revisions import Json, Revision
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

    APP = "app"
    AUDIT = "audit"
    REVISION = "revision"
    RUNNER = "runner"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class EventPlace:
    """The position of an event in time order. No two events of an app share one."""

    at: datetime
    origin: Origin
    of: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppChange:
    """An entry of a runner's history. It has its number there, and the runner's current row."""

    change: StateChange
    number: int
    runner: Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """An app's settings and permitted callers before and after a change."""

    old: Mapping[str, Json]
    new: Mapping[str, Json]
    old_auth_mode: str
    new_auth_mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event that is stored with the app's change. No other row tells of it.

    Attributes:
        called: whether a caller's call made the change; if not, the controller did.
        number: in the order of the app's recorded events; 0 until it is stored.
    """

    app_id: AppId
    at: datetime
    category: Category
    called: bool
    reason: str | None = None
    new_revision_id: str | None = None
    old_revision_id: str | None = None
    config: ConfigChange | None = None
    number: int = 0


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
    config: ConfigChange | None = None


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
DEPLOY = "Revisions.RegisterApplication"
_BUILD, _MOVE, _UPDATE = "Revisions.BuildEnvironment", "Apps.SetAlias", "Apps.UpdateApplication"
# Categories of callers' changes to an app, by the action in the audit log. A deploy names its app before the revision
# has an id.
CAUSES: dict[str, Category] = {
    "Apps.RolloutApplication": Category.DEPLOYMENT_ROLLING_STARTED,
    _MOVE: Category.DEPLOYMENT_STARTED,
    DEPLOY: Category.DEPLOYMENT_STARTED,
}
CALLS = (_BUILD, DEPLOY, _MOVE, _UPDATE)
"""The actions that record events."""
_LONGEST_REASON = 1000
# Allow for a small difference between the clocks of two rows.
_SLACK = timedelta(seconds=1)


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


def of_recorded(event: RecordedEvent, calls: Sequence[AuditRow]) -> AppEvent:
    """Return the event of a stored one.

    Args:
        calls: audit rows of the app whose actions are in CALLS.
    """
    return AppEvent(
        place=EventPlace(at=event.at, origin=Origin.APP, number=event.number),
        category=event.category,
        reason=event.reason,
        new_revision_id=event.new_revision_id,
        old_revision_id=event.old_revision_id,
        key_id=_caller_of(event, calls) if event.called else None,
        config=event.config,
    )


def recorded_between(
    before: App | None, after: App, at: datetime, *, called: bool, reason: str = ""
) -> list[RecordedEvent]:
    """Return the events of a change to an app's row.

    Args:
        before: the row until now; None if the app is new, of which its revision tells.
        called: whether a caller's call changes it.
        reason: why the controller gives up a rolling deploy.
    """
    if before is None:
        return []
    coming, target, moved = before.next_revision_id, after.next_revision_id, after.revision_id != before.revision_id
    known = RecordedEvent(
        app_id=after.app_id,
        at=at,
        category=Category.CONFIG_CHANGED,
        called=called,
        new_revision_id=after.revision_id if moved else None,
        old_revision_id=before.revision_id if moved else None,
    )
    deploy = replace(known, old_revision_id=before.revision_id)
    found = list[RecordedEvent]()
    if coming is not None and coming not in (target, after.revision_id):
        why = reason or "a later change of the app replaced it"
        failed = replace(deploy, category=Category.DEPLOYMENT_ROLLING_FAILED, new_revision_id=coming)
        found.append(replace(failed, reason=why[:_LONGEST_REASON]))
    if moved:
        rolled = coming == after.revision_id
        ended = Category.DEPLOYMENT_ROLLING_ENDED if rolled else Category.DEPLOYMENT_RECREATE_APPLIED
        found.append(replace(deploy, category=ended))
    if target is not None and target != coming:
        found.append(replace(deploy, category=Category.DEPLOYMENT_ROLLING_STARTED, new_revision_id=target))
    if (before.scaling, before.auth_mode) != (after.scaling, after.auth_mode):
        config = ConfigChange(
            old=_config(before),
            new=_config(after),
            old_auth_mode=before.auth_mode.value,
            new_auth_mode=after.auth_mode.value,
        )
        found.append(replace(known, config=config))
    return found


def failed_deploy(app_id: AppId, at: datetime, reason: str) -> RecordedEvent:
    """Return the event of a deploy that did not become a revision."""
    return RecordedEvent(
        app_id=app_id, at=at, category=Category.DEPLOYMENT_FAILED, called=True, reason=reason[:_LONGEST_REASON]
    )


def _config(app: App) -> dict[str, Json]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(app.scaling).items()}


def _caller_of(event: RecordedEvent, calls: Sequence[AuditRow]) -> str | None:
    """Return the key of the last possible cause of an event. This is a call before it."""
    if event.category is Category.DEPLOYMENT_FAILED:
        actions = {_BUILD, DEPLOY}
    elif event.new_revision_id is None:
        actions = {_UPDATE}
    else:
        actions = {DEPLOY, _MOVE}
    possible = [
        row
        for row in calls
        if row.entry.at <= event.at + _SLACK
        and row.entry.action in actions
        and (row.entry.action != _MOVE or named_in(row).get("revision") == event.new_revision_id)
    ]
    return max(possible, key=lambda row: row.sequence).entry.key_id if possible else None


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
    """Return the full name of an audit row's app; empty without one."""
    named = named_in(row)
    name, environment = named.get("application_name") or named.get("alias") or "", named.get("environment_name", MAIN)
    return name if environment == MAIN or not name else f"{name}{SEPARATOR}{environment}"


def named_in(row: AuditRow) -> dict[str, str]:
    """Return the fields that an audit row names, with their values."""
    return {
        field: value for field, found, value in (part.partition("=") for part in row.entry.target.split(", ")) if found
    }


def deployer_of(revision: Revision, deploys: list[AuditRow]) -> str | None:
    """Return the key that deployed a revision. It made the app's last deploy before the revision was stored.

    Args:
        deploys: audit rows of the app's deploys.
    """
    started = [row for row in deploys if row.entry.at <= revision.created_at + _SLACK]
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
