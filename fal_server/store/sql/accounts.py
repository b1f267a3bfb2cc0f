"""Accounts and their members in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import ColumnElement, RowMapping, Table, delete, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.accounts import Account, AccountKind, DeletedAccount, Environment, Key, Role, TeamMember
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.quotas import Quotas
from fal_server.store.sql import environments, keys
from fal_server.store.sql.database import Database, explained
from fal_server.store.sql.dialect import upsert
from fal_server.store.sql.tables import ACCOUNTS, KEYS, MEMBERS, METADATA, owned_by

_ERASE_BATCH = 2000
# The tables with an account, in an order that their references allow; rows without their own account are deleted with
# those that they belong to.
_OF_ACCOUNTS = [table for table in reversed(METADATA.sorted_tables) if "account" in table.c and table is not ACCOUNTS]


class SqlAccountStore:
    """Implements the port AccountStore in a Store's database. The Store closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[Account]:
        query = select(ACCOUNTS).where(ACCOUNTS.c.deleted_at.is_(None)).order_by(ACCOUNTS.c.nickname)

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
        living = (owned_by(ACCOUNTS, account), ACCOUNTS.c.deleted_at.is_(None))
        change = update(ACCOUNTS).where(*living).values(nickname=nickname, full_name=full_name)

        async def work(connection: AsyncConnection) -> bool:
            with explained(taken=f"account {nickname!r} exists already: choose another nickname"):
                return (await connection.execute(change)).rowcount > 0

        return await self._database.write(work)

    async def save_quotas(self, account: AccountId, quotas: Quotas) -> bool:
        change = update(ACCOUNTS).where(owned_by(ACCOUNTS, account)).values(quotas=dict(quotas.unusual))

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(change)).rowcount > 0

        return await self._database.write(work)

    async def delete(self, account: AccountId, at: datetime) -> DeletedAccount | None:
        living = (owned_by(ACCOUNTS, account), ACCOUNTS.c.deleted_at.is_(None))
        # No account can have such a nickname, and each is unique.
        mark = update(ACCOUNTS).where(*living).values(deleted_at=at, nickname=f"deleted {account}")
        ended = update(KEYS).where(owned_by(KEYS, account), KEYS.c.revoked_at.is_(None)).values(revoked_at=at)

        async def work(connection: AsyncConnection) -> DeletedAccount | None:
            if not (await connection.execute(mark)).rowcount:
                return None
            await connection.execute(ended)
            await connection.execute(delete(MEMBERS).where(_either_side(account)))
            return await _deleted(connection, account, at)

        return await self._database.write(work)

    async def deleted(self) -> Sequence[DeletedAccount]:
        query = select(ACCOUNTS).where(ACCOUNTS.c.deleted_at.is_not(None)).order_by(ACCOUNTS.c.deleted_at)

        async def work(connection: AsyncConnection) -> list[DeletedAccount]:
            rows = (await connection.execute(query)).mappings().all()
            return [await _deleted(connection, AccountId(row["account"]), row["deleted_at"]) for row in rows]

        return await self._database.read(work)

    async def erase(self, account: AccountId) -> int:
        total = 0
        for table in _OF_ACCOUNTS:
            while erased := await self._database.write(partial(_erase_some, table=table, account=account)):
                total += erased
        if total:
            await self._database.give_back()
        return total

    async def forget(self, account: AccountId) -> bool:
        one = delete(ACCOUNTS).where(owned_by(ACCOUNTS, account), ACCOUNTS.c.deleted_at.is_not(None))

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(one)).rowcount > 0

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


async def _deleted(connection: AsyncConnection, account: AccountId, at: datetime) -> DeletedAccount:
    had = select(KEYS.c.key_id).where(owned_by(KEYS, account))
    return DeletedAccount(id=account, keys=frozenset((await connection.execute(had)).scalars()), deleted_at=at)


async def _erase_some(connection: AsyncConnection, table: Table, account: AccountId) -> int:
    deleted = select(ACCOUNTS.c.account).where(owned_by(ACCOUNTS, account), ACCOUNTS.c.deleted_at.is_not(None))
    if (await connection.execute(deleted)).first() is None:
        return 0
    key = tuple(table.primary_key)
    its = _either_side(account) if table is MEMBERS else owned_by(table, account)
    some = select(*key).where(its).limit(_ERASE_BATCH)
    return (await connection.execute(delete(table).where(tuple_(*key).in_(some)))).rowcount


def _either_side(account: AccountId) -> ColumnElement[bool]:
    """Restrict to the memberships of a team and of a user."""
    return or_(owned_by(MEMBERS, account), MEMBERS.c.user == account)


def _account(row: RowMapping) -> Account:
    account, kind = AccountId(row["account"]), AccountKind(row["kind"])
    return Account(
        id=account,
        nickname=row["nickname"],
        kind=kind,
        # The first account got its id before accounts had kinds, and webhooks are signed with it.
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
