"""API keys: creates, lists and revokes them. A secret is shown once and stored as a hash."""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fal_server.access.authentication import Authenticator, hash_secret, latest
from fal_server.access.permissions import (
    EVERYTHING,
    PRESET_OF_SCOPE,
    PRESETS,
    checked_permissions,
    excess,
    preset_permissions,
)
from fal_server.access.resources import bare, for_resource, read, require_whole
from fal_server.core.accounts import Key, KeyScope
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from fal_server.core.identity import LOCAL, AccountId, Principal, Scope
from fal_server.core.names import checked_text, identifier
from fal_server.live.catalog import existing_environment
from fal_server.ports import Clock, Store

MOST_KEYS = 1000
_LONGEST_ALIAS = 256
_LONGEST_OVERLAP = timedelta(days=90)
_ID = re.compile(r"[0-9a-f-]{1,64}")


class Keys:
    """The use cases of keys.

    Args:
        access: drops a revoked key, so that it is rejected from then on.
    """

    def __init__(self, store: Store, clock: Clock, access: Authenticator) -> None:
        self._store = store
        self._clock = clock
        self._access = access
        self._changes = asyncio.Lock()

    async def create(
        self,
        creator: Principal | None,
        *,
        scope: KeyScope | None = None,
        preset: str | None = None,
        permissions: Sequence[str] | None = None,
        alias: str = "",
        expires_at: datetime | None = None,
        for_app: str | None = None,
        for_environment: str | None = None,
    ) -> tuple[str, str]:
        """Create a key with `permissions`, else those of `preset`, else of `scope`. With none given, it has all.

        Args:
            creator: the caller, whose permissions the key cannot exceed; None is the controller itself.
            alias: a note for people, at most 256 characters.
            expires_at: None means never.
            for_app: the only app, without its environment, that the key is for; None means all.
            for_environment: its environment, or without an app the only environment that the key is for; None means
                all.

        Returns:
            (key id, secret); the secret can never be read again.

        Raises:
            InvalidArgument: a preset, permission or name is not valid, the note is not valid, or the time has passed;
                or none of the permissions can be restricted to one app.
            NotFound: there is no environment of that name.
            PermissionDenied: the creator lacks some of the permissions.
            ResourceExhausted: there are too many keys.
        """
        if permissions is not None:
            plain, app, environment = read(permissions)
            for_app = app if for_app is None else for_app
            for_environment = environment if for_environment is None else for_environment
            name, granted = "", checked_permissions(plain)
        else:
            name = PRESET_OF_SCOPE[scope or KeyScope.ADMIN] if preset is None else preset.upper()
            granted = preset_permissions(name if preset is None else preset)
        checked_text(alias, "alias", _LONGEST_ALIAS)
        if expires_at is not None and expires_at <= latest(self._clock):
            raise InvalidArgument("expires_at", f"expires_at is {expires_at:%Y-%m-%d %H:%M:%S} UTC, which is over")
        account = LOCAL if creator is None else creator.scope.account
        if for_environment:
            await existing_environment(self._store, account, for_environment, "for_environment")
        if for_app is not None or for_environment is not None:
            name, granted = "", for_resource(granted, for_app, for_environment or "")
        if creator is not None:
            _require_to_hold(creator, granted)
        secret = secrets.token_hex(32)
        key = Key(
            account=account,
            key_id=str(uuid.uuid4()),
            secret_hash=hash_secret(secret),
            scope=KeyScope.ADMIN if EVERYTHING in granted else KeyScope.API,
            alias=alias,
            created_at=self._clock.now(),
            preset=name,
            permissions=granted,
            expires_at=expires_at,
        )
        async with self._changes:
            await self._add(key)
        return key.key_id, secret

    def new_master(self, account: AccountId, alias: str) -> tuple[Key, str]:
        """Return a new, unstored key that may do everything, and its secret."""
        secret = secrets.token_hex(32)
        key = Key(
            account=account,
            key_id=str(uuid.uuid4()),
            secret_hash=hash_secret(secret),
            scope=KeyScope.ADMIN,
            alias=alias,
            created_at=self._clock.now(),
            preset=PRESET_OF_SCOPE[KeyScope.ADMIN],
            permissions=preset_permissions(PRESET_OF_SCOPE[KeyScope.ADMIN]),
        )
        return key, secret

    async def rotate(self, caller: Principal, key_id: str, overlap: timedelta) -> tuple[str, str]:
        """Create a key like another one, which expires after the overlap.

        If the other one had an expiry, the new one gets the same lifetime, counted from now.

        Returns:
            (key id, secret); the secret can never be read again.

        Raises:
            InvalidArgument: the id is malformed, or the overlap is not between 0 and 90 days.
            NotFound: there is no such key, or it is already revoked or expired.
            PermissionDenied: the caller lacks some of its permissions.
            ResourceExhausted: there are too many keys.
        """
        identifier(key_id, "key_id")
        if not timedelta() <= overlap <= _LONGEST_OVERLAP:
            raise InvalidArgument("overlap", f"overlap is {overlap}: give at most {_LONGEST_OVERLAP.days} days")
        account = caller.scope.account
        async with self._changes:
            now = latest(self._clock)
            listed = await self._store.list_keys(account)
            old = next((key for key in listed if key.key_id == key_id and not key.has_expired(now)), None)
            if old is None:
                raise _no_such_key(key_id)
            _require_to_hold(caller, old.permissions)
            secret = secrets.token_hex(32)
            new = replace(
                old,
                key_id=str(uuid.uuid4()),
                secret_hash=hash_secret(secret),
                created_at=self._clock.now(),
                expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
                last_used_at=None,
            )
            await self._add(new)
            if overlap:
                end = now + overlap if old.expires_at is None else min(now + overlap, old.expires_at)
                await self._store.expire_key(account, key_id, end)
                self._access.expires(key_id, end)
            else:
                await self._store.revoke_key(account, key_id, self._clock.now())
                self._access.forget(key_id)
        return new.key_id, secret

    async def _add(self, key: Key) -> None:
        if len(await self._store.list_keys(key.account)) >= MOST_KEYS:
            raise ResourceExhausted(f"there are {MOST_KEYS} keys already: revoke one that is not needed")
        await self._store.add_key(key)

    async def list(self, scope: Scope) -> Sequence[Key]:
        """Return the keys that are not revoked, oldest first."""
        return await self._store.list_keys(scope.account)

    async def find(self, scope: Scope, key_id: str) -> Key | None:
        """Return a key, even a revoked one. None for one that is not stored, such as a runner's."""
        return await self._store.get_key(scope.account, key_id)

    async def revoke(self, scope: Scope, key_id: str) -> None:
        """Revoke a key; when this returns, no call is accepted with it.

        Raises:
            InvalidArgument: the id is malformed.
            NotFound: there is no such key, or it is already revoked.
            FailedPrecondition: it is the last key with all permissions that does not expire, without which nobody could
                create another.
        """
        await self._revoke(scope.account, key_id)

    def has_ended(self, key_id: str) -> None:
        """Reject calls with a key that the store no longer accepts. End those in progress."""
        self._access.forget(key_id)

    async def _revoke(self, account: AccountId, key_id: str) -> None:
        identifier(key_id, "key_id")
        async with self._changes:
            keys = await self._store.list_keys(account)
            if not any(key.key_id == key_id for key in keys):
                raise _no_such_key(key_id)
            masters = [key for key in keys if EVERYTHING in key.permissions and key.expires_at is None]
            if [key.key_id for key in masters] == [key_id]:
                raise FailedPrecondition(
                    f"key {key_id} is the last ADMIN key that does not expire, without which no other could be made: "
                    "create another ADMIN key first, and revoke this one with it"
                )
            revoked = await self._store.revoke_key(account, key_id, self._clock.now())
            self._access.forget(key_id)
        if not revoked:
            raise _no_such_key(key_id)

    async def replacement_for(self, written: str | None, alias: str) -> str | None:
        """Return the administrator's key for its file, as `id:secret`. None if the file may stay.

        Args:
            written: the content of the file; None if it does not exist.
            alias: of administrator's keys.
        """
        known = await self._store.list_keys(LOCAL)
        if written is None:
            if any(key.alias != alias for key in known):
                return None  # the file was removed on purpose, because there are other keys
            key_id, secret = await self.create(None, alias=alias)
            for key in known:  # from a start that ended before it wrote its key, so nobody has that key
                await self._revoke(LOCAL, key.key_id)
            return f"{key_id}:{secret}"
        key_id, _, secret = written.strip().partition(":")
        found = await self._store.get_key(LOCAL, key_id) if _ID.fullmatch(key_id) else None
        if found is not None and found.secret_hash == hash_secret(secret):
            return None  # even a revoked one, because somebody revoked it
        key_id, secret = await self.create(None, alias=alias)
        return f"{key_id}:{secret}"

    async def bootstrap(self, alias: str = "made at the first start") -> tuple[str, str] | None:
        """Create the first ADMIN key and return its id and secret. None if there already is one."""
        if any(EVERYTHING in key.permissions for key in await self._store.list_keys(LOCAL)):
            return None
        return await self.create(None, preset="FULL", alias=alias)


def _require_to_hold(caller: Principal, permissions: Sequence[str]) -> None:
    require_whole(caller)
    beyond = excess(bare(permissions), caller.scope.permissions)
    if beyond:
        raise PermissionDenied(
            f"key {caller.key_id} cannot give what it lacks itself ({', '.join(beyond)}): "
            "ask for less, or use a key that has it"
        )


def _no_such_key(key_id: str) -> NotFound:
    return NotFound(f"key {key_id}", "it never existed, is revoked or has expired; `fal keys list` shows the keys")


def coarse_scope(key: Key) -> KeyScope | None:
    """Return a key's permissions as the older scope. None if no scope is equivalent."""
    for scope, preset in PRESET_OF_SCOPE.items():
        if set(key.permissions) == set(PRESETS[preset]):
            return scope
    return None
