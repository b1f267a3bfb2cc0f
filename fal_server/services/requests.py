"""The request history: ended requests, a single one, and an app's statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import AppId, Scope
from fal_server.core.requests import RequestPage, RequestQuery, RequestRecord, RequestStats
from fal_server.live.catalog import Catalog
from fal_server.ports import Clock
from fal_server.ports.requests import RequestStore
from fal_server.services.request_recording import RequestRecording

MOST_ON_A_PAGE = 1000
_USUAL_PAGE = 100
USUAL_SPAN = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
# The most rows of statistics in a response.
MOST_STEPS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsOfSpan:
    """Statistics of an app's or endpoint's requests that ended in a span.

    Attributes:
        app_name: with the environment's suffix.
        endpoint: None for all endpoints together.
    """

    app_name: str
    endpoint: str | None
    since: datetime
    until: datetime
    stats: RequestStats


class Requests:
    """The use cases of the request history. A call's result includes all requests that ended before it."""

    def __init__(self, store: RequestStore, recording: RequestRecording, catalog: Catalog, clock: Clock) -> None:
        self._store = store
        self._recording = recording
        self._catalog = catalog
        self._clock = clock

    async def page(self, scope: Scope, query: RequestQuery) -> RequestPage:
        """Return requests of the caller's account, those that ended last first.

        Args:
            query: a limit of 0 means the default.

        Raises:
            InvalidArgument: the limit is out of range, or the cursor is foreign.
            NotFound: neither the app nor any request to it exists.
        """
        if not 0 <= query.limit <= MOST_ON_A_PAGE:
            raise InvalidArgument("page_size", f"page_size is {query.limit}: give 1 to {MOST_ON_A_PAGE}")
        await self._recording.store()
        page = await self._store.page(scope.account, replace(query, limit=query.limit or _USUAL_PAGE))
        if not page.records:
            self._require(scope, query.app_name)
        return page

    async def get(self, scope: Scope, request_id: str) -> RequestRecord:
        """Return a request; if the queue ran it again, its last end.

        Raises:
            NotFound: no such request has ended, or it is too old, or it is not in the sample.
        """
        await self._recording.store()
        found = await self._store.page(scope.account, RequestQuery(request_id=request_id, limit=1))
        if not found.records:
            raise NotFound(
                f"request {request_id[:80]!r}",
                "none has ended that is kept; `fal requests list` shows which are, and `fal queue list` which wait",
            )
        return found.records[0]

    async def stats(
        self,
        scope: Scope,
        app_name: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step: timedelta | None = None,
        by_endpoint: bool = False,
    ) -> Sequence[StatsOfSpan]:
        """Return statistics of requests that ended in a span, by app. They are in whole minutes, oldest first.

        Args:
            app_name: with the environment's suffix; None for each app of the account.
            since: an hour ago if None.
            until: now if None.
            step: a row for each interval of this length, in whole minutes; None for the whole span as one.
            by_endpoint: a row for each endpoint.

        Raises:
            InvalidArgument: the span is empty, or has too many steps.
            NotFound: neither the app nor any request to it exists.
        """
        last = until or self._clock.now()
        first = _floor(since or last - USUAL_SPAN)
        length = last - first if step is None else step
        if last <= first:
            raise InvalidArgument("until", "until is not after since: nothing can have ended in between")
        if step is not None and (step < MINUTE or step % MINUTE):
            raise InvalidArgument("step_seconds", "step_seconds is not whole minutes: give 60, or a multiple of it")
        if (last - first) / length > MOST_STEPS:
            raise InvalidArgument("step_seconds", f"this gives more than {MOST_STEPS} steps: give longer ones")
        await self._recording.store()
        found: dict[tuple[int, str, str | None], RequestStats] = {}
        for key, numbers in await self._store.minutes(scope.account, app_name, first, last):
            place = ((key.at - first) // length, key.app_name, key.endpoint if by_endpoint else None)
            found.setdefault(place, RequestStats()).merge(numbers)
        if not found:
            self._require(scope, app_name)
        return [
            StatsOfSpan(
                app_name=app,
                endpoint=endpoint,
                since=first + number * length,
                until=min(last, first + (number + 1) * length),
                stats=stats,
            )
            for (number, app, endpoint), stats in found.items()
        ]

    def _require(self, scope: Scope, app_name: str | None) -> None:
        """Refuse a name that no app has. An empty result would mean that it had no requests."""
        if app_name:
            self._catalog.require(AppId.parse(scope.account, app_name))

    async def settle(self) -> None:
        """Store the requests that have ended so far."""
        await self._recording.store()

    async def forget(self, age: timedelta) -> int:
        """Delete requests that ended longer ago than this; return how many."""
        return await self._store.forget(self._clock.now() - age)


def _floor(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
