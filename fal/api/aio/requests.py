"""`client.requests` for asyncio: how requests to apps ended, and their duration."""

# The source of fal/api/requests.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fal_grpc.adapter.request import RequestRecord, RequestStats, RequestStatus
from fal_grpc.adapter.values import count, duration, text
from fal_grpc.errors import ArgumentError, UnavailableError

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener

FOLLOW_SECONDS = 1.0
"""Seconds between two polls of `follow`."""
_PAGE = 1000
_LONGEST_STEP = timedelta(days=366)


class AsyncRequestsNamespace:
    """The requests that have ended, direct and queued. Use `client.requests`, or `fal requests` on the command line.

    Example:
        async with AsyncServerlessClient() as client:
            for request in await client.requests.list("my-app", status="error", limit=10):
                print(request.request_id, request.status_code, request.error_type, request.duration)
            for stats in await client.requests.stats("my-app"):
                print(stats.count, stats.total and stats.total.p99)
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def list(
        self,
        app: str | None = None,
        *,
        status: RequestStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        runner_id: str | None = None,
        key_id: str | None = None,
        endpoint: str | None = None,
        environment_name: str | None = None,
        limit: int = 100,
    ) -> builtins.list[RequestRecord]:
        """List requests, those that ended last first.

        Args:
            app: only requests to this app; None means all of the account.
            status: only requests with this outcome: "success", "user_error", "error" or "left".
            since: only requests that ended at or after this time; this and `until` are local time if naive.
            until: only requests that ended before this time.
            runner_id: only requests to this runner.
            key_id: only requests made with this key, by its public half.
            endpoint: only requests to this path, as the app describes it.
            environment_name: the app's environment; None means the default one.
            limit: how many at most.

        Raises:
            ArgumentError: the limit is below 1, or the status is unknown. It is a ValueError.
        """
        most = count("limit", limit)
        if most is None or most < 1:
            raise ArgumentError("limit", f"must be 1 or more, not {limit}")
        controller = await self.client.controller()
        found: builtins.list[RequestRecord] = []
        token = ""
        while len(found) < most:
            page = await controller.list_requests(
                app=app,
                environment_name=environment_name,
                status=status,
                since=since,
                until=until,
                runner_id=runner_id,
                key_id=key_id,
                endpoint=endpoint,
                page_size=min(_PAGE, most - len(found)),
                page_token=token,
            )
            found.extend(page.requests)
            token = page.next_page_token
            if not token:
                break
        return found

    async def get(self, request_id: str) -> RequestRecord:
        """Return one request; if the queue ran it again, its last outcome.

        Raises:
            NotFoundError: no such request has ended, or it is no longer kept.
        """
        controller = await self.client.controller()
        return await controller.get_request(text("request_id", request_id))

    async def follow(
        self,
        app: str | None = None,
        *,
        status: RequestStatus | str | None = None,
        since: datetime | None = None,
        environment_name: str | None = None,
    ) -> AsyncGenerator[RequestRecord, None]:
        """Yield requests as they end, each once. Wait if the controller is unreachable for a while.

        Args:
            app: only requests to this app; None means all of the account.
            status: only requests with this outcome.
            since: also requests that ended at or after this time; None starts now.
            environment_name: the app's environment; None means the default one.
        """
        controller = await self.client.controller()
        start = datetime.now(UTC) if since is None else since
        token, reached = "", False
        while True:
            try:
                page = await controller.list_requests(
                    app=app,
                    environment_name=environment_name,
                    status=status,
                    since=start,
                    oldest_first=True,
                    page_size=_PAGE,
                    page_token=token,
                )
            except UnavailableError:
                if not reached:
                    raise
                await asyncio.sleep(FOLLOW_SECONDS)
                continue
            reached = True
            for request in page.requests:
                yield request
            token = page.cursor
            if not page.next_page_token:
                await asyncio.sleep(FOLLOW_SECONDS)

    async def stats(
        self,
        app: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step: timedelta | None = None,
        by_endpoint: bool = False,
        environment_name: str | None = None,
    ) -> builtins.list[RequestStats]:
        """Return statistics of the requests that ended in a span, by app. The span is in whole minutes.

        Args:
            app: only requests to this app; None means each app of the account.
            since: from the minute of this time on; None means an hour ago.
            until: before this time; None means now.
            step: statistics for each interval of this length; None means the whole span as one.
            by_endpoint: statistics for each endpoint instead of one sum.
            environment_name: the app's environment; None means the default one.

        Raises:
            ArgumentError: the step is not in whole minutes. It is a ValueError.
        """
        length = timedelta(0) if step is None else duration("step", step, at_most=_LONGEST_STEP)
        controller = await self.client.controller()
        return await controller.get_request_stats(
            app=app,
            environment_name=environment_name,
            since=since,
            until=until,
            step_seconds=int(length.total_seconds()),
            by_endpoint=by_endpoint,
        )
