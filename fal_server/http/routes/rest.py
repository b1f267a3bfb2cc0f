"""The controller's own HTTP paths: health, the account, runners and their logs, as the published client reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import READ_LOGS, allows
from fal_server.core.accounts import Account
from fal_server.core.faults import (
    AlreadyExists,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from fal_server.core.runners import Runner
from fal_server.http.gateway.app_request import platform_key
from fal_server.http.routes.logs import LogRoutes
from fal_server.http.server.errors import FAILED
from fal_server.services.logs import Logs
from fal_server.services.runners import Runners

Endpoint: TypeAlias = "Callable[[Request], Awaitable[Response]]"
_STATUSES: dict[type[Fault], int] = {
    InvalidArgument: 400,
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    AlreadyExists: 409,
    FailedPrecondition: 412,
    ResourceExhausted: 413,
    Unimplemented: 501,
    Unavailable: 503,
}


class Rest:
    """The ASGI application for the controller's own paths.

    Args:
        version: of this distribution, shown by /health.
        more: routes of other nouns, which check their callers themselves.
    """

    def __init__(
        self,
        *,
        access: Authenticator,
        account: Account,
        runners: Runners,
        logs: Logs,
        version: str,
        more: Sequence[BaseRoute] = (),
    ) -> None:
        self._access = access
        self._account = account
        self._runners = runners
        self._version = version
        pages = LogRoutes(logs)
        self.app = Starlette(
            routes=[
                Route("/", self._root),
                Route("/health", self._health),
                Route("/users/current", self._for_readers(self._current_user)),
                Route("/runners/{runner_id}", self._for_readers(self._runner)),
                Route("/logs/history", self._for_readers(pages.history), methods=["POST"]),
                Route("/logs/stream", self._for_readers(pages.stream), methods=["POST"]),
                *more,
            ],
            exception_handlers={Fault: answer_fault, HTTPException: answer_http_exception},
        )
        self.app.router.redirect_slashes = False

    def _for_readers(self, endpoint: Endpoint) -> Endpoint:
        """Let only keys in that may read."""

        async def guarded(request: Request) -> Response:
            value = request.headers.get("authorization", "")
            key = platform_key(value.encode("latin-1"))
            if key is None:
                raise Unauthenticated("send a key as `Authorization: Key ID:SECRET`; `fal keys create` makes one")
            principal = self._access.cached(*key) or await self._access.authenticate(*key)
            if not allows(principal, READ_LOGS):
                raise PermissionDenied(
                    "Insufficient permissions: this key may call apps only; use one that may read or manage"
                )
            return await endpoint(request)

        return guarded

    async def _root(self, request: Request) -> Response:
        return JSONResponse(
            {
                "name": "fal-grpc controller",
                "version": self._version,
                "apps": "/{owner}/{app}/{path}",
                "owner": self._account.nickname,
                "health": "/health",
            }
        )

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": self._version})

    async def _current_user(self, request: Request) -> Response:
        account = self._account
        return JSONResponse(
            {
                "full_name": account.full_name,
                "nickname": account.nickname,
                "user_id": account.user_id,
                "is_personal": True,
                "is_locked": False,
                "lock_reason": None,
                "is_paying": True,
                "members": [],
            }
        )

    async def _runner(self, request: Request) -> Response:
        return JSONResponse(_runner_item((await self._runners.get(request.path_params["runner_id"])).runner))


def _runner_item(runner: Runner) -> dict[str, str | None]:
    return {
        "id": runner.runner_id,
        "app": runner.app_name,
        "environment": runner.environment,
        "revision": runner.revision_id,
        "machine_type": runner.machine_type,
        "state": runner.state.value,
        "created_at": _iso(runner.created_at),
        # The client reads log lines from the one moment on and before the other: a runner that waits has lines too,
        # and the last line of one that ended may be written at that very moment.
        "started_at": _iso(runner.started_at or runner.created_at),
        "ended_at": None if runner.ended_at is None else _iso(runner.ended_at + timedelta(microseconds=1)),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


async def answer_fault(request: Request, error: Exception) -> Response:
    """A refusal as REST words it: a status, and `detail` for people."""
    status, detail = 500, FAILED
    if isinstance(error, Fault):
        status = next((number for kind, number in _STATUSES.items() if isinstance(error, kind)), 500)
        detail = error.message
    headers = {"www-authenticate": "Key"} if status == 401 else None
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """What no route is for, in the same form."""
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = "there is nothing at this path: apps are called at /{owner}/{app}"
    elif error.status_code == 405:
        detail = f"{request.method} is not possible on {request.url.path}"
    return JSONResponse({"detail": detail}, status_code=error.status_code, headers=error.headers)
