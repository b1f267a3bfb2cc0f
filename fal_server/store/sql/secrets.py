"""Sealed secrets in the database."""

from __future__ import annotations

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import SealedSecret
from fal_server.core.identity import AccountId
from fal_server.store.sql.database import explained
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.tables import SECRETS, owned_by


def to_row(secret: SealedSecret) -> dict[str, object]:
    return {
        "account": secret.account,
        "environment": secret.environment,
        "name": secret.name,
        "sealed": secret.sealed,
        "created_at": secret.created_at,
        "default_exposed": secret.default_exposed,
    }


def from_row(row: RowMapping) -> SealedSecret:
    return SealedSecret(
        account=AccountId(row["account"]),
        environment=row["environment"],
        name=row["name"],
        sealed=row["sealed"],
        created_at=row["created_at"],
        default_exposed=row["default_exposed"],
    )


async def save(connection: AsyncConnection, secret: SealedSecret) -> None:
    """Insert or replace a secret.

    Raises:
        FailedPrecondition: its environment does not exist.
    """
    with explained(missing=f"environment {secret.environment!r} does not exist: create it first"):
        await connection.execute(upsert(connection, SECRETS), to_row(secret))


async def list_all(connection: AsyncConnection, account: AccountId, environment: str | None) -> list[SealedSecret]:
    """Return secrets by environment and name."""
    query = select(SECRETS).where(owned_by(SECRETS, account)).order_by(SECRETS.c.environment, SECRETS.c.name)
    if environment is not None:
        query = query.where(SECRETS.c.environment == environment)
    return [from_row(row) for row in (await connection.execute(query)).mappings()]


async def remove(connection: AsyncConnection, account: AccountId, environment: str, name: str) -> bool:
    """Delete a secret; return False if it does not exist."""
    chosen = delete(SECRETS).where(owned_by(SECRETS, account))
    chosen = chosen.where(SECRETS.c.environment == environment, SECRETS.c.name == name)
    return (await connection.execute(chosen)).rowcount > 0
