"""Apps in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.apps import App, AuthMode
from fal_server.core.identity import AccountId, Accounts
from fal_server.core.scaling import Scaling
from fal_server.store.sql.database import explained
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.tables import APPS, owned_by


def scaling_from(stored: Mapping[str, object]) -> Scaling:
    """Return scaling settings from their JSON."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return Scaling(**values)  # type: ignore[arg-type]  # Scaling checks its own bounds


def to_row(app: App) -> dict[str, object]:
    return {
        "account": app.account,
        "name": app.name,
        "environment": app.environment,
        "revision_id": app.revision_id,
        "next_revision_id": app.next_revision_id,
        "auth_mode": app.auth_mode.value,
        "scaling": asdict(app.scaling),
        "created_at": app.created_at,
        "updated_at": app.updated_at,
        "next_auth_mode": app.next_auth_mode and app.next_auth_mode.value,
        "next_scaling": app.next_scaling and asdict(app.next_scaling),
    }


def from_row(row: RowMapping) -> App:
    return App(
        account=AccountId(row["account"]),
        name=row["name"],
        environment=row["environment"],
        revision_id=row["revision_id"],
        next_revision_id=row["next_revision_id"],
        auth_mode=AuthMode(row["auth_mode"]),
        scaling=scaling_from(row["scaling"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        next_auth_mode=row["next_auth_mode"] and AuthMode(row["next_auth_mode"]),
        next_scaling=row["next_scaling"] and scaling_from(row["next_scaling"]),
    )


async def save(connection: AsyncConnection, app: App) -> None:
    """Insert or replace an app.

    Raises:
        FailedPrecondition: its revision or environment does not exist.
    """
    with explained(missing=f"app {app.name!r} needs a revision and an environment that exist: register them first"):
        await connection.execute(upsert(connection, APPS), to_row(app))


async def get(connection: AsyncConnection, account: AccountId, name: str) -> App | None:
    """Return one app, or None."""
    query = select(APPS).where(owned_by(APPS, account), APPS.c.name == name)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else from_row(row)


async def list_all(connection: AsyncConnection, account: Accounts, environment: str | None) -> list[App]:
    """Return apps by account and name."""
    query = select(APPS).where(owned_by(APPS, account)).order_by(APPS.c.account, APPS.c.name)
    if environment is not None:
        query = query.where(APPS.c.environment == environment)
    return [from_row(row) for row in (await connection.execute(query)).mappings()]


async def remove(connection: AsyncConnection, account: AccountId, name: str) -> App | None:
    """Delete an app and return it; None if it does not exist."""
    app = await get(connection, account, name)
    await connection.execute(delete(APPS).where(owned_by(APPS, account), APPS.c.name == name))
    return app
