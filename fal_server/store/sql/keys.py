"""Keys in the database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Key, KeyScope
from fal_server.store.sql.database import explained
from fal_server.store.sql.tables import KEYS


def to_row(key: Key) -> dict[str, object]:
    """A key as a row."""
    return {
        "key_id": key.key_id,
        "secret_hash": key.secret_hash,
        "scope": key.scope.value,
        "alias": key.alias,
        "created_at": key.created_at,
        "preset": key.preset,
        "permissions": list(key.permissions),
        "revoked_at": key.revoked_at,
    }


def from_row(row: RowMapping) -> Key:
    """A row as a key."""
    return Key(
        key_id=row["key_id"],
        secret_hash=row["secret_hash"],
        scope=KeyScope(row["scope"]),
        alias=row["alias"],
        created_at=row["created_at"],
        preset=row["preset"],
        permissions=tuple(row["permissions"]),
        revoked_at=row["revoked_at"],
    )


async def add(connection: AsyncConnection, key: Key) -> None:
    """Insert.

    Raises:
        AlreadyExists: a key of this id is there.
    """
    with explained(taken=f"key {key.key_id!r} exists already: choose another id"):
        await connection.execute(insert(KEYS), to_row(key))


async def get(connection: AsyncConnection, key_id: str) -> Key | None:
    """One key, also a revoked one."""
    row = (await connection.execute(select(KEYS).where(KEYS.c.key_id == key_id))).mappings().one_or_none()
    return None if row is None else from_row(row)


async def list_valid(connection: AsyncConnection) -> list[Key]:
    """Those that are not revoked, oldest first."""
    query = select(KEYS).where(KEYS.c.revoked_at.is_(None)).order_by(KEYS.c.created_at, KEYS.c.key_id)
    return [from_row(row) for row in (await connection.execute(query)).mappings()]


async def revoke(connection: AsyncConnection, key_id: str, at: datetime) -> bool:
    """Mark as revoked; False where there is no valid key of this id."""
    change = update(KEYS).where(KEYS.c.key_id == key_id, KEYS.c.revoked_at.is_(None)).values(revoked_at=at)
    return (await connection.execute(change)).rowcount > 0
