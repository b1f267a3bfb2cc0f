"""Lets callers of REST in by what their keys allow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import allows, require
from fal_server.access.tokens import Tokens
from fal_server.core.faults import Unauthenticated
from fal_server.core.identity import Principal
from fal_server.http.gateway.app_request import platform_key

Endpoint: TypeAlias = "Callable[[Request], Awaitable[Response]]"


class Guard:
    """Wraps endpoints so that they are reached only by who may use them."""

    def __init__(self, access: Authenticator, tokens: Tokens) -> None:
        self._access = access
        self._tokens = tokens

    async def principal(self, request: Request) -> Principal:
        """Whose key the request carries.

        Raises:
            Unauthenticated: it carries none that is good.
        """
        key = platform_key(request.headers.get("authorization", "").encode("latin-1"))
        if key is None:
            raise Unauthenticated("send a key as `Authorization: Key ID:SECRET`; `fal keys create` makes one")
        return self._access.cached(*key) or await self._access.authenticate(*key)

    def needs(self, permission: str, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for keys that have this permission."""

        async def guarded(request: Request) -> Response:
            require(await self.principal(request), permission)
            return await endpoint(request)

        return guarded

    def uploads(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for whoever may call apps or write files, and for the upload tokens of such and of runners."""

        async def guarded(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() in ("bearer", "key") and await self._tokens.uploader(token.strip()) is not None:
                return await endpoint(request)
            principal = await self.principal(request)
            if not allows(principal, "serverless:files:write"):
                require(principal, "serverless:apps:run")
            return await endpoint(request)

        return guarded
