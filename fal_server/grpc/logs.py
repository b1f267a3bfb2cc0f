"""Handlers for logs: pages of stored lines, and streams that follow."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TypeAlias

from fal_grpc.v1 import log_pb2 as pb
from fal_server.core import names
from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.faults import InvalidArgument
from fal_server.core.logs import LogEntry, LogQuery
from fal_server.core.runners import Runner
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import named, optional_time, timestamp
from fal_server.grpc.lines import SOURCES, stored_lines
from fal_server.grpc.streams import closing
from fal_server.services.logs import MOST_CHARACTERS, MOST_ON_A_PAGE, READS_AT_ONCE, Logs

_USUAL_PAGE = 1000
_OLDEST_FIRST = "oldest first"
_ORDERS: dict[int, str] = {
    pb.ListLogsRequest.ORDER_UNSPECIFIED: "newest first",
    pb.ListLogsRequest.ORDER_NEWEST_FIRST: "newest first",
    pb.ListLogsRequest.ORDER_OLDEST_FIRST: _OLDEST_FIRST,
}
_Listing: TypeAlias = "pb.ListLogsRequest | pb.LogSelector"


class LogHandlers:
    """fal.v1.Logs."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def list_logs(self, request: pb.ListLogsRequest, caller: Caller) -> pb.ListLogsResponse:
        """Return one page. Its token contains its end, the number of lines still wanted, and the listing."""
        for number, field in ((request.lines, "lines"), (request.page_size, "page_size")):
            if number < 0:
                raise InvalidArgument(field, f"{field} is {number}: use 0 or more")
        digest = _digest(_without_paging(request))
        after, left = _read_token(request.page_token, digest, "page_token") if request.page_token else (None, None)
        left = (request.lines or None) if left is None else left
        limit = min(request.page_size or _USUAL_PAGE, MOST_ON_A_PAGE)
        query = replace(
            _query(request.selector),
            since=optional_time(request, "since"),
            until=optional_time(request, "until"),
            newest_first=named(request.order, _ORDERS, "order") != _OLDEST_FIRST,
            after=after,
            reads=READS_AT_ONCE,
            limit=limit if left is None else min(limit, left),
        )
        page = await self._logs.page(caller.scope, query)
        fitting = _fitting(page.entries)
        if fitting < len(page.entries):
            page = await self._logs.page(caller.scope, replace(query, limit=fitting))
        left = None if left is None else left - len(page.entries)
        more = page.more and left != 0
        response = pb.ListLogsResponse.FromString(stored_lines(page.entries))
        if more:
            response.next_page_token = write_cursor([page.cursor, left, digest])
            if page.reached is not None:
                response.reached.CopyFrom(timestamp(page.reached))
        return response

    async def follow_logs(self, request: pb.FollowLogsRequest, caller: Caller) -> AsyncGenerator[pb.FollowLogsResponse]:
        """Yield lines as they are written."""
        digest = _digest(request.selector)
        query = replace(_query(request.selector), since=optional_time(request, "since"))
        cursor = _read_token(request.cursor, digest, "cursor")[0] if request.HasField("cursor") else None
        batches = self._logs.follow(caller.scope, query, cursor, from_now=request.WhichOneof("start") is None)
        async with closing(batches) as stream:
            async for batch in stream:
                response = pb.FollowLogsResponse.FromString(stored_lines(batch.entries))
                response.cursor = write_cursor([batch.cursor, None, digest])
                if batch.last:
                    response.runner_ended.CopyFrom(_ended(request.selector.runner_id, batch.runner))
                yield response


def _query(selector: pb.LogSelector) -> LogQuery:
    sources = tuple(named(number, SOURCES, "selector.sources") for number in selector.sources)
    query = LogQuery(sources=sources, search=selector.search or None, request_id=selector.request_id or None)
    match selector.WhichOneof("target"):
        case "runner_id":
            return replace(query, runner_id=names.identifier(selector.runner_id, "selector.runner_id"))
        case "app":
            environment = names.environment_name(selector.app.environment_name, "selector.app.environment_name")
            return replace(query, app_name=names.app_name(selector.app.app, environment, "selector.app.app"))
        case _:
            raise InvalidArgument("selector", "selector names neither a runner nor an app: name one")


def _fitting(entries: Sequence[LogEntry]) -> int:
    """Return how many of these lines fit into a message. The clients' default limit applies, but it is at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.message)
        if size > MOST_CHARACTERS and count:
            return count
    return len(entries)


def _ended(runner_id: str, runner: Runner | None) -> pb.RunnerEnded:
    if runner is None:
        return pb.RunnerEnded(runner_id=runner_id, reason="the runner ended so long ago that no more is known about it")
    return pb.RunnerEnded(
        runner_id=runner_id,
        ended_at=timestamp(runner.ended_at) if runner.ended_at else None,
        exit_code=runner.exit_code,
        reason=runner.reason,
    )


def _without_paging(request: pb.ListLogsRequest) -> pb.ListLogsRequest:
    listing = pb.ListLogsRequest()
    listing.CopyFrom(request)
    listing.ClearField("page_token")
    listing.ClearField("page_size")
    return listing


def _digest(listing: _Listing) -> str:
    """Return a digest that identifies a listing on all its pages. It reveals no secret."""
    return hashlib.sha256(listing.SerializeToString(deterministic=True)).hexdigest()[:16]


def _read_token(token: str, digest: str, field: str) -> tuple[str, int | None]:
    """Return a token's cursor, and the number of lines still wanted.

    Raises:
        InvalidArgument: it is not a token, or belongs to another listing.
    """
    try:
        match read_cursor(token):
            case [str(cursor), None | int() as left, str(of_listing)] if left is None or left > 0:
                pass
            case _:
                raise ValueError(token)
    except ValueError:
        raise InvalidArgument(field, f"this controller did not make that {field}: start again without it") from None
    if of_listing != digest:
        raise InvalidArgument(field, f"{field} belongs to another request: repeat the one that it came from")
    return cursor, left
