"""Faults on the wire: their codes and details. Every bad request has its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_grpc.v1 import app_pb2, environment_pb2
from fal_grpc.v1.app_pb2_grpc import AppsStub
from fal_grpc.v1.environment_pb2_grpc import EnvironmentsStub
from fal_server.core import faults
from fal_server.core.identity import Scope
from fal_server.grpc.methods import SERVICES
from fal_server.grpc.status import shortened
from fal_server.services.views import AppView
from tests.grpc.bad_requests import BAD
from tests.grpc.calls import answers
from tests.grpc.conftest import Stack

Detail = TypeVar("Detail", bound=Message)
METHODS = {method.name: method for service in SERVICES for method in service.methods}
ALIASES = app_pb2.ListAliasesRequest()


def details(error: grpc.aio.AioRpcError) -> Status:
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    return Status.FromString(packed)


def unpacked(error: grpc.aio.AioRpcError, kind: type[Detail]) -> list[Detail]:
    found = []
    for packed in details(error).details:
        one = kind()
        if packed.Unpack(one):
            found.append(one)
    return found


@pytest.mark.parametrize("kind", faults.Fault.__subclasses__(), ids=lambda kind: kind.__name__)
async def test_each_fault_has_its_code_and_details(stack: Stack, kind) -> None:
    stack.apps.fault = kind("alias", "message") if kind is faults.InvalidArgument else kind("message")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await AppsStub(stack.channel).ListAliases(ALIASES, metadata=(*stack.metadata, ("x-request-id", "r-1")))
    error = caught.value
    assert error.code().name == kind.reason
    message = "message not found" if kind is faults.NotFound else "message"
    assert error.details() == details(error).message == message
    assert details(error).code == error.code().value[0]
    [info] = unpacked(error, ErrorInfo)
    assert (info.reason, info.domain, info.metadata["request_id"]) == (kind.reason, "fal.v1", "r-1")
    violations = [v for each in unpacked(error, BadRequest) for v in each.field_violations]
    assert [v.field for v in violations] == (["alias"] if kind is faults.InvalidArgument else [])
    assert len(unpacked(error, RetryInfo)) == (kind is faults.Unavailable)


async def test_what_nobody_expected_shows_its_id_and_nothing_else(stack: Stack, caplog) -> None:
    stack.apps.fault = ZeroDivisionError("the inside")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await AppsStub(stack.channel).ListAliases(ALIASES, metadata=(*stack.metadata, ("x-request-id", "r-2")))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "r-2" in (caught.value.details() or "")
    assert "inside" not in str(caught.value)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (record.request_id, record.exc_info[0]) == ("r-2", ZeroDivisionError)


async def test_a_call_that_is_cancelled_is_cancelled_inside(stack: Stack) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait(scope: Scope, environment: str | None) -> Sequence[AppView]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return []

    stack.apps.list = wait
    channel: grpc.aio.Channel = stack.channel
    call = AppsStub(channel).ListAliases(ALIASES, metadata=stack.metadata)
    waiting = asyncio.ensure_future(call)
    async with asyncio.timeout(30):
        await started.wait()
        call.cancel()
        await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("text", ["x" * 50_000, "é" * 50_000, "line\n" * 9000, "\x1b[31m" * 9000])
async def test_a_long_message_still_arrives(stack: Stack, text) -> None:
    stack.apps.fault = faults.FailedPrecondition("begin " + text + " the end")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await AppsStub(stack.channel).ListAliases(ALIASES, metadata=stack.metadata)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    said = caught.value.details() or ""
    assert said.startswith("begin ")
    assert said.endswith(" the end")


@settings(deadline=None)
@given(st.text(max_size=5000))
def test_messages_are_short_enough_for_trailers(text: str) -> None:
    encoded = shortened(text).encode()
    assert sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in encoded) <= 2000


@pytest.mark.parametrize("name", sorted({name for name, *_ in BAD}))
async def test_bad_requests(stack: Stack, name) -> None:
    stack.apps.add()
    for _, request, status, field in [row for row in BAD if row[0] == name]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(stack.channel, METHODS[name], request.SerializeToString(), stack.metadata)
        error = caught.value
        named = [v.field for each in unpacked(error, BadRequest) for v in each.field_violations]
        assert (error.code(), named) == (status, [field] if field else []), (str(request)[:200], error.details())
        said = error.details() or ""
        assert 0 < len(said) < 2100
        assert "\x1b" not in said
    listed = await EnvironmentsStub(stack.channel).ListEnvironments(
        environment_pb2.ListEnvironmentsRequest(), metadata=stack.metadata
    )
    assert [each.name for each in listed.environments] == ["main"]


def test_the_table_is_long_enough() -> None:
    assert len(BAD) >= 100
    assert {name for name, *_ in BAD} >= set(METHODS) - {
        "GetCaller",
        "ListAccounts",
        "VerifyAudit",
        "ListDrains",
        "ListNotices",
        "ListUserKeys",
        "ListEnvironments",
        "ListApplications",
        "ListNodes",
    }
