"""Serves POST /tokens/. Short-lived tokens let a browser open WebSockets to some apps without a key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.access.tokens import Tokens
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import Principal
from fal_server.http.routes.guard import Guard
from fal_server.http.server.json_body import json_object

_SECONDS = 120.0


class TokenRoutes:
    """The route, with and without the slash. The response is the token itself, as a JSON string."""

    def __init__(self, tokens: Tokens, guard: Guard) -> None:
        self._tokens = tokens
        self.routes = [guard.route("POST", path, self._create) for path in ("/tokens/", "/tokens")]

    async def _create(self, request: Request, caller: Principal) -> Response:
        body = await json_object(request)
        apps, seconds = body.get("allowed_apps"), body.get("token_expiration", _SECONDS)
        if not isinstance(apps, list) or not all(isinstance(app, str) for app in apps):
            raise InvalidArgument("allowed_apps", "allowed_apps is missing from the body, or is not a list of names")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InvalidArgument("token_expiration", "token_expiration is not a number of seconds")
        token = self._tokens.for_calls(caller, [str(app) for app in apps], seconds)
        return JSONResponse(token.text, status_code=201)
