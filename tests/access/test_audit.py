"""The audit log has a row for each change before it happens. It holds no values, and its chain shows tampering."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update

from fal_grpc.v1 import account_pb2, exec_pb2, key_pb2, secret_pb2
from fal_grpc.v1.audit_pb2 import ListAuditEntriesRequest, VerifyAuditRequest
from fal_grpc.v1.audit_pb2_grpc import AuditStub
from fal_grpc.v1.key_pb2_grpc import KeysStub
from fal_grpc.v1.secret_pb2_grpc import SecretsStub
from fal_server.core.audit import AuditEntry, AuditRow, first_break, following
from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.grpc.permissions import METHOD_PERMISSIONS, RECORDED
from fal_server.grpc.recording import address_of, named_things
from fal_server.http.routes.permissions import RECORDED_ROUTES, ROUTE_PERMISSIONS
from fal_server.store.sql.tables import AUDIT
from tests.grpc.conftest import Stack

SECRET = bytes(range(32))
ENTRY = AuditEntry(
    account=LOCAL, at=datetime(2026, 1, 2, tzinfo=UTC), key_id="k", action="Secrets.SetSecret", target="name=A",
    source="127.0.0.1:5", request_id="r",
)  # fmt: skip
# Calls about a command that is already recorded, and a key's token, which needs that key's own permission.
_ON_A_RECORDED_COMMAND = {"GetExec", "ListExecs", "ReadExec", "WriteExec", "ResizeExec"}


def test_every_method_and_route_that_changes_something_is_recorded() -> None:
    changing = {
        name
        for name, needed in METHOD_PERMISSIONS.items()
        if needed.endswith((":write", ":exec")) and name.rpartition(".")[2] not in _ON_A_RECORDED_COMMAND
    }
    assert set(RECORDED) == changing | {"fal.v1.Keys.CreateLoginToken"}
    left_out = {
        (method, path)
        for (method, path), needed in ROUTE_PERMISSIONS.items()
        if isinstance(needed, str) and needed.endswith(":write") and (method, path) not in RECORDED_ROUTES
    }
    assert all(path.startswith("/files/") and "delete" not in method.lower() for method, path in left_out), left_out
    assert ("DELETE", "/files/file/{path:path}") in RECORDED_ROUTES
    assert ("POST", "/files/file/multipart/{path:path}/{upload_id:str}/complete") in RECORDED_ROUTES


def test_names_are_recorded_and_values_are_not() -> None:
    request = secret_pb2.SetSecretRequest(name="TOKEN", value="hunter2", environment_name="dev")
    fields = RECORDED["fal.v1.Secrets.SetSecret"]
    assert named_things(request, fields) == "name=TOKEN, environment_name=dev, value=set"
    assert named_things(secret_pb2.SetSecretRequest(name="TOKEN"), fields) == "name=TOKEN, value=unset"
    start = exec_pb2.StartExecRequest(runner_id="r", exec_id="e", command=["curl", "-H", "Authorization: hunter2"])
    assert named_things(start, RECORDED["fal.v1.Execs.StartExec"]) == "runner_id=r, exec_id=e, command=curl"
    added = account_pb2.AddMemberRequest(team="crew", user="ann", role=account_pb2.MEMBER_ROLE_VIEWER)
    assert named_things(added, RECORDED["fal.v1.Accounts.AddMember"]) == "team=crew, user=ann, role=viewer"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:44", "127.0.0.1:44"),
        ("ipv6:%5B::1%5D:44", "[::1]:44"),
        ("unix-abstract:fal-peer/10.0.0.7:33848/0011aabb", "10.0.0.7:33848"),
        ("unix-abstract:fal-peer/[::1]:9/0011aabb", "[::1]:9"),
        ("unix:", ""),
    ],
)
def test_where_a_call_came_from(peer: str, address: str) -> None:
    assert address_of(peer) == address


TEXTS = st.text(max_size=5)
ENTRIES = st.lists(
    st.builds(
        AuditEntry, account=st.just(LOCAL), at=st.just(ENTRY.at), key_id=TEXTS, action=TEXTS, target=TEXTS,
        source=TEXTS, request_id=TEXTS,
    ),
    min_size=1, max_size=8,
)  # fmt: skip


def chained(entries: list[AuditEntry]) -> list[AuditRow]:
    rows: list[AuditRow] = []
    for entry in entries:
        rows.append(following(SECRET, rows[-1] if rows else None, entry))
    return rows


@given(ENTRIES, st.data())
def test_a_chain_shows_each_change_and_each_gap(entries: list[AuditEntry], data: st.DataObject) -> None:
    rows = chained(entries)
    assert first_break(SECRET, None, rows) is None
    place = data.draw(st.integers(0, len(rows) - 1))
    row = rows[place]
    field = data.draw(st.sampled_from(["key_id", "action", "target", "source", "request_id"]))
    changed = replace(row, entry=replace(row.entry, **{field: getattr(row.entry, field) + "x"}))
    assert first_break(SECRET, None, [*rows[:place], changed, *rows[place + 1 :]]) == place + 1
    if place < len(rows) - 1:
        assert first_break(SECRET, None, [*rows[:place], *rows[place + 1 :]]) == place + 1
    forged = chained([replace(entry, key_id="forged") for entry in entries])
    assert first_break(bytes(32), None, forged) == 1, "whoever lacks the secret makes no row that passes"


async def test_a_change_is_recorded_listed_and_checked(stack: Stack) -> None:
    secrets, keys, audit = SecretsStub(stack.channel), KeysStub(stack.channel), AuditStub(stack.channel)
    await secrets.SetSecret(secret_pb2.SetSecretRequest(name="A", value="hunter2"), metadata=stack.metadata)
    await keys.ListUserKeys(key_pb2.ListUserKeysRequest(), metadata=stack.metadata)
    with pytest.raises(grpc.aio.AioRpcError):
        await keys.RevokeUserKey(key_pb2.RevokeUserKeyRequest(key_id="abc"), metadata=stack.metadata)
    first = await audit.ListAuditEntries(ListAuditEntriesRequest(page_size=1), metadata=stack.metadata)
    token = first.next_page_token
    second = await audit.ListAuditEntries(ListAuditEntriesRequest(page_token=token), metadata=stack.metadata)
    newest, oldest = *first.entries, *second.entries
    assert (oldest.number, oldest.action, oldest.target) == (1, "Secrets.SetSecret", "name=A, value=set")
    assert (newest.action, newest.target) == ("Keys.RevokeUserKey", "key_id=abc")
    assert oldest.key_id == stack.admin[0]
    assert oldest.source.startswith("127.0.0.1:")
    assert oldest.request_id
    assert second.next_page_token == ""
    assert "hunter2" not in str(first) + str(second)
    whole = await audit.VerifyAudit(VerifyAuditRequest(), metadata=stack.metadata)
    assert (whole.rows, whole.HasField("broken_at")) == (2, False)


@pytest.mark.parametrize(
    "tampering",
    [
        update(AUDIT).where(AUDIT.c.sequence == 2).values(target="x"),
        delete(AUDIT).where(AUDIT.c.sequence == 2),
    ],
)
async def test_tampering_in_the_database_shows(stack: Stack, tampering) -> None:
    secrets, audit = SecretsStub(stack.channel), AuditStub(stack.channel)
    for name in "ABC":
        await secrets.SetSecret(secret_pb2.SetSecretRequest(name=name, value="x"), metadata=stack.metadata)

    async def tamper(connection) -> None:
        await connection.execute(tampering)

    await stack.store.audit._database.write(tamper)
    answer = await audit.VerifyAudit(VerifyAuditRequest(), metadata=stack.metadata)
    assert answer.broken_at == 2


async def test_a_change_that_cannot_be_recorded_is_refused(stack: Stack) -> None:
    async def fails(account, make) -> None:
        raise Unavailable("the disk is full")

    stack.store.audit.append = fails
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await SecretsStub(stack.channel).SetSecret(
            secret_pb2.SetSecretRequest(name="A", value="x"), metadata=stack.metadata
        )
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNAVAILABLE, "the disk is full")
    assert await stack.store.list_secrets(LOCAL, None) == []
