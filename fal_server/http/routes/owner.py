"""Actions of the state directory's owner, without a key. They go over a unix socket that nobody else can reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.core.faults import InvalidArgument
from fal_server.http.routes.errors import EXCEPTION_HANDLERS


class OwnedNodes(Protocol):
    """The further machines of a controller."""

    async def join(self, address: str, token: str) -> str:
        """Have a machine join; return its name."""
        ...

    async def drain(self, name: str, *, undo: bool) -> None:
        """Start nothing more on a node and move its runners elsewhere. A request may also end that."""
        ...

    async def remove(self, name: str, *, force: bool) -> None:
        """Forget a node."""
        ...

    def described(self) -> Sequence[Mapping[str, object]]:
        """Describe the nodes, for people."""
        ...


def owner_app(
    *,
    renew_key: Callable[[], Awaitable[None]],
    counts: Callable[[], Awaitable[Mapping[str, object]]],
    nodes: OwnedNodes,
    note: Callable[[str, str], Awaitable[None]],
) -> Starlette:
    """Return the application.

    Args:
        renew_key: creates a new administrator's key and writes it to its file.
        counts: returns the number of apps and runners.
        nodes: the further machines.
        note: writes an action and what it is about into the audit log.
    """

    async def new_key(request: Request) -> Response:
        await renew_key()
        return JSONResponse({"made": True})

    async def status(request: Request) -> Response:
        return JSONResponse(dict(await counts()))

    async def list_nodes(request: Request) -> Response:
        return JSONResponse({"nodes": [dict(node) for node in nodes.described()]})

    async def join(request: Request) -> Response:
        given = await _object(request)
        await note("POST /nodes", str(given.get("address", "")))
        return JSONResponse({"name": await nodes.join(str(given.get("address", "")), str(given.get("token", "")))})

    async def drain(request: Request) -> Response:
        name, given = request.path_params["name"], await _object(request)
        await note("POST /nodes/{name}/drain", name)
        await nodes.drain(name, undo=given.get("undo") is True)
        return JSONResponse({"name": name})

    async def remove(request: Request) -> Response:
        name, given = request.path_params["name"], await _object(request)
        await note("POST /nodes/{name}/remove", name)
        await nodes.remove(name, force=given.get("force") is True)
        return JSONResponse({"name": name})

    return Starlette(
        routes=[
            Route("/new-key", new_key, methods=["POST"]),
            Route("/status", status, methods=["GET"]),
            Route("/nodes", list_nodes, methods=["GET"]),
            Route("/nodes", join, methods=["POST"]),
            Route("/nodes/{name}/drain", drain, methods=["POST"]),
            Route("/nodes/{name}/remove", remove, methods=["POST"]),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )


async def _object(request: Request) -> Mapping[str, object]:
    """Return the body, a JSON object.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        found: object = await request.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidArgument("body", "the body is not a JSON object")
    return found
