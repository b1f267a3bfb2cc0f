"""The owner's view of the queue. It shows size and requests, and offers flushing, cancelling and redriving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Principal
from fal_server.core.queue import QueuedRequest, State
from fal_server.core.webhooks import Delivery
from fal_server.http.routes.guard import Endpoint, Guard
from fal_server.http.routes.parameters import number, one_of, switch
from fal_server.http.routes.queue import waits
from fal_server.ports.queue import RequestFilter
from fal_server.services.queue import Queue

KeySet: TypeAlias = "Callable[[], Mapping[str, object]]"
_MOST_LISTED = 1000
_MOST_FLUSHED = 100_000
_MOST_REDRIVEN = 100


class QueueAdminRoutes:
    """The routes of the published `fal queue` and of ours, below /applications/{nickname}/{app}/queue.

    Args:
        key_set: returns the public keys for checking webhook signatures.
    """

    def __init__(self, queue: Queue, accounts: KnownAccounts, key_set: KeySet, guard: Guard) -> None:
        self._queue = queue
        self._accounts = accounts
        self._key_set = key_set
        base = "/applications/{nickname}/{app}/queue"
        one = base + "/requests/{request_id}"
        self.routes = [
            guard.route("GET", base, self._of_account(self._size)),
            guard.route("DELETE", base, self._of_account(self._flush)),
            guard.route("POST", base + "/redrive", self._of_account(self._redrive_all)),
            guard.route("GET", base + "/requests", self._of_account(self._list)),
            guard.route("GET", one, self._of_account(self._get)),
            guard.route("POST", one + "/cancel", self._of_account(self._cancel)),
            guard.route("POST", one + "/redrive", self._of_account(self._redrive)),
            guard.open_route("GET", "/.well-known/jwks.json", self._keys),
        ]

    def _of_account(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint for apps of the caller's account."""

        async def answer(request: Request, caller: Principal) -> Response:
            self._accounts.own(caller.scope.account, request.path_params["nickname"])
            return await endpoint(request, caller)

        return answer

    async def _size(self, request: Request, caller: Principal) -> Response:
        counts = self._queue.size(_app(request, caller))
        content: dict[str, object] = {"size": sum(counts.values())}
        if switch(request, "by_user"):
            content["by_user"] = dict(counts)
        return JSONResponse(content)

    async def _flush(self, request: Request, caller: Principal) -> Response:
        whose = request.query_params.get("caller_user_id")
        if whose == "":
            raise InvalidArgument("caller_user_id", "caller_user_id is empty: give an id, or leave it out to mean all")
        limit = (
            number(request, "limit", usual=_MOST_FLUSHED, most=_MOST_FLUSHED)
            if "limit" in request.query_params
            else None
        )
        flushed = await self._queue.flush(_app(request, caller), whose, limit)
        return JSONResponse({"flushed": flushed})

    async def _redrive_all(self, request: Request, caller: Principal) -> Response:
        ids = [one for one in request.query_params.get("ids", "").split(",") if one]
        if not 1 <= len(ids) <= _MOST_REDRIVEN:
            raise InvalidArgument(
                "ids", f"ids names {len(ids)} requests: name 1 to {_MOST_REDRIVEN}, with commas between"
            )
        revived = await self._queue.redrive_all(_app(request, caller), ids)
        return JSONResponse({"request_ids": revived})

    async def _list(self, request: Request, caller: Principal) -> Response:
        query = RequestFilter(
            app_name=request.path_params["app"],
            state=State(state) if (state := one_of(request, "state", tuple(State))) else None,
            dead=True if switch(request, "dead") else None,
            limit=number(request, "limit", usual=100, most=_MOST_LISTED),
        )
        return JSONResponse(
            {"requests": [_item(found) for found in await self._queue.find(caller.scope.account, query)]}
        )

    async def _get(self, request: Request, caller: Principal) -> Response:
        status = await self._queue.status(*_named(request, caller))
        item = _item(status.request)
        if status.request.state is State.IN_QUEUE:
            item |= {"queue_position": status.position, **waits(status)}
        deliveries = await self._queue.deliveries(caller.scope.account, status.request.request_id)
        return JSONResponse({**item, "deliveries": [_delivery(delivery) for delivery in deliveries]})

    async def _cancel(self, request: Request, caller: Principal) -> Response:
        cancelled = await self._queue.cancel(*_named(request, caller))
        return JSONResponse(_item(cancelled))

    async def _redrive(self, request: Request, caller: Principal) -> Response:
        again = await self._queue.redrive(*_named(request, caller))
        return JSONResponse(_item(again))

    async def _keys(self, request: Request) -> Response:
        return JSONResponse(self._key_set(), headers={"cache-control": "public, max-age=3600"})


def _app(request: Request, caller: Principal) -> AppId:
    """Return the app in the path."""
    return AppId.parse(caller.scope.account, request.path_params["app"])


def _named(request: Request, caller: Principal) -> tuple[AppId, str]:
    """Return the request in the path."""
    return _app(request, caller), request.path_params["request_id"]


def _item(request: QueuedRequest) -> dict[str, object]:
    """Return a request without its body, headers and query."""
    return {
        "request_id": request.request_id,
        "app": request.app_name,
        "method": request.method,
        "path": request.path.partition("?")[0],
        "caller": request.caller,
        "priority": request.priority.value,
        "state": request.state.value,
        "attempt": request.attempt,
        "created_at": _iso(request.created_at),
        "not_before": _iso(request.not_before),
        "started_at": _iso(request.started_at),
        "completed_at": _iso(request.completed_at),
        "runner_id": request.runner_id,
        "status": request.status,
        "error": request.error,
        "error_type": request.error_type,
        "dead": request.dead,
        "webhook": request.webhook.value,
        "webhook_attempts": request.webhook_attempts,
        "webhook_at": _iso(request.webhook_at),
    }


def _delivery(delivery: Delivery) -> dict[str, object]:
    return {
        "number": delivery.number,
        "at": _iso(delivery.at),
        "status": delivery.status,
        "error": delivery.error,
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
