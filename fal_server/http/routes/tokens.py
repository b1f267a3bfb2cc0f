"""POST /tokens/: short-lived tokens that let a browser open WebSockets to some apps without a key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.access.permissions import CALL_APPS, require
from fal_server.access.tokens import Tokens
from fal_server.core.faults import InvalidArgument
from fal_server.http.routes.guard import Guard
from fal_server.http.server.json_body import json_object

_SECONDS = 120.0


class TokenRoutes:
    """The endpoint. The answer is the token alone, as a JSON text."""

    def __init__(self, tokens: Tokens, guard: Guard) -> None:
        self._tokens = tokens
        self._guard = guard
        self.routes = [Route(path, self._make, methods=["POST"]) for path in ("/tokens/", "/tokens")]

    async def _make(self, request: Request) -> Response:
        principal = await self._guard.principal(request)
        require(principal, CALL_APPS)
        body = await json_object(request)
        apps, seconds = body.get("allowed_apps"), body.get("token_expiration", _SECONDS)
        if not isinstance(apps, list) or not all(isinstance(app, str) for app in apps):
            raise InvalidArgument("allowed_apps", "allowed_apps is missing from the body, or is no list of names")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InvalidArgument("token_expiration", "token_expiration is no number of seconds")
        token = self._tokens.for_calls(principal, [str(app) for app in apps], seconds)
        return JSONResponse(token.text, status_code=201)
