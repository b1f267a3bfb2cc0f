"""Handlers for keys."""

from __future__ import annotations

from dataclasses import asdict

from fal_grpc.v1 import key_pb2 as pb
from fal_grpc.v1.account_pb2 import Quotas
from fal_server.access.tokens import Tokens
from fal_server.core.accounts import Key, KeyScope
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import duration, named, optional_time, timestamp
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.keys import Keys, coarse_scope

_SCOPES: dict[int, KeyScope] = {
    pb.CreateUserKeyRequest.ADMIN: KeyScope.ADMIN,
    pb.CreateUserKeyRequest.API: KeyScope.API,
}
_SCOPE_NUMBERS = {KeyScope.ADMIN: pb.CreateUserKeyRequest.ADMIN, KeyScope.API: pb.CreateUserKeyRequest.API}
# For a key that no scope of the older form describes; readers treat an unknown number as "no scope".
_NO_SCOPE = pb.CreateUserKeyRequest.Scope.ValueType(1000)


class KeyHandlers:
    """fal.v1.Keys."""

    def __init__(self, keys: Keys, quotas: AccountQuotas, tokens: Tokens) -> None:
        self._keys = keys
        self._quotas = quotas
        self._tokens = tokens

    async def get_caller(self, request: pb.GetCallerRequest, caller: Caller) -> pb.GetCallerResponse:
        principal = caller.principal
        key = await self._keys.find(caller.scope, principal.key_id)
        view = await self._quotas.of_caller(principal)
        return pb.GetCallerResponse(
            account=caller.scope.account,
            nickname=view.account.nickname,
            key_id=principal.key_id,
            # In the key's own form, including the app that they are for, unless the caller acts for a team.
            permissions=sorted(caller.scope.permissions if key is None or principal.role else key.permissions),
            alias="" if key is None else key.alias,
            created_at=None if key is None else timestamp(key.created_at),
            expires_at=None if key is None or key.expires_at is None else timestamp(key.expires_at),
            quotas=Quotas(**asdict(view.quotas)),
            used=Quotas(**view.used) if view.used else None,
        )

    async def create_user_key(self, request: pb.CreateUserKeyRequest, caller: Caller) -> pb.CreateUserKeyResponse:
        """Create a key. Its permissions come from the policy, else from the preset, else from the scope."""
        key_id, secret = await self._keys.create(
            caller.principal,
            scope=named(request.scope, _SCOPES, "scope") if request.HasField("scope") else None,
            preset=request.policy_preset if request.HasField("policy_preset") else None,
            permissions=tuple(request.policy.permissions) if request.HasField("policy") else None,
            alias=request.alias,
            expires_at=optional_time(request, "expires_at"),
            for_app=request.for_app if request.HasField("for_app") else None,
            for_environment=request.for_environment if request.HasField("for_environment") else None,
        )
        return pb.CreateUserKeyResponse(key_id=key_id, key_secret=secret)

    async def create_login_token(
        self, request: pb.CreateLoginTokenRequest, caller: Caller
    ) -> pb.CreateLoginTokenResponse:
        issued = self._tokens.for_login(caller.principal, duration(request.life, "life"))
        return pb.CreateLoginTokenResponse(token=issued.text, expires_at=timestamp(issued.expires_at))

    async def rotate_user_key(self, request: pb.RotateUserKeyRequest, caller: Caller) -> pb.RotateUserKeyResponse:
        overlap = duration(request.overlap, "overlap")
        key_id, secret = await self._keys.rotate(caller.principal, request.key_id, overlap)
        return pb.RotateUserKeyResponse(key_id=key_id, key_secret=secret)

    async def list_user_keys(self, request: pb.ListUserKeysRequest, caller: Caller) -> pb.ListUserKeysResponse:
        return pb.ListUserKeysResponse(user_keys=[_info(key) for key in await self._keys.list(caller.scope)])

    async def revoke_user_key(self, request: pb.RevokeUserKeyRequest, caller: Caller) -> pb.RevokeUserKeyResponse:
        await self._keys.revoke(caller.scope, request.key_id)
        return pb.RevokeUserKeyResponse()


def _info(key: Key) -> pb.UserKeyInfo:
    scope = coarse_scope(key)
    return pb.UserKeyInfo(
        key_id=key.key_id,
        created_at=timestamp(key.created_at),
        scope=_NO_SCOPE if scope is None else _SCOPE_NUMBERS[scope],
        alias=key.alias,
        expires_at=None if key.expires_at is None else timestamp(key.expires_at),
        last_used_at=None if key.last_used_at is None else timestamp(key.last_used_at),
        permissions=key.permissions,
    )
