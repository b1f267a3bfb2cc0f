"""Quotas of accounts: who may see and set them. They survive a restart."""

from __future__ import annotations

import grpc
import pytest

from fal_grpc.v1 import account_pb2 as pb
from fal_grpc.v1.account_pb2_grpc import AccountsStub
from fal_server.core.quotas import USUAL
from tests.grpc.conftest import Stack, stack

__all__ = ["stack"]


async def made(stack: Stack, nickname: str) -> tuple[tuple[str, str], ...]:
    """Create an account; return the metadata of its key."""
    request = pb.CreateAccountRequest(nickname=nickname, kind=pb.ACCOUNT_KIND_USER)
    answer = await AccountsStub(stack.channel).CreateAccount(request, metadata=stack.metadata)
    return (("auth-key-id", answer.key_id), ("auth-key", answer.key_secret))


async def test_the_owner_sets_them_and_the_account_reads_its_own(stack: Stack) -> None:
    accounts = AccountsStub(stack.channel)
    alice, bob = await made(stack, "alice"), await made(stack, "bob")
    usual = await accounts.GetQuotas(pb.GetQuotasRequest(), metadata=alice)
    assert (usual.nickname, usual.quotas.queued_requests) == ("alice", USUAL.queued_requests)
    assert not usual.quotas.requests_per_second
    assert {field.name for field, _ in usual.used.ListFields()} == {
        "queued_requests", "queued_bytes", "runners", "log_bytes_per_minute", "data_bytes",
    }  # fmt: skip
    wanted = pb.SetQuotasRequest(nickname="alice", quotas=pb.Quotas(runners=3, queued_requests=0))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await accounts.SetQuotas(wanted, metadata=alice)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await accounts.SetQuotas(wanted, metadata=stack.metadata)
    answer = await accounts.SetQuotas(
        pb.SetQuotasRequest(nickname="alice", quotas=pb.Quotas(data_bytes=7)), metadata=stack.metadata
    )
    bounds = (answer.quotas.runners, answer.quotas.queued_requests, answer.quotas.data_bytes)
    assert bounds == (3, 0, 7), "what is not given stays"
    for caller, nickname in ((alice, ""), (alice, "alice"), (stack.metadata, "alice")):
        found = await accounts.GetQuotas(pb.GetQuotasRequest(nickname=nickname), metadata=caller)
        assert found.quotas == answer.quotas
    for nickname in ("alice", "nobody"):
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await accounts.GetQuotas(pb.GetQuotasRequest(nickname=nickname), metadata=bob)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    (stored,) = [each for each in await stack.store.accounts.all() if each.nickname == "alice"]
    assert (stored.quotas.runners, stored.quotas.queued_requests, stored.quotas.queued_bytes) == (
        3, 0, USUAL.queued_bytes,
    )  # fmt: skip


@pytest.mark.parametrize(("nickname", "bound", "code"), [("nobody", 1, "NOT_FOUND"), ("local", -1, "INVALID_ARGUMENT")])
async def test_what_cannot_be_set(stack: Stack, nickname: str, bound: int, code: str) -> None:
    request = pb.SetQuotasRequest(nickname=nickname, quotas=pb.Quotas(runners=bound))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await AccountsStub(stack.channel).SetQuotas(request, metadata=stack.metadata)
    assert refused.value.code() is grpc.StatusCode[code]
