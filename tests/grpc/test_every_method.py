"""Every method: its permission, both names, and malformed requests."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from fal_server.access.permissions import PERMISSIONS
from fal_server.grpc.methods import SERVICES
from fal_server.grpc.permissions import ANY_KEY, METHOD_PERMISSIONS
from tests.fakes.domain import SCOPE
from tests.grpc.calls import answers
from tests.grpc.conftest import Stack
from tests.support import contract

METHODS = [method for service in SERVICES for method in service.methods]
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def test_every_service_of_the_contract_is_served() -> None:
    assert SERVICES == contract.SERVICES


async def call(
    channel: grpc.aio.Channel, method: MethodDescriptor, metadata, *, data: bytes | None = None, second: bool = False
) -> tuple[grpc.StatusCode, str, list[bytes]]:
    """Call a method by its path with raw bytes. Return its status, message and answers."""
    request = data if data is not None else GetMessageClass(method.input_type)().SerializeToString()
    try:
        return grpc.StatusCode.OK, "", await answers(channel, method, request, metadata, second=second)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", []


def test_every_method_needs_a_known_permission() -> None:
    assert {method.full_name for method in METHODS} == set(METHOD_PERMISSIONS)
    assert set(METHOD_PERMISSIONS.values()) <= PERMISSIONS | {ANY_KEY}
    assert [name for name, needed in METHOD_PERMISSIONS.items() if needed == ANY_KEY] == ["fal.v1.Keys.GetCaller"]


def test_no_two_services_have_a_method_of_one_name() -> None:
    names = [method.name for method in METHODS]
    assert len(names) == len(set(names)) == len(METHOD_PERMISSIONS)


@pytest.mark.parametrize("second", [False, True], ids=["fal.v1", "controller"])
async def test_who_may_call(stack: Stack, second) -> None:
    key_id, secret = stack.admin
    revoked = await stack.keys.create(None, preset="FULL")
    await stack.access.authenticate(*revoked)
    await stack.keys.revoke(SCOPE, revoked[0])
    denied = grpc.StatusCode.PERMISSION_DENIED
    callers = {
        (): UNAUTHENTICATED,
        (("auth-key-id", key_id),): UNAUTHENTICATED,
        (("auth-key-id", key_id), ("auth-key", secret + "0")): UNAUTHENTICATED,
        (("auth-key-id", "nobody"), ("auth-key", secret)): UNAUTHENTICATED,
        (("auth-key-id", revoked[0]), ("auth-key", revoked[1])): UNAUTHENTICATED,
        (("authorization", f"Basic {key_id}:{secret}"),): UNAUTHENTICATED,
        (("authorization", "Bearer a-token"),): UNAUTHENTICATED,
        (("auth-key-id", stack.api[0]), ("auth-key", stack.api[1])): denied,
        (("auth-key-id", key_id), ("auth-key", secret)): None,
        (("authorization", f"Key {key_id}:{secret}"),): None,
        (("authorization", f"bearer {key_id}:{secret}"),): None,
    }
    for method in METHODS:
        for metadata, expected in callers.items():
            status, message, _ = await call(stack.channel, method, metadata, second=second)
            if expected is None or (expected is denied and METHOD_PERMISSIONS[method.full_name] == ANY_KEY):
                assert status not in (UNAUTHENTICATED, denied), (method.name, metadata)
            else:
                assert status is expected, (method.name, metadata, message)


async def test_one_permission_is_enough_and_needed(stack: Stack) -> None:
    for method in METHODS:
        needed = METHOD_PERMISSIONS[method.full_name]
        if needed == ANY_KEY:
            continue
        mine = await stack.keys.create(None, permissions=[needed])
        others = await stack.keys.create(None, permissions=sorted(PERMISSIONS - {needed}))
        allowed, _, _ = await call(stack.channel, method, (("auth-key-id", mine[0]), ("auth-key", mine[1])))
        refused, message, _ = await call(stack.channel, method, (("auth-key-id", others[0]), ("auth-key", others[1])))
        # A key must not create keys with more permissions than its own.
        assert allowed is not grpc.StatusCode.PERMISSION_DENIED or method.name == "CreateUserKey", method.name
        assert refused is grpc.StatusCode.PERMISSION_DENIED, method.name
        assert needed in message


async def test_both_names_answer_alike(stack: Stack) -> None:
    for method in METHODS:
        data = b"\xff" if method.name == "CreateUserKey" else None  # no two keys are alike
        first = await call(stack.channel, method, stack.metadata, data=data)
        second = await call(stack.channel, method, stack.metadata, data=data, second=True)
        assert first == second, method.name


async def test_bytes_that_are_no_request(stack: Stack) -> None:
    for method in METHODS:
        code, message, _ = await call(stack.channel, method, stack.metadata, data=b"\xff\xff\xff")
        if method.name == "InteractiveRun":
            assert code is grpc.StatusCode.UNIMPLEMENTED  # before anything is read
        else:
            assert code is grpc.StatusCode.INVALID_ARGUMENT, method.name
            assert method.input_type.full_name in message


async def test_without_a_key_the_bytes_are_not_even_read(stack: Stack) -> None:
    for method in METHODS:
        code, _, _ = await call(stack.channel, method, (), data=b"\xff\xff\xff")
        assert code is UNAUTHENTICATED, method.name
