"""Apps of the platform API. These are the list, and one app's queue, events and revisions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import KnownAccounts
from fal_server.core.app_events import AppEvent, Category, EventPlace, Origin
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Principal, Scope
from fal_server.core.names import MAIN
from fal_server.core.revisions import Json
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.parameters import number
from fal_server.http.routes.platform.once import Once
from fal_server.http.routes.platform.queries import (
    bad_cursor,
    endpoint_id,
    expanded,
    iso,
    listed,
    micros_of,
    named_app,
    paging,
    place_of,
    position,
    span,
    time_of,
)
from fal_server.ports import Clock
from fal_server.services.app_events import AppEvents, RevisionPast
from fal_server.services.apps import Apps
from fal_server.services.keys import Keys
from fal_server.services.queue import Queue
from fal_server.services.revisions import Revisions
from fal_server.services.views import AppView

_ONE = "/v1/serverless/apps/{owner}/{app}"
_ONCE_FOR = timedelta(minutes=10)


class PlatformAppRoutes:
    """The routes of apps."""

    def __init__(
        self,
        *,
        apps: Apps,
        revisions: Revisions,
        events: AppEvents,
        queue: Queue,
        keys: Keys,
        accounts: KnownAccounts,
        clock: Clock,
        guard: Guard,
    ) -> None:
        self._apps = apps
        self._revisions = revisions
        self._events = events
        self._queue = queue
        self._keys = keys
        self._accounts = accounts
        self._clock = clock
        self._once = Once(clock, _ONCE_FOR)
        self.routes = [
            guard.route("GET", "/v1/serverless/apps", self._list),
            guard.route("GET", f"{_ONE}/queue", self._size),
            guard.route("DELETE", f"{_ONE}/queue", self._flush),
            guard.route("GET", f"{_ONE}/events", self._list_events),
            guard.route("GET", f"{_ONE}/revisions", self._list_revisions),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        search = request.query_params.get("search", "").casefold()
        with_endpoints = "endpoints" in expanded(request, ("endpoints",))
        items: list[dict[str, object]] = []
        for view in await self._apps.list(caller.scope, request.query_params.get("environment") or MAIN):
            if search not in view.app.app_id.name.casefold():
                continue
            item = self._item(view)
            if with_endpoints:
                metadata = await self._revisions.metadata(caller.scope, view.app.name)
                item["endpoints"] = _endpoints(str(item["endpoint_id"]), metadata)
            items.append(item)
        return JSONResponse({"apps": items})

    def _item(self, view: AppView) -> dict[str, object]:
        app = view.app
        return {
            "endpoint_id": endpoint_id(self._accounts, app.app_id),
            "name": app.name,
            "owner": self._accounts.of(app.account).nickname,
            "environment": app.environment,
            "machine_type": app.scaling.machine_types[0],
            "auth_mode": app.auth_mode.value,
            "keep_alive": app.scaling.keep_alive,
            "min_concurrency": app.scaling.min_concurrency,
            "max_concurrency": app.scaling.max_concurrency,
            "request_timeout": app.scaling.request_timeout,
            "startup_timeout": app.scaling.startup_timeout,
            "valid_regions": list(app.scaling.regions),
            "updated_at": iso(app.updated_at),
        }

    async def _size(self, request: Request, caller: Principal) -> Response:
        counts = self._queue.size(self._named(request, caller))
        return JSONResponse({"queue_size": sum(counts.values())})

    async def _flush(self, request: Request, caller: Principal) -> Response:
        app_id = self._named(request, caller)
        async with self._once.first(request, caller, str(app_id)) as first:
            if first:
                await self._queue.flush(app_id)
        return Response(status_code=204)

    async def _list_events(self, request: Request, caller: Principal) -> Response:
        app_id = self._named(request, caller)
        since, until = span(request, self._clock.now())
        events, behind = await self._events.page(
            app_id,
            since=since,
            until=until,
            categories=_categories(request),
            before=_place(position(request)),
            limit=number(request, "limit", usual=50, most=1000),
        )
        return JSONResponse(
            {
                **paging(None if behind is None else _position(behind)),
                "endpoint_id": endpoint_id(self._accounts, app_id),
                "events": [await self._event(caller.scope, event) for event in events],
            }
        )

    async def _event(self, scope: Scope, event: AppEvent) -> dict[str, object]:
        runner, place = event.runner, event.place
        payload: dict[str, object | None] = {
            "job_id": None if runner is None else runner.runner_id,
            "machine_type": None if runner is None else runner.machine_type,
            "reason": event.reason,
            "state": None if event.runner_state is None else event.runner_state.value,
            "new_application_id": event.new_revision_id,
            "old_application_id": event.old_revision_id,
            "old_config": None if event.config is None else event.config.old,
            "new_config": None if event.config is None else event.config.new,
            "old_app_auth_mode": None if event.config is None else event.config.old_auth_mode,
            "new_app_auth_mode": None if event.config is None else event.config.new_auth_mode,
            "actor": None if event.key_id is None else await self._actor(scope, event.key_id),
        }
        return {
            "event_id": "-".join(part for part in (place.origin.value, place.of, str(place.number or "")) if part),
            "category": event.category.value,
            "created_at": iso(place.at),
            "payload": {name: value for name, value in payload.items() if value is not None},
        }

    async def _list_revisions(self, request: Request, caller: Principal) -> Response:
        app_id = self._named(request, caller)
        limit, before = number(request, "limit", usual=50, most=100), place_of(position(request))
        found = [
            past
            for past in await self._events.revisions(app_id)
            if before is None or (past.revision.created_at, past.revision.revision_id) < before
        ]
        found.sort(key=lambda past: (past.revision.created_at, past.revision.revision_id), reverse=True)
        page = found[:limit]
        last = page[-1].revision if len(found) > limit else None
        return JSONResponse(
            {
                **paging(None if last is None else [micros_of(last.created_at), last.revision_id]),
                "endpoint_id": endpoint_id(self._accounts, app_id),
                "revisions": [await self._revision(caller.scope, past) for past in page],
            }
        )

    async def _revision(self, scope: Scope, past: RevisionPast) -> dict[str, object]:
        metadata = past.revision.metadata
        message, annotations = metadata.get("message"), metadata.get("annotations")
        actor = None if past.key_id is None else await self._actor(scope, past.key_id)
        return {
            "revision_id": past.revision.revision_id,
            "created_at": iso(past.revision.created_at),
            "is_current": past.current,
            "message": message if isinstance(message, str) else None,
            "annotations": _texts(annotations) if isinstance(annotations, Mapping) and annotations else None,
            "status": None if past.outcome is None else past.outcome.value,
            "deployed_by": None if actor is None else actor["full_name"],
        }

    async def _actor(self, scope: Scope, key_id: str) -> dict[str, str]:
        """Return the actor: the account, and its key with its description."""
        key = await self._keys.find(scope, key_id)
        note = f" ({key.alias})" if key is not None and key.alias else ""
        return {"nickname": self._accounts.of(scope.account).nickname, "full_name": f"key {key_id}{note}"}

    def _named(self, request: Request, caller: Principal) -> AppId:
        return named_app(request, caller, self._accounts)


def _endpoints(endpoint: str, metadata: Mapping[str, Json]) -> list[str]:
    """Return the identifiers of the POST routes in an app's description."""
    description = metadata.get("openapi")
    paths = description.get("paths") if isinstance(description, Mapping) else None
    if not isinstance(paths, Mapping):
        return []
    called = sorted(path for path, item in paths.items() if isinstance(item, Mapping) and "post" in item)
    return [endpoint + path.rstrip("/") for path in called]


def _texts(values: Mapping[str, Json]) -> dict[str, str]:
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _categories(request: Request) -> set[Category]:
    try:
        return {Category(name) for name in listed(request, "category")}
    except ValueError as error:
        known = ", ".join(category.value for category in Category)
        raise InvalidArgument("category", f"category is none of the known ones: use {known}") from error


def _position(place: EventPlace) -> list[object]:
    return [micros_of(place.at), place.origin.value, place.of, place.number]


def _place(found: list[object] | None) -> EventPlace | None:
    match found:
        case None:
            return None
        case [int(micros), str(origin), str(of), int(count)] if origin in tuple(Origin) and abs(count) < 2**63:
            return EventPlace(at=time_of(micros), origin=Origin(origin), of=of, number=count)
        case _:
            raise bad_cursor()
