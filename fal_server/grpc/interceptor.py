"""Admits calls by their metadata's key, before a message is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from fal_server.access.acting import Teams
from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import require
from fal_server.core.identity import Principal
from fal_server.grpc.caller import Metadata, acts_for, credentials
from fal_server.grpc.calls import ADMITTED, Admitted, refusing
from fal_server.grpc.methods import METHODS
from fal_server.grpc.permissions import ANY_KEY, METHOD_PERMISSIONS

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Admits a call if its key has the method's permission. Health and reflection need no key."""

    def __init__(self, authenticator: Authenticator, teams: Teams, recorder: Recorder) -> None:
        self._authenticator = authenticator
        self._teams = teams
        self._recorder = recorder
        self._permissions = {path: METHOD_PERMISSIONS[method.full_name] for path, method in METHODS.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Return the method's handler, or one that refuses the call. None for a method that is not served."""
        path = handler_call_details.method
        permission = self._permissions.get(path)
        if permission is None:
            return await continuation(handler_call_details)
        key_id = ""
        try:
            principal = await self._caller(handler_call_details.invocation_metadata or ())
            key_id = principal.key_id
            if permission != ANY_KEY:
                require(principal, permission)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
            return refusing(METHODS[path].name, error, key_id)
        ADMITTED.set(Admitted(principal, self._authenticator.open_calls, self._recorder))
        return await continuation(handler_call_details)

    async def _caller(self, metadata: Metadata) -> Principal:
        shown, user_id = credentials(metadata), acts_for(metadata)
        if isinstance(shown, str):
            return await self._teams.bearer(shown, user_id)
        principal = await self._authenticator.authenticate(*shown)
        self._teams.require_own(principal, user_id)
        return principal
