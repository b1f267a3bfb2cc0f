"""The ASGI application of the controller's own routes, with the two that describe the controller."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.http.routes.errors import EXCEPTION_HANDLERS
from fal_server.http.routes.guard import Guard


def rest_app(*, guard: Guard, owner: str, version: str, routes: Iterable[Route]) -> Starlette:
    """Return the application.

    Args:
        owner: the account's nickname, the first part of every app's path.
        version: of this distribution.
        routes: those of the nouns.
    """

    async def root(request: Request) -> Response:
        return JSONResponse(
            {
                "name": "fal-grpc controller",
                "version": version,
                "apps": "/{owner}/{app}/{path}",
                "owner": owner,
                "health": "/health",
            }
        )

    async def health(request: Request) -> Response:
        # The date shows a client whose clock differs.
        now = formatdate(usegmt=True)
        return JSONResponse({"status": "ok", "version": version}, headers={"date": now})

    app = Starlette(
        routes=[guard.open_route("GET", "/", root), guard.open_route("GET", "/health", health), *routes],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False
    return app
