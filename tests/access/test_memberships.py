"""A member's open calls for a team end with membership or role. No others end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from fal_grpc.v1 import account_pb2, key_pb2, log_pb2
from fal_grpc.v1.account_pb2_grpc import AccountsStub
from fal_grpc.v1.key_pb2_grpc import KeysStub
from fal_grpc.v1.log_pb2_grpc import LogsStub
from fal_server.access.open_calls import OpenCalls
from fal_server.core.faults import PermissionDenied
from fal_server.core.identity import AccountId, Principal, Scope, membership_of
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from tests.grpc.conftest import Stack

ALICE, CREW = AccountId("alice"), AccountId("crew")
FOLLOW = log_pb2.FollowLogsRequest(selector=log_pb2.LogSelector(app=log_pb2.AppLogTarget(app="a")), since=Timestamp())


@dataclass
class Following:
    """A stream of a member that is open."""

    call: Any

    async def code(self) -> grpc.StatusCode:
        """Return the status at its end."""
        try:
            async with asyncio.timeout(20):
                while await self.call.read() is not grpc.aio.EOF:
                    continue
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def member(stack: Stack, role: int) -> tuple[Any, Any]:
    """Create a team with a log line and a member. Return the metadata of both."""
    accounts = AccountsStub(stack.channel)
    crew = await accounts.CreateAccount(
        account_pb2.CreateAccountRequest(nickname="crew", kind=account_pb2.ACCOUNT_KIND_TEAM), metadata=stack.metadata
    )
    alice = await accounts.CreateAccount(
        account_pb2.CreateAccountRequest(nickname="alice", kind=account_pb2.ACCOUNT_KIND_USER), metadata=stack.metadata
    )
    await set_role(stack, role)
    of_team = AccountId(crew.account.user_id.partition("|")[2])
    line = LogEntry(
        runner_id="r", sequence=1, timestamp=datetime(2026, 1, 2, tzinfo=UTC), level=LogLevel.INFO,
        source=LogSource.STDOUT, message="hello", account=of_team, app_name="a",
    )  # fmt: skip
    await stack.store.logs.append([line])
    key = (("auth-key-id", alice.key_id), ("auth-key", alice.key_secret))
    token = await KeysStub(stack.channel).CreateLoginToken(
        key_pb2.CreateLoginTokenRequest(life=Duration(seconds=3600)), metadata=key
    )
    acting = (("authorization", f"Bearer {token.token}"), ("fal-user-id", crew.account.user_id))
    return acting, (("auth-key-id", crew.key_id), ("auth-key", crew.key_secret))


async def set_role(stack: Stack, role: int) -> None:
    await AccountsStub(stack.channel).AddMember(
        account_pb2.AddMemberRequest(team="crew", user="alice", role=account_pb2.MemberRole.ValueType(role)),
        metadata=stack.metadata,
    )


async def following(stack: Stack, metadata) -> Following:
    """Open a stream that has sent its first line."""
    call = LogsStub(stack.channel).FollowLogs(FOLLOW, metadata=metadata)
    async with asyncio.timeout(20):
        await call.read()
    return Following(call)


async def test_what_is_open_ends_with_the_membership(stack: Stack) -> None:
    acting, team_key = await member(stack, account_pb2.MEMBER_ROLE_DEVELOPER)
    theirs, other = await following(stack, acting), await following(stack, team_key)
    await AccountsStub(stack.channel).RemoveMember(
        account_pb2.RemoveMemberRequest(team="crew", user="alice"), metadata=stack.metadata
    )
    assert await theirs.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "not a member of crew any more" in await theirs.call.details()
    assert not other.call.done(), "the team's own key goes on"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await following(stack, acting)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    await set_role(stack, account_pb2.MEMBER_ROLE_VIEWER)
    again = await following(stack, acting)
    for each in (again, other):
        each.call.cancel()


async def test_what_is_open_ends_with_the_role(stack: Stack) -> None:
    acting, _ = await member(stack, account_pb2.MEMBER_ROLE_DEVELOPER)
    theirs = await following(stack, acting)
    await set_role(stack, account_pb2.MEMBER_ROLE_DEVELOPER)
    assert not theirs.call.done(), "nothing has changed"
    await set_role(stack, account_pb2.MEMBER_ROLE_VIEWER)
    assert await theirs.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "you are viewer of crew now" in await theirs.call.details()
    (await following(stack, acting)).call.cancel()


async def test_a_membership_that_ends_while_it_is_looked_up_opens_nothing() -> None:
    calls = OpenCalls()
    membership = membership_of(ALICE, CREW)
    caller = Principal(key_id="k", scope=Scope(account=CREW, permissions=frozenset()), membership=membership)
    ended: list[str] = []
    calls.on_end(ended.append)
    calls.end_membership(membership, "gone", for_good=True)
    with pytest.raises(PermissionDenied), calls.in_this_task(caller):
        raise AssertionError("the call has started")
    assert ended == [membership], "HTTP is told too"
    calls.begin_membership(membership)
    with calls.in_this_task(caller):
        calls.end_membership(membership, "gone", for_good=True)  # the caller of the change itself is not ended
