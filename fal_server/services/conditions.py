"""Reads the values of what notices tell of."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta

from fal_server.core.apps import App
from fal_server.core.identity import AccountId
from fal_server.core.notices import LEAST_REQUESTS, RECENT, NoticeCondition, Reading
from fal_server.core.runners import Runner
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher
from fal_server.live.fleet import Fleet
from fal_server.live.request_totals import AppTotals, RequestTotals
from fal_server.ports import Clock
from fal_server.ports.notices import ControllerHealth

log = logging.getLogger(__name__)
# The longest delay between two starts, and twice a usual startup_timeout: after that nobody tries any more.
_STILL_FAILING = timedelta(minutes=30)
_LOST_AFTER = timedelta(minutes=1)
_MOST_ENDED = 1000
_NO_MEMORY = "ran out of memory"  # what fal_runner.shim.memory says


class Conditions:
    """Reads values from what the controller knows; at rest it costs nothing."""

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        totals: RequestTotals,
        controller: ControllerHealth,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._totals = totals
        self._controller = controller
        self._clock = clock
        self._away_since: dict[str, datetime] = {}

    async def read(self, account: AccountId, wanted: AbstractSet[NoticeCondition]) -> list[Reading]:
        """Return the values of some conditions of an account. One without a value is left out."""
        found: list[Reading] = []
        apps = [app for app in self._catalog.apps if app.account == account]
        if wanted & {NoticeCondition.STARTUP_FAILURE, NoticeCondition.STARTUP_TIMEOUT}:
            found += self._failed_starts(apps)
        if NoticeCondition.OUT_OF_MEMORY in wanted:
            found += _without_memory(await self._ended(account))
        if NoticeCondition.QUEUE_SIZE in wanted:
            found += self._queues(apps)
        if NoticeCondition.ERROR_SHARE in wanted:
            found += _error_shares(self._totals.last_minute(account, self._clock.now()))
        if NoticeCondition.DISK_FULL in wanted:
            found += await self._disk()
        if NoticeCondition.NODE_LOST in wanted:
            found += [
                Reading(
                    condition=NoticeCondition.NODE_LOST, subject=node, value=1, detail=f"node {node} does not answer"
                )
                for node in self._nodes_lost_for_long()
            ]
        if NoticeCondition.CERTIFICATE in wanted:
            found += self._certificate()
        return [reading for reading in found if reading.condition in wanted]

    def _failed_starts(self, apps: Iterable[App]) -> Iterable[Reading]:
        now = self._clock.now()
        for app in apps:
            for revision_id in dict.fromkeys((app.revision_id, app.next_revision_id)):
                failures = self._fleet.failures(app.app_id, revision_id)
                if failures.count and failures.at is not None and now - failures.at <= _STILL_FAILING:
                    yield Reading(
                        condition=NoticeCondition.STARTUP_TIMEOUT
                        if failures.timed_out
                        else NoticeCondition.STARTUP_FAILURE,
                        subject=str(app.app_id),
                        value=failures.count,
                        detail=f"{failures.count} failed starts in a row; runner {failures.runner_id}: "
                        f"{failures.reason}",
                    )
                    break

    async def _ended(self, account: AccountId) -> list[Runner]:
        since = self._clock.now() - RECENT
        return await self._fleet.page_ended(account, since, None, (since, ""), _MOST_ENDED)

    def _queues(self, apps: Iterable[App]) -> Iterable[Reading]:
        for app in apps:
            waiting = self._dispatcher.load(app).queued
            yield Reading(
                condition=NoticeCondition.QUEUE_SIZE,
                subject=str(app.app_id),
                value=waiting,
                detail=f"{waiting} requests wait for a runner",
            )

    async def _disk(self) -> Iterable[Reading]:
        try:
            used = await self._controller.disk_used_percent()
        except OSError as error:
            log.warning("the disk of the state directory cannot be measured: %s", error)
            return ()
        detail = f"{used:.1f} % of the disk of the state directory is used"
        return (Reading(condition=NoticeCondition.DISK_FULL, subject="controller", value=used, detail=detail),)

    def _nodes_lost_for_long(self) -> list[str]:
        """Return the nodes that are away for a minute. The controller has reached none yet at its start."""
        now = self._clock.now()
        self._away_since = {node: self._away_since.get(node, now) for node in self._controller.lost_nodes()}
        return [node for node, since in self._away_since.items() if now - since >= _LOST_AFTER]

    def _certificate(self) -> Iterable[Reading]:
        ends_at = self._controller.certificate_ends_at()
        if ends_at is None:
            return ()
        days = (ends_at - self._clock.wall()).total_seconds() / 86400
        detail = f"the certificate of the controller ends at {ends_at:%Y-%m-%d %H:%M} UTC"
        return (Reading(condition=NoticeCondition.CERTIFICATE, subject="controller", value=days, detail=detail),)


def _without_memory(ended: Iterable[Runner]) -> Iterable[Reading]:
    starved = [runner for runner in ended if _NO_MEMORY in runner.own_end]
    counts = Counter(str(runner.app_id) for runner in starved)
    last = {str(runner.app_id): runner for runner in starved}
    for app, count in counts.items():
        yield Reading(
            condition=NoticeCondition.OUT_OF_MEMORY,
            subject=app,
            value=count,
            detail=f"{count} runners in 10 minutes; runner {last[app].runner_id}: {last[app].own_end}",
        )


def _error_shares(totals: dict[str, AppTotals]) -> Iterable[Reading]:
    for app, numbers in totals.items():
        every = sum(numbers.ended.values())
        failed = sum(count for (_, code), count in numbers.ended.items() if code >= 500)
        if every >= LEAST_REQUESTS:
            yield Reading(
                condition=NoticeCondition.ERROR_SHARE,
                subject=app,
                value=100 * failed / every,
                detail=f"{failed} of {every} requests in a minute failed with a status of 500 or above",
            )
