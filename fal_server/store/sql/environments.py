"""Environments in the database."""

from __future__ import annotations

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Environment
from fal_server.core.identity import AccountId
from fal_server.store.sql.database import explained
from fal_server.store.sql.dialect import insert_missing
from fal_server.store.sql.tables import ENVIRONMENTS, owned_by


def to_row(environment: Environment) -> dict[str, object]:
    return {
        "account": environment.account,
        "name": environment.name,
        "description": environment.description,
        "is_default": environment.is_default,
        "created_at": environment.created_at,
    }


def from_row(row: RowMapping) -> Environment:
    return Environment(
        account=AccountId(row["account"]),
        name=row["name"],
        description=row["description"],
        is_default=row["is_default"],
        created_at=row["created_at"],
    )


async def add(connection: AsyncConnection, environment: Environment) -> bool:
    """Insert an environment. Return False if the account already has one of this name."""
    result = await connection.execute(insert_missing(connection, ENVIRONMENTS), to_row(environment))
    return result.rowcount > 0


async def get(connection: AsyncConnection, account: AccountId, name: str) -> Environment | None:
    """Return one environment, or None."""
    query = select(ENVIRONMENTS).where(owned_by(ENVIRONMENTS, account), ENVIRONMENTS.c.name == name)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else from_row(row)


async def list_all(connection: AsyncConnection, account: AccountId) -> list[Environment]:
    """Return all environments, the default one first, then by name."""
    query = select(ENVIRONMENTS).where(owned_by(ENVIRONMENTS, account))
    query = query.order_by(ENVIRONMENTS.c.is_default.desc(), ENVIRONMENTS.c.name)
    return [from_row(row) for row in (await connection.execute(query)).mappings()]


async def remove(connection: AsyncConnection, account: AccountId, name: str) -> bool:
    """Delete an environment with its secrets. Return False if it does not exist.

    Raises:
        FailedPrecondition: it still has apps.
    """
    with explained(missing=f"environment {name!r} still has apps: delete them first"):
        mine = delete(ENVIRONMENTS).where(owned_by(ENVIRONMENTS, account), ENVIRONMENTS.c.name == name)
        result = await connection.execute(mine)
    return result.rowcount > 0
