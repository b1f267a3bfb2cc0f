"""Recorded events of apps in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import RowMapping, and_, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.app_events import Category, ConfigChange, RecordedEvent
from fal_server.core.identity import AccountId, AppId, app_id_of_row
from fal_server.store.sql.tables import APP_EVENTS, owned_by


async def add(connection: AsyncConnection, events: Sequence[RecordedEvent]) -> None:
    """Add events, each with the next number of its app."""
    rows = APP_EVENTS.c
    for event in events:
        account, name = event.app_id.account, str(event.app_id)
        last = select(func.max(rows.sequence)).where(owned_by(APP_EVENTS, account), rows.app_name == name)
        number: int = (await connection.execute(last)).scalar() or 0
        values = {
            "account": account,
            "app_name": name,
            "sequence": number + 1,
            "at": event.at,
            "category": event.category.value,
            "called": event.called,
            "reason": event.reason,
            "new_revision_id": event.new_revision_id,
            "old_revision_id": event.old_revision_id,
            "config": event.config and asdict(event.config),
        }
        await connection.execute(insert(APP_EVENTS), values)


async def of_app(
    connection: AsyncConnection,
    app_id: AppId,
    since: datetime,
    until: datetime,
    before: tuple[datetime, int] | None,
    limit: int,
) -> list[RecordedEvent]:
    """Return events of an app, newest first."""
    rows = APP_EVENTS.c
    query = select(APP_EVENTS).where(
        owned_by(APP_EVENTS, app_id.account), rows.app_name == str(app_id), rows.at >= since, rows.at < until
    )
    if before is not None:
        query = query.where(or_(rows.at < before[0], and_(rows.at == before[0], rows.sequence < before[1])))
    query = query.order_by(rows.at.desc(), rows.sequence.desc()).limit(limit)
    return [_from_row(row) for row in (await connection.execute(query)).mappings()]


async def forget(connection: AsyncConnection, recorded_before: datetime) -> int:
    """Delete the events before a time; return how many."""
    return (await connection.execute(delete(APP_EVENTS).where(APP_EVENTS.c.at < recorded_before))).rowcount


def _from_row(row: RowMapping) -> RecordedEvent:
    config: Mapping[str, object] | None = row["config"]
    return RecordedEvent(
        app_id=app_id_of_row(AccountId(row["account"]), row["app_name"]),
        at=row["at"],
        category=Category(row["category"]),
        called=row["called"],
        reason=row["reason"],
        new_revision_id=row["new_revision_id"],
        old_revision_id=row["old_revision_id"],
        config=None if config is None else ConfigChange(**config),  # type: ignore[arg-type]  # as asdict wrote it
        number=row["sequence"],
    )
