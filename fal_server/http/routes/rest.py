"""The ASGI application of the controller's own routes. Two of them describe the controller."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.core.accounts import KnownAccounts
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.platform.errors import HANDLERS


def rest_app(*, guard: Guard, accounts: KnownAccounts, version: str, routes: Iterable[Route]) -> Starlette:
    """Return the application.

    Args:
        version: this distribution's version.
        routes: the nouns' routes.
    """

    async def root(request: Request) -> Response:
        caller = await guard.known_caller(request)
        return JSONResponse(
            {
                "name": "fal-grpc controller",
                "version": version,
                "apps": "/{owner}/{app}/{path}",
                # The first part of the paths of the caller's own apps; a caller without a key learns no names.
                **({} if caller is None else {"owner": accounts.of(caller.scope.account).nickname}),
                "health": "/health",
            }
        )

    async def health(request: Request) -> Response:
        # The date lets a client detect a different clock.
        now = formatdate(usegmt=True)
        return JSONResponse({"status": "ok", "version": version}, headers={"date": now})

    app = Starlette(
        routes=[guard.open_route("GET", "/", root), guard.open_route("GET", "/health", health), *routes],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False
    return app
