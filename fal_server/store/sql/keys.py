"""Keys in the database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Key, KeyScope
from fal_server.core.identity import AccountId, Accounts
from fal_server.store.sql.database import explained
from fal_server.store.sql.tables import KEYS, owned_by


def to_row(key: Key) -> dict[str, object]:
    return {
        "account": key.account,
        "key_id": key.key_id,
        "secret_hash": key.secret_hash,
        "scope": key.scope.value,
        "alias": key.alias,
        "created_at": key.created_at,
        "preset": key.preset,
        "permissions": list(key.permissions),
        "revoked_at": key.revoked_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }


def from_row(row: RowMapping) -> Key:
    return Key(
        account=AccountId(row["account"]),
        key_id=row["key_id"],
        secret_hash=row["secret_hash"],
        scope=KeyScope(row["scope"]),
        alias=row["alias"],
        created_at=row["created_at"],
        preset=row["preset"],
        permissions=tuple(row["permissions"]),
        revoked_at=row["revoked_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )


async def add(connection: AsyncConnection, key: Key) -> None:
    """Insert a key.

    Raises:
        AlreadyExists: a key has this id.
    """
    with explained(taken=f"key {key.key_id!r} exists already: choose another id"):
        await connection.execute(insert(KEYS), to_row(key))


async def get(connection: AsyncConnection, account: Accounts, key_id: str) -> Key | None:
    """Return one key, or None; revoked keys are kept."""
    query = select(KEYS).where(owned_by(KEYS, account), KEYS.c.key_id == key_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else from_row(row)


async def list_valid(connection: AsyncConnection, account: Accounts) -> list[Key]:
    """Return the keys that are not revoked, oldest first."""
    query = select(KEYS).where(owned_by(KEYS, account), KEYS.c.revoked_at.is_(None))
    query = query.order_by(KEYS.c.created_at, KEYS.c.key_id)
    return [from_row(row) for row in (await connection.execute(query)).mappings()]


async def revoke(connection: AsyncConnection, account: AccountId, key_id: str, at: datetime) -> bool:
    """Mark a key as revoked. Return False if no valid key has this id."""
    valid = update(KEYS).where(owned_by(KEYS, account), KEYS.c.key_id == key_id, KEYS.c.revoked_at.is_(None))
    return (await connection.execute(valid.values(revoked_at=at))).rowcount > 0


async def expire(connection: AsyncConnection, account: AccountId, key_id: str, at: datetime) -> bool:
    """Set a key's expiry. Return False if no valid key has this id."""
    valid = update(KEYS).where(owned_by(KEYS, account), KEYS.c.key_id == key_id, KEYS.c.revoked_at.is_(None))
    return (await connection.execute(valid.values(expires_at=at))).rowcount > 0


async def note_use(connection: AsyncConnection, account: AccountId, key_id: str, at: datetime) -> bool:
    """Record a key's last use. Return False if no key has this id."""
    used = update(KEYS).where(owned_by(KEYS, account), KEYS.c.key_id == key_id)
    return (await connection.execute(used.values(last_used_at=at))).rowcount > 0
