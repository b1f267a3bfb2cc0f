"""The audit log in the database. This module never updates or deletes a row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from sqlalchemy import RowMapping, Select, and_, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.audit import AuditEntry, AuditRow
from fal_server.core.identity import AccountId
from fal_server.store.sql.database import Database
from fal_server.store.sql.tables import AUDIT, owned_by


class SqlAuditStore:
    """Implements the port AuditStore in a Store's database. The Store closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, account: AccountId, make: Callable[[AuditRow | None], AuditRow]) -> None:
        last = select(AUDIT).where(owned_by(AUDIT, account)).order_by(AUDIT.c.sequence.desc()).limit(1)

        async def work(connection: AsyncConnection) -> None:
            before = (await connection.execute(last)).mappings().one_or_none()
            await connection.execute(insert(AUDIT), _to_row(make(None if before is None else _from_row(before))))

        await self._database.write(work)

    async def newest(
        self, account: AccountId, since: datetime | None, before: int | None, limit: int
    ) -> Sequence[AuditRow]:
        query = select(AUDIT).where(owned_by(AUDIT, account))
        if since is not None:
            query = query.where(AUDIT.c.at >= since)
        if before is not None:
            query = query.where(AUDIT.c.sequence < before)
        return await self._rows(query.order_by(AUDIT.c.sequence.desc()).limit(limit))

    async def of_actions(
        self,
        account: AccountId,
        actions: Collection[str],
        since: datetime,
        until: datetime,
        before: tuple[datetime, int] | None,
        limit: int,
    ) -> Sequence[AuditRow]:
        query = select(AUDIT).where(owned_by(AUDIT, account), AUDIT.c.action.in_(sorted(actions)))
        query = query.where(AUDIT.c.at >= since, AUDIT.c.at < until)
        if before is not None:
            at, number = before
            query = query.where(or_(AUDIT.c.at < at, and_(AUDIT.c.at == at, AUDIT.c.sequence < number)))
        return await self._rows(query.order_by(AUDIT.c.at.desc(), AUDIT.c.sequence.desc()).limit(limit))

    async def from_number(self, account: AccountId, first: int, limit: int) -> Sequence[AuditRow]:
        query = select(AUDIT).where(owned_by(AUDIT, account), AUDIT.c.sequence >= first)
        return await self._rows(query.order_by(AUDIT.c.sequence).limit(limit))

    async def _rows(self, query: Select[tuple[object, ...]]) -> Sequence[AuditRow]:
        async def work(connection: AsyncConnection) -> list[AuditRow]:
            return [_from_row(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)


def _to_row(row: AuditRow) -> dict[str, object]:
    entry = row.entry
    return {
        "account": entry.account,
        "sequence": row.sequence,
        "at": entry.at,
        "key_id": entry.key_id,
        "action": entry.action,
        "target": entry.target,
        "source": entry.source,
        "request_id": entry.request_id,
        "digest": row.digest,
    }


def _from_row(row: RowMapping) -> AuditRow:
    entry = AuditEntry(
        account=AccountId(row["account"]),
        at=row["at"],
        key_id=row["key_id"],
        action=row["action"],
        target=row["target"],
        source=row["source"],
        request_id=row["request_id"],
    )
    return AuditRow(sequence=row["sequence"], entry=entry, digest=row["digest"])
