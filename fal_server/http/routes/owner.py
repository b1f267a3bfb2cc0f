"""Actions of the state directory's owner, without a key, on a unix socket that nobody else can reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.http.routes.errors import EXCEPTION_HANDLERS


def owner_app(
    *, renew_key: Callable[[], Awaitable[None]], counts: Callable[[], Awaitable[Mapping[str, object]]]
) -> Starlette:
    """Return the application.

    Args:
        renew_key: creates a new administrator's key and writes it to its file.
        counts: returns the number of apps and runners.
    """

    async def new_key(request: Request) -> Response:
        await renew_key()
        return JSONResponse({"made": True})

    async def status(request: Request) -> Response:
        return JSONResponse(dict(await counts()))

    return Starlette(
        routes=[Route("/new-key", new_key, methods=["POST"]), Route("/status", status, methods=["GET"])],
        exception_handlers=EXCEPTION_HANDLERS,
    )
