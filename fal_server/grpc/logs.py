"""Handlers for logs: pages of stored lines, and streams that follow."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TypeAlias

from fal_grpc.v1 import log_pb2 as pb
from fal_server.core import names
from fal_server.core.faults import InvalidArgument
from fal_server.core.logs import LogEntry, LogQuery
from fal_server.core.runners import Runner
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import named, optional_moment, timestamp
from fal_server.grpc.lines import SOURCES, stored_lines
from fal_server.grpc.streams import closing
from fal_server.services.logs import MOST_CHARACTERS, MOST_ON_A_PAGE, Logs

_USUAL_PAGE = 1000
_OLDEST_FIRST = "oldest first"
_ORDERS: dict[int, str] = {
    pb.ListLogsRequest.ORDER_UNSPECIFIED: "newest first",
    pb.ListLogsRequest.ORDER_NEWEST_FIRST: "newest first",
    pb.ListLogsRequest.ORDER_OLDEST_FIRST: _OLDEST_FIRST,
}
_Asked: TypeAlias = "pb.ListLogsRequest | pb.LogSelector"


class LogHandlers:
    """fal.v1.Logs."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def list_logs(self, request: pb.ListLogsRequest, caller: Caller) -> pb.ListLogsResponse:
        """One page. The token says where it ended, how many lines are still wanted, and of which request it is."""
        for number, field in ((request.lines, "lines"), (request.page_size, "page_size")):
            if number < 0:
                raise InvalidArgument(field, f"{field} is {number}: use 0 or more")
        mark = _mark(_whole(request))
        after, left = _open_token(request.page_token, mark, "page_token") if request.page_token else (None, None)
        left = (request.lines or None) if left is None else left
        limit = min(request.page_size or _USUAL_PAGE, MOST_ON_A_PAGE)
        query = replace(
            _query(request.selector),
            since=optional_moment(request, "since"),
            until=optional_moment(request, "until"),
            newest_first=named(request.order, _ORDERS, "order") != _OLDEST_FIRST,
            after=after,
            limit=limit if left is None else min(limit, left),
        )
        page = await self._logs.page(caller.scope, query)
        fitting = _fitting(page.entries)
        if fitting < len(page.entries):
            page = await self._logs.page(caller.scope, replace(query, limit=fitting))
        left = None if left is None else left - len(page.entries)
        more = page.more and left != 0
        response = pb.ListLogsResponse.FromString(stored_lines(page.entries))
        response.next_page_token = _token(page.cursor, left, mark) if more else ""
        return response

    async def follow_logs(self, request: pb.FollowLogsRequest, caller: Caller) -> AsyncGenerator[pb.FollowLogsResponse]:
        """Lines as they are written."""
        mark = _mark(request.selector)
        query = replace(_query(request.selector), since=optional_moment(request, "since"))
        cursor = _open_token(request.cursor, mark, "cursor")[0] if request.HasField("cursor") else None
        batches = self._logs.follow(caller.scope, query, cursor, from_now=request.WhichOneof("start") is None)
        async with closing(batches) as stream:
            async for batch in stream:
                response = pb.FollowLogsResponse.FromString(stored_lines(batch.entries))
                response.cursor = _token(batch.cursor, None, mark)
                if batch.last:
                    response.runner_ended.CopyFrom(_ended(request.selector.runner_id, batch.runner))
                yield response


def _query(selector: pb.LogSelector) -> LogQuery:
    """Whose lines, and which."""
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
    """How many of these lines a client's usual limit on a message lets through; one at least."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.message)
        if size > MOST_CHARACTERS and count:
            return count
    return len(entries)


def _ended(runner_id: str, runner: Runner | None) -> pb.RunnerEnded:
    if runner is None:
        return pb.RunnerEnded(runner_id=runner_id, reason="the runner ended so long ago that no more is known of it")
    return pb.RunnerEnded(
        runner_id=runner_id,
        ended_at=timestamp(runner.ended_at) if runner.ended_at else None,
        exit_code=runner.exit_code,
        reason=runner.reason,
    )


def _whole(request: pb.ListLogsRequest) -> pb.ListLogsRequest:
    """What must be the same for all pages of a listing."""
    listing = pb.ListLogsRequest()
    listing.CopyFrom(request)
    listing.ClearField("page_token")
    listing.ClearField("page_size")
    return listing


def _mark(asked: _Asked) -> str:
    """Tells whether two requests ask the same; no secret is in it."""
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()[:16]


def _token(cursor: str, left: int | None, mark: str) -> str:
    text = json.dumps([cursor, left, mark], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _open_token(token: str, mark: str, field: str) -> tuple[str, int | None]:
    """What is in a token.

    Raises:
        Invalid: it is none, or belongs to another request.
    """
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        match json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)):
            case [str(cursor), None | int() as left, str(its_mark)] if left is None or left > 0:
                pass
            case _:
                raise ValueError(token)
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidArgument(field, f"{field} was not given out by this controller: begin again without it") from None
    if its_mark != mark:
        raise InvalidArgument(field, f"{field} belongs to another request: repeat the one that it came from")
    return cursor, left
