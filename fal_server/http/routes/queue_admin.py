"""The queue for those who run apps: its size, its requests, flushing, and putting in line again what was given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import allows
from fal_server.core.accounts import Account
from fal_server.core.faults import (
    AlreadyExists,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from fal_server.core.faults import Unavailable as NotNow
from fal_server.core.identity import Principal
from fal_server.core.queue import QueuedRequest, State
from fal_server.core.webhooks import Delivery
from fal_server.http.routes.submitting import key_of
from fal_server.http.server.errors import FAILED
from fal_server.ports.queue import RequestFilter
from fal_server.services.queue import Queue

Endpoint: TypeAlias = "Callable[[Request], Awaitable[Response]]"
KeySet: TypeAlias = "Callable[[], Mapping[str, object]]"
_READ, _WRITE = "serverless:queue:read", "serverless:queue:write"
_MOST_LISTED = 1000
_STATUSES: tuple[tuple[type[Fault], int], ...] = (
    (InvalidArgument, 400),
    (Unauthenticated, 401),
    (PermissionDenied, 403),
    (NotFound, 404),
    (AlreadyExists, 409),
    (FailedPrecondition, 400),
    (NotNow, 503),
)


class QueueAdminRoutes:
    """What the published `fal queue` calls, and what ours adds, below /applications/{nickname}/{app}/queue.

    Args:
        key_set: the public keys that webhooks are signed with, shown at /.well-known/jwks.json.
    """

    def __init__(self, queue: Queue, access: Authenticator, account: Account, key_set: KeySet) -> None:
        self._queue = queue
        self._access = access
        self._account = account
        self._key_set = key_set
        base = "/applications/{nickname}/{app}/queue"
        self.routes = [
            Route(base, self._guarded(_READ, self._size), methods=["GET"]),
            Route(base, self._guarded(_WRITE, self._flush), methods=["DELETE"]),
            Route(base + "/requests", self._guarded(_READ, self._list), methods=["GET"]),
            Route(base + "/requests/{request_id}", self._guarded(_READ, self._get), methods=["GET"]),
            Route(base + "/requests/{request_id}/cancel", self._guarded(_WRITE, self._cancel), methods=["POST"]),
            Route(base + "/requests/{request_id}/redrive", self._guarded(_WRITE, self._redrive), methods=["POST"]),
            Route("/.well-known/jwks.json", self._keys, methods=["GET"]),
        ]

    def _guarded(self, permission: str, endpoint: Endpoint) -> Endpoint:
        """Let only keys in that have a permission, for apps of this account; faults become answers."""

        async def guarded(request: Request) -> Response:
            try:
                _require(await self._principal(request), permission)
                nickname = request.path_params["nickname"]
                if nickname != self._account.nickname:
                    raise NotFound(f"this controller serves {self._account.nickname}, not {nickname[:80]!r}")
                return await endpoint(request)
            except Fault as fault:
                status = next((number for kind, number in _STATUSES if isinstance(fault, kind)), 500)
                headers = {"www-authenticate": "Key"} if status == 401 else None
                detail = fault.message if status != 500 else FAILED
                return JSONResponse({"detail": detail}, status_code=status, headers=headers)

        return guarded

    async def _principal(self, request: Request) -> Principal:
        key = key_of(request)
        if key is None:
            raise Unauthenticated("send a key as `Authorization: Key ID:SECRET`; `fal keys create` makes one")
        return self._access.cached(*key) or await self._access.authenticate(*key)

    async def _size(self, request: Request) -> Response:
        counts = self._queue.size(request.path_params["app"])
        content: dict[str, object] = {"size": sum(counts.values())}
        if request.query_params.get("by_user", "").lower() in ("1", "true"):
            content["by_user"] = dict(counts)
        return JSONResponse(content)

    async def _flush(self, request: Request) -> Response:
        caller = request.query_params.get("caller_user_id") or None
        return JSONResponse({"flushed": await self._queue.flush(request.path_params["app"], caller)})

    async def _list(self, request: Request) -> Response:
        query = RequestFilter(
            app_name=request.path_params["app"],
            state=_state(request.query_params.get("state")),
            dead=True if request.query_params.get("dead", "").lower() in ("1", "true") else None,
            limit=_limit(request.query_params.get("limit", "100")),
        )
        return JSONResponse({"requests": [_item(found) for found in await self._queue.find(query)]})

    async def _get(self, request: Request) -> Response:
        status = await self._queue.status(request.path_params["app"], request.path_params["request_id"])
        item = _item(status.request)
        if status.request.state is State.IN_QUEUE:
            item["queue_position"] = status.position
        tries = await self._queue.deliveries(status.request.request_id)
        return JSONResponse({**item, "deliveries": [_delivery(one) for one in tries]})

    async def _cancel(self, request: Request) -> Response:
        ended = await self._queue.cancel(request.path_params["app"], request.path_params["request_id"])
        return JSONResponse(_item(ended))

    async def _redrive(self, request: Request) -> Response:
        again = await self._queue.redrive(request.path_params["app"], request.path_params["request_id"])
        return JSONResponse(_item(again))

    async def _keys(self, request: Request) -> Response:
        return JSONResponse(self._key_set(), headers={"cache-control": "public, max-age=3600"})


def _require(principal: Principal, permission: str) -> None:
    if not allows(principal, permission):
        raise PermissionDenied(
            f"Insufficient permissions: the key {principal.key_id} lacks {permission!r}; use one that has it"
        )


def _item(request: QueuedRequest) -> dict[str, object]:
    """A request as JSON: what is known of it, but nothing of what it carries. The path without its query."""
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


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _state(word: str | None) -> State | None:
    if not word:
        return None
    if word.upper() not in tuple(State):
        raise InvalidArgument(
            "state", f"state is {word[:80]!r}: use one of {', '.join(state.value for state in State)}"
        )
    return State(word.upper())


def _limit(word: str) -> int:
    if not (word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= _MOST_LISTED):
        raise InvalidArgument("limit", f"limit is {word[:80]!r}: give a number from 1 to {_MOST_LISTED}")
    return int(word)
