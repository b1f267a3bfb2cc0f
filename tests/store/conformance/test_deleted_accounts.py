"""A deleted account leaves nothing in any table. It deletes nothing of others."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import func, select

from fal_server.access.audit import Recorder
from fal_server.core.accounts import Account, AccountKind, Role, TeamMember
from fal_server.core.app_events import failed_deploy
from fal_server.core.faults import AlreadyExists
from fal_server.core.identity import EVERY_ACCOUNT, LOCAL, AccountId, AppId, Principal, Scope
from fal_server.core.payloads import KeptPayload
from fal_server.core.requests import MinuteKey, RequestStats
from fal_server.store.sql.tables import ACCOUNTS, METADATA
from tests.fakes.history import NOON, record
from tests.store import strategies as some
from tests.store.conformance.test_accounts import fill
from tests.store.conformance.test_drains import drain
from tests.store.conformance.test_notices import notice, problem
from tests.store.conformance.test_workflows import run, workflow

GONE, STAYS = AccountId("gone"), AccountId("stays")
# Facts about the database itself.
OF_NOBODY = {"controllers", "epochs", "nodes", "settings"}


class Clock:
    def now(self):
        return NOON

    wall = now


async def make(store, account, kind=AccountKind.TEAM):
    made = Account(id=account, nickname=account, kind=kind, user_id=f"{kind.value}|{account}", full_name=account)
    main = replace(some.environment("main"), account=account)
    await store.accounts.add(made, main, replace(some.key(f"first-{account}"), account=account))


async def rows(store):
    """Return how many rows each table has."""

    async def counted(connection):
        return {
            table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in METADATA.sorted_tables
        }

    return await store.accounts._database.read(counted)


async def everything(store):
    """Return each row of each table as text."""

    async def read(connection):
        return {
            (table.name, str(tuple(row)))
            for table in METADATA.sorted_tables
            for row in (await connection.execute(select(table))).all()
        }

    return await store.accounts._database.read(read)


async def give(store, account):
    """Give an account a row in every table."""
    await make(store, account)
    await fill(store, account)
    await store.workflows.add(workflow(account=account))
    await store.workflows.save_run(run(f"run-{account}", account=account))
    records = [record("r", account=account)]
    key = MinuteKey(account=account, app_name="hello", endpoint="/", at=NOON)
    numbers = RequestStats()
    numbers.add(records[0])
    await store.requests.add(records, {key: numbers})
    sent = KeptPayload(account=account, request_id="r", ended_at=NOON, input=b"{}", output=None)
    await store.requests.add_payloads([sent])
    caller = Principal(key_id="k", scope=Scope(account=account, permissions=frozenset()))
    await Recorder(store.audit, Clock(), bytes(32)).record(caller, "a", "b")
    await store.record_event(failed_deploy(AppId.parse(account, "hello"), NOON, "why"))
    await store.drains.add(drain(account=account, drain_id=f"drain-{account}"))
    await store.drains.advance(f"drain-{account}", {f"runner-{account}": 1}, 1, NOON)
    await store.notices.add(notice(account=account, notice_id=f"notice-{account}"))
    await store.notices.save(f"notice-{account}", [problem()])
    lines = [some.line(number, runner_id=f"many-{account}") for number in range(1, 1100)]
    await store.logs.append([replace(line, account=account) for line in lines])
    assert await store.logs.seal(some.later(1100), 10) == 1
    await make(store, AccountId(f"user-{account}"), AccountKind.USER)
    member = TeamMember(team=account, user=AccountId(f"user-{account}"), role=Role.VIEWER, added_at=NOON)
    await store.accounts.save_member(member)


@pytest.fixture
async def one(store):
    """Return a store with one account, and its content. The test creates another one later."""
    await give(store, STAYS)
    return store, await everything(store)


async def test_nothing_is_left_in_any_table(one):
    store, before = one
    others = await rows(store)
    await give(store, GONE)
    both = await rows(store)
    assert {name for name in both if both[name] == others[name]} == OF_NOBODY, "the account has a row in every table"
    deleted = await store.accounts.delete(GONE, NOON)
    assert (deleted.id, deleted.keys) == (GONE, {f"first-{GONE}", f"key-{GONE}"})
    assert await store.accounts.erase(GONE) > 0
    assert await store.accounts.erase(GONE) == 0
    assert await store.accounts.forget(GONE)
    # The user is an account of its own.
    assert await store.accounts.delete(AccountId(f"user-{GONE}"), NOON)
    await store.accounts.erase(AccountId(f"user-{GONE}"))
    assert await store.accounts.forget(AccountId(f"user-{GONE}"))
    assert await everything(store) == before
    assert await store.accounts.deleted() == []


async def test_a_deleted_account_cannot_be_used(one):
    store, _ = one
    await give(store, GONE)
    await store.accounts.delete(GONE, NOON)
    assert GONE not in [account.id for account in await store.accounts.all()]
    assert [each.id for each in await store.accounts.deleted()] == [GONE]
    assert await store.list_keys(GONE) == []
    assert (await store.get_key(EVERY_ACCOUNT, f"first-{GONE}")).revoked_at == NOON
    assert await store.accounts.memberships(AccountId(f"user-{GONE}")) == []
    assert await store.accounts.delete(GONE, NOON) is None
    assert not await store.accounts.rename(GONE, "again", "again")
    made = Account(id=AccountId("new"), nickname=GONE, kind=AccountKind.TEAM, user_id="team|new", full_name="new")
    add = partial(store.accounts.add, made, replace(some.environment("main"), account=made.id))
    await add(replace(some.key("first-new"), account=made.id))  # the nickname is free
    with pytest.raises(AlreadyExists):
        await add(replace(some.key("second-new"), account=made.id))


async def test_an_account_that_is_not_deleted_is_never_erased(one):
    store, before = one
    for account in (STAYS, LOCAL, AccountId("nobody")):
        assert await store.accounts.erase(account) == 0
        assert not await store.accounts.forget(account)
    assert await everything(store) == before


def test_every_table_is_about_an_account_or_belongs_to_one_that_is():
    for table in METADATA.sorted_tables:
        parents = {key.column.table.name for key in table.foreign_keys if key.ondelete == "CASCADE"}
        about = "account" in table.c or any("account" in METADATA.tables[name].c for name in parents)
        assert about or table.name in OF_NOBODY or table is ACCOUNTS, table.name


async def test_lines_of_a_deleted_account_are_not_sealed(store):
    await make(store, GONE)
    lines = [some.line(number) for number in range(1, 1100)]
    await store.logs.append([replace(line, account=GONE) for line in lines])
    await store.accounts.delete(GONE, NOON)
    assert await store.logs.seal(some.later(1100), 10) == 0
