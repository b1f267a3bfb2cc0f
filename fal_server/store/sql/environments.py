"""Environments in the database."""

from __future__ import annotations

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Environment
from fal_server.store.sql.database import explained
from fal_server.store.sql.dialect import insert_missing
from fal_server.store.sql.tables import ENVIRONMENTS


def to_row(environment: Environment) -> dict[str, object]:
    """An environment as a row."""
    return {
        "name": environment.name,
        "description": environment.description,
        "is_default": environment.is_default,
        "created_at": environment.created_at,
    }


def from_row(row: RowMapping) -> Environment:
    """A row as an environment."""
    return Environment(
        name=row["name"],
        description=row["description"],
        is_default=row["is_default"],
        created_at=row["created_at"],
    )


async def add(connection: AsyncConnection, environment: Environment) -> bool:
    """Insert; False where the name is taken."""
    result = await connection.execute(insert_missing(connection, ENVIRONMENTS), to_row(environment))
    return result.rowcount > 0


async def get(connection: AsyncConnection, name: str) -> Environment | None:
    """One environment."""
    row = (await connection.execute(select(ENVIRONMENTS).where(ENVIRONMENTS.c.name == name))).mappings().one_or_none()
    return None if row is None else from_row(row)


async def list_all(connection: AsyncConnection) -> list[Environment]:
    """All, the default one first, then by name."""
    query = select(ENVIRONMENTS).order_by(ENVIRONMENTS.c.is_default.desc(), ENVIRONMENTS.c.name)
    return [from_row(row) for row in (await connection.execute(query)).mappings()]


async def remove(connection: AsyncConnection, name: str) -> bool:
    """Delete with its secrets; False where it was not there.

    Raises:
        Precondition: it still has apps.
    """
    with explained(missing=f"environment {name!r} still has apps: delete them first"):
        result = await connection.execute(delete(ENVIRONMENTS).where(ENVIRONMENTS.c.name == name))
    return result.rowcount > 0
