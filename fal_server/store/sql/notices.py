"""Notices in the database, and the problems of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import RowMapping, and_, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.identity import AccountId, Accounts
from fal_server.core.notices import Notice, NoticeCondition, NoticeForm, Problem
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import insert_missing, upsert
from fal_server.store.sql.tables import NOTICE_PROBLEMS, NOTICES, owned_by


class SqlNoticeStore:
    """The NoticeStore port, in the database of a Store, which closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, notice: Notice) -> bool:
        taken = select(NOTICES.c.name).where(owned_by(NOTICES, notice.account), NOTICES.c.name == notice.name)

        async def work(connection: AsyncConnection) -> bool:
            if (await connection.execute(taken)).first() is not None:
                return False
            return (await connection.execute(insert_missing(connection, NOTICES), _to_row(notice))).rowcount > 0

        return await self._database.write(work)

    async def list(self, account: Accounts) -> Sequence[Notice]:
        query = select(NOTICES).where(owned_by(NOTICES, account)).order_by(NOTICES.c.account, NOTICES.c.name)

        async def work(connection: AsyncConnection) -> Sequence[Notice]:
            return [_from_row(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)

    async def get(self, account: AccountId, name: str) -> Notice | None:
        query = select(NOTICES).where(owned_by(NOTICES, account), NOTICES.c.name == name)

        async def work(connection: AsyncConnection) -> Notice | None:
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else _from_row(row)

        return await self._database.read(work)

    async def delete(self, account: AccountId, name: str) -> bool:
        chosen = delete(NOTICES).where(owned_by(NOTICES, account), NOTICES.c.name == name)

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(chosen)).rowcount > 0

        return await self._database.write(work)

    async def problems(self, notice_id: str) -> Sequence[Problem]:
        of_it = NOTICE_PROBLEMS.c.notice_id == notice_id
        order = (NOTICE_PROBLEMS.c.began_at, NOTICE_PROBLEMS.c.condition, NOTICE_PROBLEMS.c.subject)
        query = select(NOTICE_PROBLEMS).where(of_it).order_by(*order)

        async def work(connection: AsyncConnection) -> Sequence[Problem]:
            return [_problem(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)

    async def save(self, notice_id: str, problems: Sequence[Problem]) -> None:
        async def work(connection: AsyncConnection) -> None:
            await _save(connection, notice_id, problems)

        await self._database.write(work)

    async def told(self, notice_id: str, problems: Sequence[Problem], at: datetime) -> None:
        sent = update(NOTICES).where(NOTICES.c.notice_id == notice_id)
        sent = sent.values(last_sent_at=at, last_error=None, last_error_at=None)
        lasting = [replace(each, told_at=at) for each in problems if each.ended_at is None]
        ended = [
            and_(NOTICE_PROBLEMS.c.condition == each.condition.value, NOTICE_PROBLEMS.c.subject == each.subject)
            for each in problems
            if each.ended_at is not None
        ]

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sent)
            await _save(connection, notice_id, lasting)
            for one in ended:
                await connection.execute(delete(NOTICE_PROBLEMS).where(NOTICE_PROBLEMS.c.notice_id == notice_id, one))

        await self._database.write(work)

    async def fail(self, notice_id: str, error: str, at: datetime) -> None:
        change = update(NOTICES).where(NOTICES.c.notice_id == notice_id).values(last_error=error, last_error_at=at)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(change)

        await self._database.write(work)


async def _save(connection: AsyncConnection, notice_id: str, problems: Sequence[Problem]) -> None:
    there = select(exists().where(NOTICES.c.notice_id == notice_id))
    if problems and (await connection.execute(there)).scalar_one():
        await connection.execute(upsert(connection, NOTICE_PROBLEMS), [_problem_row(notice_id, p) for p in problems])


def _to_row(notice: Notice) -> dict[str, object]:
    return {
        "notice_id": notice.notice_id,
        "account": notice.account,
        "name": notice.name,
        "form": notice.form.value,
        "receiver": notice.receiver,
        "thresholds": {condition.value: value for condition, value in notice.thresholds.items()},
        "apps": list(notice.apps),
        "signed": notice.signed,
        "created_at": notice.created_at,
        "sealed": notice.sealed,
        "last_sent_at": notice.last_sent_at,
        "last_error": notice.last_error,
        "last_error_at": notice.last_error_at,
    }


def _from_row(row: RowMapping) -> Notice:
    return Notice(
        account=AccountId(row["account"]),
        notice_id=row["notice_id"],
        name=row["name"],
        form=NoticeForm(row["form"]),
        receiver=row["receiver"],
        thresholds={NoticeCondition(name): value for name, value in row["thresholds"].items()},
        apps=tuple(row["apps"]),
        signed=row["signed"],
        created_at=row["created_at"],
        sealed=row["sealed"],
        last_sent_at=row["last_sent_at"],
        last_error=row["last_error"],
        last_error_at=row["last_error_at"],
    )


def _problem_row(notice_id: str, problem: Problem) -> dict[str, object]:
    return {
        "notice_id": notice_id,
        "condition": problem.condition.value,
        "subject": problem.subject,
        "value": problem.value,
        "detail": problem.detail,
        "began_at": problem.began_at,
        "told_at": problem.told_at,
        "missing_since": problem.missing_since,
        "ended_at": problem.ended_at,
    }


def _problem(row: RowMapping) -> Problem:
    return Problem(
        condition=NoticeCondition(row["condition"]),
        subject=row["subject"],
        value=row["value"],
        detail=row["detail"],
        began_at=row["began_at"],
        told_at=row["told_at"],
        missing_since=row["missing_since"],
        ended_at=row["ended_at"],
    )
