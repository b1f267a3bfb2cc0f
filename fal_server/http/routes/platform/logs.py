"""Log lines in the platform API. They come as pages of old ones, and as a stream."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import Principal
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.http.routes.event_stream import event, event_stream
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.line_events import line_events
from fal_server.http.routes.parameters import number, one_of
from fal_server.http.routes.platform.queries import iso, own_apps, span
from fal_server.http.server.json_body import json_array
from fal_server.ports import Clock
from fal_server.services.log_search import LabelRule, LogChoice, LogSearch, labels_of

_MOST_RULES = 50
_LEVELS = {**{level.value.lower(): level for level in LogLevel}, "warn": LogLevel.WARNING, "critical": LogLevel.ERROR}
# A build's lines come from a deploy, and all others from runners, whose calls come through the gateway.
_RUN_SOURCES = {
    "grpc-run": frozenset[LogSource](),
    "grpc-register": frozenset({LogSource.BUILD}),
    "gateway": frozenset(LogSource) - {LogSource.BUILD},
    "cron": frozenset[LogSource](),
}
_CONDITIONS = {"equals": False, "in": False, "not_equals": True, "not_in": True}


class PlatformLogRoutes:
    """The routes of log lines."""

    def __init__(self, search: LogSearch, accounts: KnownAccounts, clock: Clock, guard: Guard) -> None:
        self._search = search
        self._accounts = accounts
        self._clock = clock
        self.routes = [
            guard.route("POST", "/v1/serverless/logs/history", self._history),
            guard.route("POST", "/v1/serverless/logs/stream", self._stream),
        ]

    async def _history(self, request: Request, caller: Principal) -> Response:
        choice = await self._choice(request, caller)
        entries, cursor = await self._search.page(
            caller.scope,
            choice,
            after=request.query_params.get("cursor") or None,
            limit=number(request, "limit", usual=100, most=1000),
        )
        return JSONResponse(
            {
                "next_cursor": cursor,
                "has_more": cursor is not None,
                "items": [self._item(entry) for entry in entries],
            }
        )

    async def _stream(self, request: Request, caller: Principal) -> Response:
        """Answer with lines from `start` on. Without an `end`, the stream never ends."""
        choice, now = await self._choice(request, caller), self._clock.now()
        draining: asyncio.Event = request.scope["state"]["draining"]
        if "end" not in request.query_params:
            batches = self._search.follow(caller.scope, choice)
            return event_stream(line_events(batches, self._line, draining))
        assert choice.until is not None
        if choice.until <= now:
            return event_stream(line_events(self._search.past(caller.scope, choice), self._line, draining))
        seconds = (choice.until - now).total_seconds()
        batches = self._search.follow(caller.scope, choice)
        return event_stream(line_events(batches, self._line, draining, seconds=seconds))

    async def _choice(self, request: Request, caller: Principal) -> LogChoice:
        since, until = span(request, self._clock.now())
        named, query = "end" in request.query_params, request.query_params
        source = one_of(request, "run_source", tuple(_RUN_SOURCES))
        return LogChoice(
            apps=tuple(own_apps(request, "app_id", caller, self._accounts)),
            runner_id=query.get("job_id") or None,
            since=since,
            until=until if named else None,
            search=query.get("search") or None,
            least_level=_LEVELS[level] if (level := one_of(request, "level", tuple(_LEVELS))) else None,
            revision_id=query.get("revision") or None,
            request_id=query.get("request_id") or None,
            sources=None if source is None else _RUN_SOURCES[source],
            rules=tuple(_rule(each) for each in await _rules(request)),
        )

    def _line(self, entry: LogEntry) -> bytes:
        return event(json.dumps(self._item(entry)))

    def _item(self, entry: LogEntry) -> dict[str, object]:
        return {
            "timestamp": iso(entry.timestamp),
            "level": entry.level.value,
            "message": entry.message,
            "app": f"{self._accounts.of(entry.account).nickname}/{entry.app_name}",
            "revision": entry.revision_id,
            "labels": dict(labels_of(entry)),
        }


async def _rules(request: Request) -> list[object]:
    rules = await json_array(request)
    if len(rules) > _MOST_RULES:
        raise InvalidArgument("body", f"the body has {len(rules)} filters: give at most {_MOST_RULES}")
    return rules


def _rule(found: object) -> LabelRule:
    rule = found if isinstance(found, dict) else {}
    match rule:
        case {"key": str(label), "value": str(value)}:
            values = [value]
        case {"key": str(label), "value": list(several)} if all(isinstance(each, str) for each in several):
            values = [str(each) for each in several]
        case _:
            raise InvalidArgument("body", 'a filter of the body is not of the form {"key": "…", "value": "…"}')
    condition = rule.get("condition_type", "in")
    if not isinstance(condition, str) or condition not in _CONDITIONS:
        raise InvalidArgument(
            "condition_type", f"condition_type of a filter is unknown: use one of {', '.join(_CONDITIONS)}"
        )
    return LabelRule(label=label, values=frozenset(values), inverted=_CONDITIONS[condition])
