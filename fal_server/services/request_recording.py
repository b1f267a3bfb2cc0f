"""Stores ended requests: sampled rows, and statistics for each minute."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fal_server.core.faults import Fault
from fal_server.core.identity import AccountId
from fal_server.core.openapi import template_of
from fal_server.core.requests import (
    MINUTE,
    OTHER_ENDPOINTS,
    DirectRequest,
    MinuteKey,
    QueuedTrace,
    RequestRecord,
    RequestStats,
    RequestStatus,
    in_sample,
    minute_of,
)
from fal_server.core.spans import TracedRequest
from fal_server.core.tracing import trace_of
from fal_server.live.catalog import Catalog
from fal_server.live.ended_requests import Ended, EndedRequests
from fal_server.live.fleet import Fleet
from fal_server.live.request_totals import AppTotals, RequestTotals
from fal_server.ports import Clock
from fal_server.ports.requests import RequestStore
from fal_server.services.request_payloads import RequestPayloads

log = logging.getLogger(__name__)
EVERY_SECONDS = 1.0
# The most requests in one transaction, because other writers wait for it.
_MOST_AT_ONCE = 1000
# Callers choose the paths, so their number is limited.
_MOST_ENDPOINTS = 200
_MOST_CHARACTERS = 200
_MOST_KNOWN = 10_000
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


class RequestRecording:
    """Stores the requests in `ended`, in batches.

    Args:
        ended: receives requests at their end.
        share: the share of successful requests that get a row, 0 to 1. All others get one, and all are counted.
        totals: also counts them, for metrics; None counts nothing.
        traced: takes those whose spans are exported; None exports none.
        payloads: stores what the requests sent and got; None stores nothing of it.
        fleet: knows when the runners started that those waited for.
        monotonic: the clock of `DirectRequest`.

    Attributes:
        lost: how many ended requests were not stored, because the database refused them.
    """

    def __init__(
        self,
        ended: EndedRequests,
        store: RequestStore,
        catalog: Catalog,
        clock: Clock,
        share: float = 1.0,
        *,
        totals: RequestTotals | None = None,
        traced: Callable[[Sequence[TracedRequest]], None] | None = None,
        payloads: RequestPayloads | None = None,
        fleet: Fleet | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ended = ended
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._share = share
        self._totals = totals
        self._traced = traced
        self._payloads = payloads
        self._fleet = fleet
        self._monotonic = monotonic
        self._templates: dict[tuple[str, str], str] = {}
        self._endpoints: dict[tuple[str, str], set[str]] = {}
        self._storing = asyncio.Lock()
        self._told_dropped = 0
        self.lost = 0

    async def store(self) -> None:
        """Store the requests that have ended so far. Return when they are stored, or known to be lost."""
        async with self._storing:
            taken = self._ended.take()
            for start in range(0, len(taken), _MOST_AT_ONCE):
                await self._store_some(taken[start : start + _MOST_AT_ONCE])
            self._tell_dropped()
            if self._payloads is not None:
                await self._payloads.store()

    async def _store_some(self, taken: Sequence[Ended]) -> None:
        at, now = self._clock.now(), self._monotonic()
        # This does not run on the event loop, where requests would wait for it.
        records, minutes, totals, traced = await asyncio.to_thread(self._digest, taken, at, now)
        if self._traced is not None and traced:
            self._traced([self._with_start(each) for each in traced])
        if self._totals is not None:
            self._totals.add(totals, at)
        try:
            await self._store.add(records, minutes)
        except Exception as error:
            # There is no second attempt: a backlog for a missing database would grow, and might be counted twice.
            self.lost += len(taken)
            if not isinstance(error, Fault):
                raise
            log.warning("%d requests are missing in the request history: %s", len(taken), error.message)

    def _digest(
        self, taken: Sequence[Ended], at: datetime, now: float
    ) -> tuple[
        list[RequestRecord],
        dict[MinuteKey, RequestStats],
        dict[tuple[AccountId, str], AppTotals],
        list[TracedRequest],
    ]:
        records: list[RequestRecord] = []
        traced: list[TracedRequest] = []
        minutes: dict[MinuteKey, RequestStats] = {}
        ended: Counter[tuple[AccountId, str, str, int]] = Counter()
        begin = end = _BEFORE_ALL
        for each in taken:
            trace: str | None = None
            if isinstance(each, DirectRequest):
                record, trace = self._record(each, at, now), each.trace
            elif isinstance(each, QueuedTrace):
                record, trace = self._named(each.record), each.trace
            else:
                record = self._named(each)
            if trace is not None:
                traced.append(TracedRequest(record=record, trace=trace_of(record.request_id, trace)))
            if not begin <= record.ended_at < end:
                begin = minute_of(record.ended_at)
                end = begin + MINUTE
            key = MinuteKey(record.account, record.app_name, self._bounded(record), begin)
            numbers = minutes.get(key)
            if numbers is None:
                numbers = minutes[key] = RequestStats()
            numbers.add(record)
            ended[record.account, record.app_name, record.method, record.code or 0] += 1
            if in_sample(record.request_id, self._share) or record.status is not RequestStatus.SUCCESS:
                records.append(record)
        totals: dict[tuple[AccountId, str], AppTotals] = {}
        for key, numbers in minutes.items():
            totals.setdefault((key.account, key.app_name), AppTotals()).add(numbers)
        for (account, app_name, method, code), count in ended.items():
            totals[account, app_name].ended[method, code] += count
        return records, minutes, totals, traced

    def _with_start(self, request: TracedRequest) -> TracedRequest:
        """Add when the runner started that a request waited for."""
        record = request.record
        runner = None if self._fleet is None or not record.cold_start else self._fleet.get(record.runner_id or "")
        if runner is None:
            return request
        return replace(request, runner_began_at=runner.created_at, runner_ready_at=runner.ready_at)

    def _record(self, request: DirectRequest, at: datetime, now: float) -> RequestRecord:
        app_id = request.app_id
        revision_id = request.revision_id
        if revision_id is None:
            app = self._catalog.get(app_id)
            revision_id = "" if app is None else app.revision_id
        path = request.path.partition(b"?")[0].decode("utf-8", "replace")
        started = request.started
        return RequestRecord(
            account=app_id.account,
            request_id=request.request_id,
            app_name=str(app_id),
            revision_id=revision_id,
            runner_id=request.runner_id,
            endpoint=self._endpoint(revision_id, path),
            method=request.method.decode("ascii", "replace"),
            key_id=request.key_id,
            queued=False,
            received_at=at - timedelta(seconds=now - request.received),
            started_at=None if started is None else at - timedelta(seconds=now - started),
            ended_at=at - timedelta(seconds=now - request.ended),
            code=request.code,
            error_type=request.error_type,
            bytes_in=request.bytes_in,
            bytes_out=request.bytes_out,
            attempt=0 if started is None else 1,
            cold_start=request.cold_start,
        )

    def _named(self, record: RequestRecord) -> RequestRecord:
        """Replace a queued request's path by its endpoint."""
        record.endpoint = self._endpoint(record.revision_id, record.endpoint.partition("?")[0])
        return record

    def _endpoint(self, revision_id: str, path: str) -> str:
        known = self._templates.get((revision_id, path))
        if known is None:
            revision = self._catalog.known_revision(revision_id)
            template = None if revision is None else template_of(revision.metadata, path)
            known = template or path[:_MOST_CHARACTERS]
            if len(self._templates) >= _MOST_KNOWN:
                self._templates.clear()
            self._templates[revision_id, path] = known
        return known

    def _bounded(self, record: RequestRecord) -> str:
        """Return the endpoint under which a request is counted."""
        app = record.account, record.app_name
        endpoints = self._endpoints.get(app)
        if endpoints is None:
            endpoints = self._endpoints[app] = set()
        if record.endpoint in endpoints:
            return record.endpoint
        if len(endpoints) >= _MOST_ENDPOINTS:
            return OTHER_ENDPOINTS
        endpoints.add(record.endpoint)
        return record.endpoint

    def _tell_dropped(self) -> None:
        if self._ended.dropped > self._told_dropped:
            log.warning(
                "%d requests are missing in the request history: they ended faster than they could be stored",
                self._ended.dropped - self._told_dropped,
            )
            self._told_dropped = self._ended.dropped
