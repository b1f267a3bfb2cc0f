"""An app's history: its events, and the outcome of its revisions."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from fal_server.core.app_events import (
    CALLS,
    CAUSES,
    DEPLOY,
    AppEvent,
    Category,
    EventPlace,
    Origin,
    app_of,
    deployer_of,
    of_audit,
    of_recorded,
    of_revision,
    of_runner,
)
from fal_server.core.apps import App
from fal_server.core.audit import AuditRow
from fal_server.core.identity import AppId
from fal_server.core.revisions import Revision
from fal_server.live.catalog import Catalog
from fal_server.ports import Clock, Store
from fal_server.ports.audit import AuditStore

_READ_AT_ONCE = 500
# The published API's limit for the origin of a revision's status.
_DEPLOYS_SHOWN = timedelta(days=30)
_TICK = timedelta(microseconds=1)


class DeployOutcome(StrEnum):
    """The outcome of a deploy."""

    DEPLOYED = "deployed"
    DEPLOYING = "deploying"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionPast:
    """A revision, and the known facts about its deploy; None means unknown.

    Attributes:
        key_id: the key that deployed it.
    """

    revision: Revision
    current: bool
    outcome: DeployOutcome | None
    key_id: str | None


class AppEvents:
    """The use cases of an app's history."""

    def __init__(self, store: Store, audit: AuditStore, catalog: Catalog, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._catalog = catalog
        self._clock = clock

    async def page(
        self,
        app_id: AppId,
        *,
        since: datetime,
        until: datetime,
        categories: Collection[Category],
        before: EventPlace | None,
        limit: int,
    ) -> tuple[Sequence[AppEvent], EventPlace | None]:
        """Return an app's events, newest first, and the next page's position. The position is None at the end.

        Args:
            categories: only these; empty means all.
            before: only those after this position.

        Raises:
            NotFound: there is no such app.
        """
        self._catalog.require(app_id)
        found: list[AppEvent] = []
        while True:
            events = await self._some(app_id, since, until, before, limit + 1)
            for event in events:
                if not categories or event.category in categories:
                    if len(found) == limit:
                        return found, before
                    found.append(event)
                before = event.place
            if len(events) <= limit:
                return found, None

    async def revisions(self, app_id: AppId) -> Sequence[RevisionPast]:
        """Return an app's revisions, newest first.

        Raises:
            NotFound: there is no such app.
        """
        app = self._catalog.require(app_id)
        revisions = await self._store.list_revisions(app_id.account, str(app_id), None)
        now = self._clock.now()
        deploys = _deploys(await self._calls(app_id, now - _DEPLOYS_SHOWN))
        ready, failed = await self._starts(app_id, now)
        past: list[RevisionPast] = []
        for revision in revisions:
            recent = revision.created_at >= now - _DEPLOYS_SHOWN
            past.append(
                RevisionPast(
                    revision=revision,
                    current=revision.revision_id == app.revision_id,
                    outcome=_outcome(app, revision.revision_id, ready, failed) if recent else None,
                    key_id=deployer_of(revision, deploys) if recent else None,
                )
            )
        return past

    async def _some(
        self, app_id: AppId, since: datetime, until: datetime, before: EventPlace | None, limit: int
    ) -> list[AppEvent]:
        """Return the newest events after a position, at most `limit`."""
        of_runners = await self._store.app_changes(
            app_id, since, _until(until, before, Origin.RUNNER), _exact(before, Origin.RUNNER), limit
        )
        revisions = await self._store.list_revisions(app_id.account, str(app_id), None)
        calls = await self._calls(app_id, since)
        deploys = _deploys(calls)
        registered = [
            of_revision(revision, older, deployer_of(revision, deploys))
            for revision, older in pairwise([*revisions, None])
            if revision is not None and since <= revision.created_at < until
        ]
        recorded = await self._store.recorded_events(
            app_id, since, _until(until, before, Origin.APP), _numbered(before, Origin.APP), limit
        )
        caused = [of_audit(row) for row in await self._caused(app_id, since, until, before, limit)]
        runs = (
            [of_runner(found) for found in of_runners],
            sorted(registered, key=_place, reverse=True),
            caused,
            [of_recorded(event, calls) for event in recorded],
        )
        behind = (event for event in heapq.merge(*runs, key=_place, reverse=True) if _is_behind(event, before))
        return [event for event, _ in zip(behind, range(limit), strict=False)]

    async def _caused(
        self, app_id: AppId, since: datetime, until: datetime, before: EventPlace | None, limit: int
    ) -> list[AuditRow]:
        """Return rows of the audit log about an app, newest first."""
        end = _until(until, before, Origin.AUDIT)
        place = _numbered(before, Origin.AUDIT)
        found: list[AuditRow] = []
        while len(found) < limit:
            rows = await self._audit.of_actions(app_id.account, CAUSES, since, end, place, _READ_AT_ONCE)
            found += [row for row in rows if app_of(row) == str(app_id)]
            if len(rows) < _READ_AT_ONCE:
                break
            place = (rows[-1].entry.at, rows[-1].sequence)
        return found[:limit]

    async def _calls(self, app_id: AppId, since: datetime) -> list[AuditRow]:
        """Return the audit rows that caused events. A deploy may have started an hour before its revision's event."""
        place: tuple[datetime, int] | None = None
        found: list[AuditRow] = []
        while True:
            rows = await self._audit.of_actions(
                app_id.account, CALLS, since - timedelta(hours=1), self._clock.wall() + _TICK, place, _READ_AT_ONCE
            )
            found += [row for row in rows if app_of(row) == str(app_id)]
            if len(rows) < _READ_AT_ONCE:
                return found
            place = (rows[-1].entry.at, rows[-1].sequence)

    async def _starts(self, app_id: AppId, now: datetime) -> tuple[set[str], set[str]]:
        """Return the revisions with a ready runner, and those with failed starts. Only kept runners count."""
        runners = [
            runner
            for runner in await self._store.list_runners(app_id.account, now - _DEPLOYS_SHOWN)
            if runner.app_id == app_id
        ]
        ready = {runner.revision_id for runner in runners if runner.ready_at is not None}
        return ready, {runner.revision_id for runner in runners if runner.failed_starts} - ready


def _outcome(app: App, revision_id: str, ready: set[str], failed: set[str]) -> DeployOutcome | None:
    if revision_id == app.next_revision_id:
        return DeployOutcome.DEPLOYING
    if revision_id == app.revision_id or revision_id in ready:
        return DeployOutcome.DEPLOYED
    return DeployOutcome.FAILED if revision_id in failed else None


def _place(event: AppEvent) -> EventPlace:
    return event.place


def _is_behind(event: AppEvent, before: EventPlace | None) -> bool:
    return before is None or event.place < before


def _until(until: datetime, before: EventPlace | None, origin: Origin) -> datetime:
    """Return the end of an origin's rows after a position. Rows of the same time may follow."""
    if before is None:
        return until
    return min(until, before.at + _TICK if origin <= before.origin else before.at)


def _deploys(calls: Sequence[AuditRow]) -> list[AuditRow]:
    return [row for row in calls if row.entry.action == DEPLOY]


def _numbered(before: EventPlace | None, origin: Origin) -> tuple[datetime, int] | None:
    return None if before is None or before.origin is not origin else (before.at, before.number)


def _exact(before: EventPlace | None, origin: Origin) -> tuple[datetime, str, int] | None:
    return None if before is None or before.origin is not origin else (before.at, before.of, before.number)
