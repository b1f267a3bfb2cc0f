"""API keys and their permissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.account import bounds_of
from fal_grpc.adapter.values import duration, optional_text, text, texts, to_datetime, to_timestamp
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import key_pb2


class KeyScope(StrEnum):
    """A key's coarse permissions: everything (ADMIN), or only calling apps (API)."""

    ADMIN = "ADMIN"
    API = "API"


class KeyPreset(StrEnum):
    """A named set of permissions. FULL equals the scope ADMIN."""

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
        scope: its coarse permissions; None if no scope describes them.
        alias: the description that it was created with.
        expires_at: when it expires or expired; None if never, or if the controller does not say.
        last_used_at: when it was last used, to about a minute; None if never, or if the controller does not say.
        permissions: its permissions, such as "serverless:apps:run"; "*" means all. Empty if the controller does not
        say.
    """

    key_id: str
    created_at: datetime
    scope: KeyScope | None
    alias: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A newly created key. Its secret cannot be read again."""

    key_id: str
    key_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller, as the controller sees it.

    Attributes:
        account: the account's id.
        nickname: the account's nickname, the first part of its apps' paths; empty if the controller does not say.
        alias: the description that the key was created with.
        created_at: None for a key that the controller itself made, such as a runner's.
        expires_at: None if never.
        quotas: the account's limits by name, and each key's: `caller_requests_per_second`. 0 means no limit.
        used: the account's usage of each limit that is an amount; empty if the key may not read the account.
    """

    account: str
    nickname: str
    key_id: str
    permissions: tuple[str, ...]
    alias: str
    created_at: datetime | None
    expires_at: datetime | None
    quotas: Mapping[str, int]
    used: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginToken:
    """A token that stands for a key."""

    text: str = field(repr=False)
    expires_at: datetime


LONGEST_LOGIN = timedelta(days=90)
LONGEST_OVERLAP = timedelta(days=90)
SCOPES: Mapping[int, KeyScope] = {0: KeyScope.ADMIN, 1: KeyScope.API}
_PRESET_OF_SCOPE = {KeyScope.ADMIN: KeyPreset.FULL, KeyScope.API: KeyPreset.API}


def new_key(message: key_pb2.CreateUserKeyResponse | key_pb2.RotateUserKeyResponse) -> NewKey:
    return NewKey(key_id=message.key_id, key_secret=message.key_secret)


def caller(message: key_pb2.GetCallerResponse) -> Caller:
    return Caller(
        account=message.account,
        nickname=message.nickname,
        key_id=message.key_id,
        permissions=tuple(message.permissions),
        alias=message.alias,
        created_at=to_datetime(message.created_at) if message.HasField("created_at") else None,
        expires_at=to_datetime(message.expires_at) if message.HasField("expires_at") else None,
        quotas=bounds_of(message.quotas),
        used=bounds_of(message.used),
    )


def caller_request() -> key_pb2.GetCallerRequest:
    from fal_grpc.v1 import key_pb2

    return key_pb2.GetCallerRequest()


def key_infos(message: key_pb2.ListUserKeysResponse) -> list[UserKeyInfo]:
    return [
        UserKeyInfo(
            key_id=item.key_id,
            created_at=to_datetime(item.created_at),
            scope=SCOPES.get(item.scope),
            alias=item.alias,
            expires_at=to_datetime(item.expires_at) if item.HasField("expires_at") else None,
            last_used_at=to_datetime(item.last_used_at) if item.HasField("last_used_at") else None,
            permissions=tuple(item.permissions),
        )
        for item in message.user_keys
    ]


def create_request(
    *,
    preset: KeyPreset | str | None = None,
    permissions: Sequence[str] | None = None,
    scope: KeyScope | str | None = None,
    description: str | None = None,
    expires_at: datetime | None = None,
    for_app: str | None = None,
    environment_name: str | None = None,
) -> key_pb2.CreateUserKeyRequest:
    """Return a request for a new key. A scope is sent as its preset, as by the published client.

    Args:
        preset: a preset, or its name in any case.
        permissions: single permissions, such as "serverless:apps:run".
        scope: a scope, or its name in any case.
        description: a note that helps to tell keys apart.
        expires_at: when it expires; a naive one is local time.
        for_app: the only app that it is for; None means all.
        environment_name: the app's environment, or the only environment that it is for; None means all.

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
        expires_at=None if expires_at is None else to_timestamp(expires_at, argument="expires_at"),
        for_app=optional_text("for_app", for_app),
        for_environment=optional_text("environment_name", environment_name),
    )


def list_request() -> key_pb2.ListUserKeysRequest:
    from fal_grpc.v1 import key_pb2

    return key_pb2.ListUserKeysRequest()


def revoke_request(key_id: str) -> key_pb2.RevokeUserKeyRequest:
    from fal_grpc.v1 import key_pb2

    return key_pb2.RevokeUserKeyRequest(key_id=_id(key_id))


def rotate_request(key_id: str, overlap: timedelta) -> key_pb2.RotateUserKeyRequest:
    from google.protobuf.duration_pb2 import Duration

    from fal_grpc.v1 import key_pb2

    message = Duration()
    message.FromTimedelta(duration("overlap", overlap, at_most=LONGEST_OVERLAP))
    return key_pb2.RotateUserKeyRequest(key_id=_id(key_id), overlap=message)


def login_token(message: key_pb2.CreateLoginTokenResponse) -> LoginToken:
    return LoginToken(text=message.token, expires_at=to_datetime(message.expires_at))


def login_request(life: timedelta) -> key_pb2.CreateLoginTokenRequest:
    from google.protobuf.duration_pb2 import Duration

    from fal_grpc.v1 import key_pb2

    message = Duration()
    message.FromTimedelta(duration("life", life, at_most=LONGEST_LOGIN))
    return key_pb2.CreateLoginTokenRequest(life=message)


def _id(key_id: str) -> str:
    if ":" in text("key_id", key_id, "must be an id that is not empty; `fal keys list` lists the keys"):
        # Do not show the value: a complete key contains its secret.
        raise ArgumentError("key_id", "give only the part before the colon; the secret is not needed")
    return key_id


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
