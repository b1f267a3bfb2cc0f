"""Admits calls by the key in their metadata, before a message is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import require
from fal_server.grpc.caller import credentials
from fal_server.grpc.calls import ADMITTED, Admitted, refusal
from fal_server.grpc.methods import METHODS
from fal_server.grpc.permissions import ANY_KEY, METHOD_PERMISSIONS

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through if its key has the method's permission. Health and reflection need no key."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._permissions = {path: METHOD_PERMISSIONS[method.full_name] for path, method in METHODS.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Return the method's handler, one that refuses the call, or None for a method that is not served."""
        path = handler_call_details.method
        permission = self._permissions.get(path)
        if permission is None:
            return await continuation(handler_call_details)
        key_id = ""
        try:
            key = credentials(handler_call_details.invocation_metadata or ())
            principal = await self._authenticator.authenticate(*key)
            key_id = principal.key_id
            if permission != ANY_KEY:
                require(principal, permission)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
            return refusal(METHODS[path].name, error, key_id)
        ADMITTED.set(Admitted(principal, self._authenticator.open_calls))
        return await continuation(handler_call_details)
