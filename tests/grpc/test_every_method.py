"""What holds for every method: who may call it, both its names, and what it does with bytes that are no request."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from fal_server.core.access import METHOD_PERMISSIONS, PERMISSIONS
from fal_server.grpc.methods import SERVICES
from tests.grpc.calls import answers

METHODS = [method for service in SERVICES for method in service.methods]
NAMES = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


async def call(
    channel: grpc.aio.Channel, method: MethodDescriptor, metadata, *, data: bytes | None = None, second: bool = False
) -> tuple[grpc.StatusCode, str, list[bytes]]:
    """Call a method by its path with raw bytes; its status, and what it answered."""
    request = data if data is not None else GetMessageClass(method.input_type)().SerializeToString()
    try:
        return grpc.StatusCode.OK, "", await answers(channel, method, request, metadata, second=second)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", []


def test_every_method_needs_a_known_permission() -> None:
    assert {method.name for method in METHODS} == set(METHOD_PERMISSIONS)
    assert set(METHOD_PERMISSIONS.values()) <= PERMISSIONS


def test_no_two_services_have_a_method_of_one_name() -> None:
    names = [method.name for method in METHODS]
    assert len(names) == len(set(names)) == 28


@NAMES
@pytest.mark.parametrize("second", [False, True], ids=["fal.v1", "controller"])
async def test_who_may_call(plane, method, second) -> None:
    async def status(*metadata: tuple[str, str]) -> grpc.StatusCode:
        return (await call(plane.channel, method, metadata, second=second))[0]

    key_id, secret = plane.admin
    revoked = await plane.keys.create(None, preset="FULL")
    await plane.access.authenticate(*revoked)
    await plane.keys.revoke(revoked[0])
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    assert await status() is unauthenticated
    assert await status(("auth-key-id", key_id)) is unauthenticated
    assert await status(("auth-key-id", key_id), ("auth-key", secret + "0")) is unauthenticated
    assert await status(("auth-key-id", "nobody"), ("auth-key", secret)) is unauthenticated
    assert await status(("auth-key-id", revoked[0]), ("auth-key", revoked[1])) is unauthenticated
    assert await status(("authorization", f"Basic {key_id}:{secret}")) is unauthenticated
    assert await status(("auth-key-id", plane.api[0]), ("auth-key", plane.api[1])) is grpc.StatusCode.PERMISSION_DENIED
    refusals = {unauthenticated, grpc.StatusCode.PERMISSION_DENIED}
    assert await status(("auth-key-id", key_id), ("auth-key", secret)) not in refusals
    assert await status(("authorization", f"Key {key_id}:{secret}")) not in refusals
    assert await status(("authorization", f"bearer {key_id}:{secret}")) not in refusals


@NAMES
async def test_one_permission_is_enough(plane, method) -> None:
    mine = await plane.keys.create(None, permissions=[METHOD_PERMISSIONS[method.name]])
    others = await plane.keys.create(None, permissions=sorted(PERMISSIONS - {METHOD_PERMISSIONS[method.name]}))
    allowed, _, _ = await call(plane.channel, method, (("auth-key-id", mine[0]), ("auth-key", mine[1])))
    refused, words, _ = await call(plane.channel, method, (("auth-key-id", others[0]), ("auth-key", others[1])))
    # What creates a key must not be able to give more than it has: that, too, is a lack of permission.
    if method.name != "CreateUserKey":
        assert allowed is not grpc.StatusCode.PERMISSION_DENIED
    assert refused is grpc.StatusCode.PERMISSION_DENIED
    assert METHOD_PERMISSIONS[method.name] in words


@NAMES
async def test_both_names_answer_alike(plane, method) -> None:
    data = b"\xff" if method.name == "CreateUserKey" else None  # no two keys are alike
    first = await call(plane.channel, method, plane.metadata, data=data)
    second = await call(plane.channel, method, plane.metadata, data=data, second=True)
    assert first == second


@NAMES
async def test_bytes_that_are_no_request(plane, method) -> None:
    code, words, _ = await call(plane.channel, method, plane.metadata, data=b"\xff\xff\xff")
    if method.name == "InteractiveRun":
        assert code is grpc.StatusCode.UNIMPLEMENTED  # before anything is read
    else:
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert method.input_type.full_name in words


@NAMES
async def test_without_a_key_the_bytes_are_not_even_read(plane, method) -> None:
    code, _, _ = await call(plane.channel, method, (), data=b"\xff\xff\xff")
    assert code is grpc.StatusCode.UNAUTHENTICATED
