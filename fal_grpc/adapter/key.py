"""API keys, and what they may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import optional_text, text, texts, to_datetime
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import key_pb2


class KeyScope(StrEnum):
    """What a key may do, coarsely: everything (ADMIN), or only call apps (API)."""

    ADMIN = "ADMIN"
    API = "API"


class KeyPreset(StrEnum):
    """A named set of permissions. FULL is that of the scope ADMIN."""

    FULL = "FULL"
    API = "API"
    DEPLOY = "DEPLOY"
    READONLY = "READONLY"
    BILLING = "BILLING"
    COMPUTE = "COMPUTE"
    SERVERLESS = "SERVERLESS"
    AGENT = "AGENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserKeyInfo:
    """A key, without its secret.

    Attributes:
        scope: what it may do; None if no scope describes it.
        alias: the description that it was created with.
    """

    key_id: str
    created_at: datetime
    scope: KeyScope | None
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just created. Its secret cannot be read again."""

    key_id: str
    key_secret: str = field(repr=False)


SCOPES: Mapping[int, KeyScope] = {0: KeyScope.ADMIN, 1: KeyScope.API}
_PRESET_OF_SCOPE = {KeyScope.ADMIN: KeyPreset.FULL, KeyScope.API: KeyPreset.API}


def new_key(message: key_pb2.CreateUserKeyResponse) -> NewKey:
    return NewKey(key_id=message.key_id, key_secret=message.key_secret)


def key_infos(message: key_pb2.ListUserKeysResponse) -> list[UserKeyInfo]:
    return [
        UserKeyInfo(
            key_id=item.key_id,
            created_at=to_datetime(item.created_at),
            scope=SCOPES.get(item.scope),
            alias=item.alias,
        )
        for item in message.user_keys
    ]


def create_request(
    *,
    preset: KeyPreset | str | None = None,
    permissions: Sequence[str] | None = None,
    scope: KeyScope | str | None = None,
    description: str | None = None,
) -> key_pb2.CreateUserKeyRequest:
    """Return a request for a new key. A scope is sent as its preset, as the published client does.

    Args:
        preset: a preset, or its name in any case.
        permissions: single permissions, such as "serverless:apps:run".
        scope: a scope, or its name in any case.
        description: a note that helps to tell keys apart.

    Raises:
        ArgumentError: not exactly one of the three is given, or a name is unknown.
    """
    from fal_grpc.v1 import key_pb2

    if sum(grant is not None for grant in (preset, permissions, scope)) != 1:
        raise ArgumentError("scope", "give exactly one of scope ('admin' or 'api'), preset and permissions")
    if scope is not None:
        preset = _PRESET_OF_SCOPE[parse_scope(scope)]
    allowed = [] if permissions is None else texts("permissions", permissions)
    if permissions is not None and not allowed:
        raise ArgumentError("permissions", "must be a list with at least one permission")
    return key_pb2.CreateUserKeyRequest(
        policy_preset=None if preset is None else parse_preset(preset).value,
        policy=None if permissions is None else key_pb2.KeyPolicy(permissions=allowed),
        alias=optional_text("description", description),
    )


def list_request() -> key_pb2.ListUserKeysRequest:
    from fal_grpc.v1 import key_pb2

    return key_pb2.ListUserKeysRequest()


def revoke_request(key_id: str) -> key_pb2.RevokeUserKeyRequest:
    from fal_grpc.v1 import key_pb2

    if ":" in text("key_id", key_id, "must be an id that is not empty; `fal keys list` lists the keys"):
        # Not shown: a whole key has its secret in it.
        raise ArgumentError("key_id", "give only the part before the colon; the secret is not needed")
    return key_pb2.RevokeUserKeyRequest(key_id=key_id)


def parse_scope(scope: KeyScope | str) -> KeyScope:
    name = text("scope", scope, "must be 'admin' or 'api'").upper()
    if name not in KeyScope.__members__:
        raise ArgumentError("scope", f"must be 'admin' or 'api', not {scope!r}")
    return KeyScope[name]


def parse_preset(preset: KeyPreset | str) -> KeyPreset:
    name = text("preset", preset, f"must be one of {', '.join(KeyPreset.__members__)}").upper()
    if name not in KeyPreset.__members__:
        raise ArgumentError("preset", f"must be one of {', '.join(KeyPreset.__members__)}, not {preset!r}")
    return KeyPreset[name]
