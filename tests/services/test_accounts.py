"""Accounts: who may create them, and what a team's members may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.access.acting import Teams
from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import PERMISSIONS, PRESETS, ROLE_PERMISSIONS, allows, common, excess
from fal_server.access.tokens import Tokens
from fal_server.core.accounts import RESERVED_NICKNAMES, Account, AccountKind, KnownAccounts, Role, TeamMember
from fal_server.core.faults import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from fal_server.core.identity import EVERY_ACCOUNT, LOCAL, AccountId, Principal, Scope
from fal_server.services.accounts import Accounts
from fal_server.services.keys import Keys
from fal_server.store import AesVault, SqlStore, open_store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWNER = Principal(key_id="owner", scope=Scope(account=LOCAL, permissions=frozenset({"*"})))


class Clock:
    def now(self) -> datetime:
        return NOON

    wall = now


@dataclass
class World:
    """Two users and a team, in a new database."""

    store: SqlStore
    known: KnownAccounts
    access: Authenticator
    keys: Keys
    tokens: Tokens
    teams: Teams
    accounts: Accounts

    async def make(self, nickname: str, kind: AccountKind) -> Principal:
        """Create an account; return the holder of its first key."""
        _, (key_id, secret) = await self.accounts.create(nickname, kind)
        return await self.access.authenticate(key_id, secret)

    def account(self, nickname: str) -> Account:
        found = self.known.named(nickname)
        assert found is not None
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = await open_store(None, AesVault(bytes(32)))
    clock, known = Clock(), KnownAccounts(await store.accounts.all())
    access = Authenticator(store, clock)
    keys = Keys(store, clock, access)
    tokens = Tokens(bytes(32), store, clock, lambda _: None)
    teams = Teams(store.accounts, known, tokens, access)
    yield World(store, known, access, keys, tokens, teams, Accounts(store.accounts, known, teams, keys, clock))
    await store.close()


@pytest.fixture
async def three(world: World) -> tuple[Principal, Principal, Principal]:
    """Return alice, bob and the team crew. In it alice is an admin, and bob is no member."""
    alice, bob = await world.make("alice", AccountKind.USER), await world.make("bob", AccountKind.USER)
    crew = await world.make("crew", AccountKind.TEAM)
    await world.accounts.save_member(crew, "crew", "alice", Role.ADMIN)
    return alice, bob, crew


async def test_a_new_account_is_whole_and_outlives_the_process(world: World) -> None:
    caller = await world.make("alice", AccountKind.USER)
    assert caller.scope.permissions == frozenset({"*"})
    assert [e.name for e in await world.store.list_environments(caller.scope.account)] == ["main"]
    assert world.accounts.account_of(caller).nickname == "alice"
    assert world.known.ids_by_nickname["alice"] == caller.scope.account
    assert [each.nickname for each in await world.store.accounts.all()] == ["alice", "local"]
    assert list(await world.store.accounts.all()) == world.known.all()


async def test_nicknames(world: World) -> None:
    await world.make("crew", AccountKind.TEAM)
    with pytest.raises(AlreadyExists):
        await world.make("crew", AccountKind.USER)
    for nickname in ["", "Crew", "a b", "-a", "a-", "a.b", "a" * 41, "é", *RESERVED_NICKNAMES]:
        with pytest.raises(InvalidArgument):
            await world.make(nickname, AccountKind.USER)
    keys = {key.account for key in await world.store.list_keys(EVERY_ACCOUNT)}
    assert len(keys) == 1, "a refused account leaves no key"


async def test_only_the_owner_sees_all(world: World, three: tuple[Principal, ...]) -> None:
    alice, bob, crew = three

    async def listed(caller: Principal, *, everything: bool = False) -> list[tuple[str, Role | None]]:
        found = await world.accounts.list(caller, everything=everything)
        return [(view.account.nickname, view.role) for view in found]

    assert await listed(alice) == [("alice", None), ("crew", Role.ADMIN)]
    assert await listed(bob) == [("bob", None)]
    assert await listed(OWNER, everything=True) == [("local", None), ("alice", None), ("bob", None), ("crew", None)]
    for caller in (alice, bob, crew):
        with pytest.raises(PermissionDenied, match="Only the controller's owner"):
            await world.accounts.list(caller, everything=True)


async def test_a_team_does_not_exist_for_others(world: World, three: tuple[Principal, ...]) -> None:
    _, bob, crew = three

    async def answers(team: str) -> list[str]:
        said = []
        for call in (
            world.accounts.members(bob, team),
            world.accounts.save_member(bob, team, "bob", Role.VIEWER),
            world.accounts.remove_member(bob, team, "alice"),
        ):
            with pytest.raises(NotFound) as raised:
                await call
            said.append(raised.value.message.replace(team, "TEAM"))
        return said

    assert await answers("crew") == await answers("nobody") == await answers("alice")
    with pytest.raises(NotFound):
        await world.accounts.save_member(crew, "crew", "local-2", Role.VIEWER)
    with pytest.raises(InvalidArgument, match="is a user's"):
        await world.accounts.members(bob, "bob")


async def test_nobody_gives_or_takes_more_than_they_may(world: World, three: tuple[Principal, ...]) -> None:
    alice, bob, crew = three
    await world.accounts.save_member(alice, "crew", "bob", Role.DEVELOPER)
    for caller, role in ((alice, Role.OWNER), (bob, Role.VIEWER)):
        with pytest.raises(PermissionDenied):
            await world.accounts.save_member(caller, "crew", "bob", role)
    await world.accounts.save_member(crew, "crew", "bob", Role.OWNER)
    with pytest.raises(PermissionDenied, match="the role owner may do more in crew than you may"):
        await world.accounts.remove_member(alice, "crew", "bob")
    with pytest.raises(PermissionDenied):
        await world.accounts.save_member(alice, "crew", "bob", Role.VIEWER)
    await world.accounts.remove_member(bob, "crew", "alice")
    assert [(view.user.nickname, view.member.role) for view in await world.accounts.members(OWNER, "crew")] == [
        ("bob", Role.OWNER)
    ]
    with pytest.raises(NotFound, match="member 'alice'"):
        await world.accounts.remove_member(bob, "crew", "alice")


async def test_a_login_token_acts_for_the_teams_of_its_account(world: World, three: tuple[Principal, ...]) -> None:
    alice, bob, crew = three
    user_id = world.account("crew").user_id
    token = world.tokens.for_login(alice, timedelta(days=1)).text
    assert await world.teams.bearer(token, "") == alice
    assert await world.teams.bearer(token, world.account("alice").user_id) == alice
    acting = await world.teams.bearer(token, user_id)
    assert (acting.key_id, acting.scope.account) == (alice.key_id, crew.scope.account)
    assert allows(acting, "keys:write")
    assert not allows(acting, "controller:accounts:write")
    other = world.tokens.for_login(bob, timedelta(days=1)).text
    said = set()
    for wanted in (user_id, "team|none", world.account("alice").user_id):
        with pytest.raises(NotFound) as raised:
            await world.teams.bearer(other, wanted)
        said.add(raised.value.message.replace(wanted, "ID"))
    assert len(said) == 1
    await world.accounts.remove_member(crew, "crew", "alice")
    with pytest.raises(NotFound):
        await world.teams.bearer(token, user_id)


async def test_a_login_token_ends_with_its_key(world: World, three: tuple[Principal, ...]) -> None:
    alice, *_ = three
    key_id, secret = await world.keys.create(alice, permissions=["serverless:*"])
    weak = await world.access.authenticate(key_id, secret)
    token = world.tokens.for_login(weak, timedelta(days=1)).text
    acting = await world.teams.bearer(token, world.account("crew").user_id)
    assert not allows(acting, "keys:read"), "it may do no more than its key"
    assert allows(acting, "serverless:runners:exec")
    await world.keys.revoke(alice.scope, key_id)
    with pytest.raises(Unauthenticated):
        await world.teams.bearer(token, "")
    for bad in ("", "a.b.c", world.tokens.for_calls(alice, ["a"], 60).text, world.tokens.for_uploads(alice).text):
        with pytest.raises(Unauthenticated):
            await world.teams.bearer(bad, "")
    for life in (timedelta(), timedelta(days=91)):
        with pytest.raises(InvalidArgument):
            world.tokens.for_login(alice, life)


async def test_a_key_says_whose_it_is_if_it_is_to_act_for_another(world: World, three: tuple[Principal, ...]) -> None:
    alice, *_ = three
    world.teams.require_own(alice, "")
    world.teams.require_own(alice, world.account("alice").user_id)
    for wanted in (world.account("crew").user_id, "team|none"):
        with pytest.raises(PermissionDenied, match="belongs to alice"):
            world.teams.require_own(alice, wanted)


async def test_a_member_needs_an_account(world: World) -> None:
    with pytest.raises(FailedPrecondition):
        await world.store.accounts.save_member(
            TeamMember(team=AccountId("none"), user=LOCAL, role=Role.OWNER, added_at=NOON)
        )


HELD = st.frozensets(
    st.sampled_from(sorted(PERMISSIONS)) | st.sampled_from(["*", "serverless:*", "serverless:*:read", "keys:*"])
)
ROLES = st.sampled_from([frozenset(held) for held in [*ROLE_PERMISSIONS.values(), *PRESETS.values()]])


@given(HELD, ROLES)
def test_what_a_member_may_do_is_what_both_key_and_role_allow(held: frozenset[str], role: frozenset[str]) -> None:
    both = common(held, role)
    for name in PERMISSIONS:
        assert (not excess([name], both)) == (not excess([name], held) and not excess([name], role)), name
    assert not excess(both, held)
    assert not excess(both, role)


async def test_an_account_gets_another_nickname_and_keeps_all_else(world: World, three: tuple[Principal, ...]) -> None:
    alice, _, crew = three
    with pytest.raises(AlreadyExists):
        await world.accounts.rename("alice", "bob")
    with pytest.raises(NotFound):
        await world.accounts.rename("nobody", "carol")
    for nickname in ("A b", "queue", ""):
        with pytest.raises(InvalidArgument):
            await world.accounts.rename("alice", nickname)
    renamed = await world.accounts.rename("alice", "carol")
    assert (renamed.id, renamed.nickname, renamed.full_name) == (alice.scope.account, "carol", "carol")
    assert "alice" not in world.known.ids_by_nickname
    assert world.known.ids_by_nickname["carol"] == alice.scope.account
    assert world.accounts.account_of(alice).nickname == "carol"
    assert [view.user.nickname for view in await world.accounts.members(crew, "crew")] == ["carol"]
    assert list(await world.store.accounts.all()) == world.known.all()
    await world.make("alice", AccountKind.USER)  # the name is free
    named = await world.accounts.rename("carol", "carol", "Carol C")
    assert named.full_name == "Carol C"
    assert (await world.accounts.rename("carol", "dave")).full_name == "Carol C"
