"""API keys: what they may do, and what is told about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import moment
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import key_pb2


class KeyScope(StrEnum):
    """The coarse form of what a key may do: everything, or call apps and nothing else."""

    ADMIN = "ADMIN"
    API = "API"


class KeyPreset(StrEnum):
    """A named set of permissions. FULL is what the scope ADMIN may do."""

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
        scope: what it may do; None for a key that no scope describes.
        alias: the note that it was made with.
    """

    key_id: str
    created_at: datetime
    scope: KeyScope | None
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made. Its secret cannot be read again."""

    key_id: str
    key_secret: str = field(repr=False)


SCOPES: Mapping[int, KeyScope] = {0: KeyScope.ADMIN, 1: KeyScope.API}
_PRESET_OF_SCOPE = {KeyScope.ADMIN: KeyPreset.FULL, KeyScope.API: KeyPreset.API}


def new_key(message: key_pb2.CreateUserKeyResponse) -> NewKey:
    """A key that was just made."""
    return NewKey(key_id=message.key_id, key_secret=message.key_secret)


def key_infos(message: key_pb2.ListUserKeysResponse) -> list[UserKeyInfo]:
    """The keys, in the order that the controller gave."""
    return [
        UserKeyInfo(
            key_id=item.key_id,
            created_at=moment(item.created_at),
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
    """A request for a new key.

    A scope is sent as the preset that means the same, as the published client does.

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
    if permissions is not None and (isinstance(permissions, str) or not permissions):
        raise ArgumentError("permissions", "must be a list with at least one permission")
    return key_pb2.CreateUserKeyRequest(
        policy_preset=None if preset is None else parse_preset(preset).value,
        policy=None if permissions is None else key_pb2.KeyPolicy(permissions=permissions),
        alias=description,
    )


def list_request() -> key_pb2.ListUserKeysRequest:
    """A request for the keys."""
    from fal_grpc.v1 import key_pb2

    return key_pb2.ListUserKeysRequest()


def revoke_request(key_id: str) -> key_pb2.RevokeUserKeyRequest:
    """A request to end a key."""
    from fal_grpc.v1 import key_pb2

    if not key_id:
        raise ArgumentError("key_id", "must not be empty; `fal keys list` lists the keys")
    if ":" in key_id:
        # Not echoed: whoever pastes a whole key here pastes its secret.
        raise ArgumentError("key_id", "give only the part before the colon; the secret is not needed")
    return key_pb2.RevokeUserKeyRequest(key_id=key_id)


def parse_scope(word: KeyScope | str) -> KeyScope:
    """A scope by its name, in any case."""
    name = word.value if isinstance(word, KeyScope) else word.upper()
    if name not in KeyScope.__members__:
        raise ArgumentError("scope", f"must be 'admin' or 'api', not {word!r}")
    return KeyScope[name]


def parse_preset(word: KeyPreset | str) -> KeyPreset:
    """A preset by its name, in any case."""
    name = word.value if isinstance(word, KeyPreset) else word.upper()
    if name not in KeyPreset.__members__:
        raise ArgumentError("preset", f"must be one of {', '.join(KeyPreset.__members__)}, not {word!r}")
    return KeyPreset[name]
