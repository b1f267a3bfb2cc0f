"""Accounts and their members in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, RowMapping, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Account, AccountKind, Environment, Key, Role, TeamMember
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.quotas import Quotas
from fal_server.store.sql import environments, keys
from fal_server.store.sql.database import Database, explained
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.tables import ACCOUNTS, MEMBERS, owned_by


class SqlAccountStore:
    """The AccountStore port, in the database of a Store, which closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[Account]:
        query = select(ACCOUNTS).order_by(ACCOUNTS.c.nickname)

        async def work(connection: AsyncConnection) -> list[Account]:
            return [_account(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)

    async def add(self, account: Account, environment: Environment, key: Key) -> None:
        row = {
            "account": account.id,
            "nickname": account.nickname,
            "kind": account.kind.value,
            "full_name": account.full_name,
            "created_at": key.created_at,
            "quotas": dict(account.quotas.unusual),
        }

        async def work(connection: AsyncConnection) -> None:
            with explained(taken=f"account {account.nickname!r} exists already: choose another nickname"):
                await connection.execute(insert(ACCOUNTS), row)
            await environments.add(connection, environment)
            await keys.add(connection, key)

        await self._database.write(work)

    async def rename(self, account: AccountId, nickname: str, full_name: str) -> bool:
        change = update(ACCOUNTS).where(owned_by(ACCOUNTS, account)).values(nickname=nickname, full_name=full_name)

        async def work(connection: AsyncConnection) -> bool:
            with explained(taken=f"account {nickname!r} exists already: choose another nickname"):
                return (await connection.execute(change)).rowcount > 0

        return await self._database.write(work)

    async def save_quotas(self, account: AccountId, quotas: Quotas) -> bool:
        change = update(ACCOUNTS).where(owned_by(ACCOUNTS, account)).values(quotas=dict(quotas.unusual))

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(change)).rowcount > 0

        return await self._database.write(work)

    async def members(self, team: AccountId) -> Sequence[TeamMember]:
        return await self._members(owned_by(MEMBERS, team))

    async def memberships(self, user: AccountId) -> Sequence[TeamMember]:
        return await self._members(MEMBERS.c.user == user)

    async def save_member(self, member: TeamMember) -> None:
        row = {"account": member.team, "user": member.user, "role": member.role.value, "added_at": member.added_at}

        async def work(connection: AsyncConnection) -> None:
            with explained(missing="the team or the user does not exist"):
                await connection.execute(upsert(connection, MEMBERS), row)

        await self._database.write(work)

    async def remove_member(self, team: AccountId, user: AccountId) -> bool:
        one = delete(MEMBERS).where(owned_by(MEMBERS, team), MEMBERS.c.user == user)

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(one)).rowcount > 0

        return await self._database.write(work)

    async def _members(self, which: ColumnElement[bool]) -> Sequence[TeamMember]:
        query = select(MEMBERS).where(which).order_by(MEMBERS.c.added_at, MEMBERS.c.account, MEMBERS.c.user)

        async def work(connection: AsyncConnection) -> list[TeamMember]:
            return [_member(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.read(work)


def _account(row: RowMapping) -> Account:
    account, kind = AccountId(row["account"]), AccountKind(row["kind"])
    return Account(
        id=account,
        nickname=row["nickname"],
        kind=kind,
        # The first account had its id before there were kinds, and webhooks are signed with it.
        user_id=f"{LOCAL if account == LOCAL else kind.value}|{account}",
        full_name=row["full_name"],
        quotas=Quotas(**row["quotas"]),
    )


def _member(row: RowMapping) -> TeamMember:
    return TeamMember(
        team=AccountId(row["account"]),
        user=AccountId(row["user"]),
        role=Role(row["role"]),
        added_at=row["added_at"],
    )
