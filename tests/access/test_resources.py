"""Keys for one app or environment: how they are built. They reach nothing else over either wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from fal_grpc.v1 import app_pb2, key_pb2, log_pb2, revision_pb2
from fal_grpc.v1.key_pb2_grpc import KeysStub
from fal_server.access.permissions import PERMISSIONS, PRESETS, require_app
from fal_server.access.resources import RESTRICTABLE, for_resource, read, split
from fal_server.core.faults import InvalidArgument, NotFound, PermissionDenied
from fal_server.core.identity import LOCAL, AccountId, AppId
from fal_server.grpc.methods import SERVICES
from fal_server.grpc.permissions import ANY_KEY, APP_OF_REQUEST, METHOD_PERMISSIONS
from fal_server.live.dispatch import NOWHERE, RoutedApp
from tests.access.test_both_wires import client_of, everything, guard_of
from tests.fakes.domain import SCOPE
from tests.grpc.calls import answers
from tests.grpc.conftest import Stack

HELLO, DEV = AppId.parse(LOCAL, "hello"), AppId.parse(LOCAL, "hello--dev")


def test_what_a_preset_becomes_for_one_app() -> None:
    made = for_resource(PRESETS["API"], "hello", "")
    assert made == ("serverless:apps:run@app=hello",)
    permissions, restrictions = split(made, LOCAL)
    assert (permissions, restrictions.apps) == (frozenset({"serverless:apps:run"}), frozenset({HELLO}))
    assert split(for_resource(PRESETS["API"], "hello", "dev"), LOCAL)[1].apps == frozenset({DEV})
    assert split(for_resource(PRESETS["API"], None, "dev"), LOCAL)[1].environments == frozenset({"dev"})
    assert {each.partition("@")[0] for each in for_resource(("*",), "hello", "")} == RESTRICTABLE
    assert not split(PRESETS["FULL"], LOCAL)[1].limit
    with pytest.raises(InvalidArgument, match="none of these permissions"):
        for_resource(PRESETS["BILLING"], "hello", "")
    with pytest.raises(InvalidArgument, match="for_app is empty: name the app"):
        for_resource(PRESETS["API"], "", "")


@pytest.mark.parametrize(
    "permissions",
    [
        ["serverless:apps:run@app=a", "serverless:apps:read@app=b"],
        ["serverless:apps:run@app=a", "serverless:apps:read"],
        ["serverless:apps:run@machine=a"],
    ],
)
def test_a_key_is_for_one_part_or_for_all(permissions: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        read(permissions)


def test_permissions_name_their_app() -> None:
    assert read(["serverless:apps:run@app=hello--dev"]) == (("serverless:apps:run",), "hello", "dev")
    assert read(["serverless:apps:run@env=dev"]) == (("serverless:apps:run",), None, "dev")
    assert read(["serverless:apps:run"]) == (("serverless:apps:run",), None, None)
    assert RESTRICTABLE <= PERMISSIONS
    assert set(APP_OF_REQUEST) <= set(METHOD_PERMISSIONS)


async def key_for(stack: Stack, **part: Any) -> tuple[tuple[str, str], ...]:
    if (environment := part.get("for_environment", "main")) != "main":
        await stack.environments.create(SCOPE, environment)
    key_id, secret = await stack.keys.create(None, preset="FULL", **part)
    return (("auth-key-id", key_id), ("auth-key", secret))


async def test_such_a_key_calls_its_app_alone(stack: Stack) -> None:
    (_, key_id), (_, secret) = await key_for(stack, for_app="hello")
    caller = await stack.access.authenticate(key_id, secret)
    require_app(caller, HELLO)
    for other in (DEV, AppId.parse(LOCAL, "other")):
        with pytest.raises(NotFound):
            require_app(caller, other)
    with pytest.raises(PermissionDenied):
        await stack.keys.create(caller, preset="API")


async def test_every_method_without_the_name_of_its_app_is_refused(stack: Stack) -> None:
    for part in ({"for_app": "hello"}, {"for_environment": "dev"}):
        metadata = await key_for(stack, **part)
        for service in SERVICES:
            for method in service.methods:
                data = GetMessageClass(method.input_type)().SerializeToString()
                if METHOD_PERMISSIONS[method.full_name] == ANY_KEY or method.name == "InteractiveRun":
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await answers(stack.channel, method, data, metadata)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, (part, method.name)


@pytest.mark.parametrize(
    ("part", "name", "request_", "allowed"),
    [
        ({"for_app": "hello"}, "UpdateApplication", app_pb2.UpdateApplicationRequest(application_name="hello"), True),
        ({"for_app": "hello"}, "UpdateApplication", app_pb2.UpdateApplicationRequest(application_name="other"), False),
        (
            {"for_app": "hello"},
            "UpdateApplication",
            app_pb2.UpdateApplicationRequest(application_name="hello", environment_name="dev"),
            False,
        ),
        (
            {"for_environment": "dev"},
            "UpdateApplication",
            app_pb2.UpdateApplicationRequest(application_name="other", environment_name="dev"),
            True,
        ),
        ({"for_environment": "dev"}, "ListAliases", app_pb2.ListAliasesRequest(environment_name="dev"), True),
        ({"for_environment": "dev"}, "ListAliases", app_pb2.ListAliasesRequest(environment_name="main"), False),
        (
            {"for_environment": "main"},
            "ListLogs",
            log_pb2.ListLogsRequest(selector=log_pb2.LogSelector(runner_id="r")),
            False,
        ),
        ({"for_app": "hello"}, "ListApplications", revision_pb2.ListApplicationsRequest(application_name="x"), False),
    ],
)
async def test_a_request_about_another_app_is_refused(stack: Stack, part, name, request_, allowed) -> None:
    metadata = await key_for(stack, **part)
    method = next(method for service in SERVICES for method in service.methods if method.name == name)
    refusals = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)
    try:
        await answers(stack.channel, method, request_.SerializeToString(), metadata)
        refused = False
    except grpc.aio.AioRpcError as error:
        refused = error.code() in refusals and "key" in (error.details() or "")
    assert refused is not allowed


async def test_routes_about_another_app_or_the_account_are_refused(stack: Stack) -> None:
    (_, key_id), (_, secret) = await key_for(stack, for_app="hello")
    headers = {"authorization": f"Key {key_id}:{secret}"}
    rest, *_ = everything(stack)
    async with client_of(rest) as client:
        statuses = {
            path: (await client.get(path, headers=headers)).status_code
            for path in (
                "/applications/local/other/queue",
                "/applications/local/hello--dev/queue",
                "/applications/metrics",
                "/runners/r",
                "/workflows/",
                "/files/list//data",
            )
        }
        assert set(statuses.values()) <= {403, 404}, statuses
        assert (await client.get("/applications/local/hello/queue", headers=headers)).status_code not in (401, 403, 404)


async def test_what_a_key_made_at_a_public_app_is_seen_by_keys_that_reach_the_app(stack: Stack) -> None:
    guard, app = guard_of(stack), replace(NOWHERE, app_id=HELLO)
    elsewhere = replace(NOWHERE, app_id=AppId.parse(AccountId("another"), "hello"))

    async def sees(key: tuple[str, str], at: RoutedApp) -> bool:
        return await guard.is_of(await stack.access.authenticate(*key), maker[0], at)

    await stack.environments.create(SCOPE, "dev")
    maker = await stack.keys.create(None, preset="API")
    seen: list[tuple[dict[str, Any], bool, bool]] = [
        ({"preset": "API"}, True, True),
        ({"preset": "API", "for_app": "hello"}, True, False),
        ({"preset": "API", "for_app": "other"}, False, False),
        ({"preset": "API", "for_environment": "dev"}, False, False),
        ({"permissions": ["serverless:files:read"]}, False, False),
    ]
    for options, here, there in seen:
        key = await stack.keys.create(None, **options)
        assert (await sees(key, app), await sees(key, elsewhere)) == (here, there), options
    assert await sees(maker, elsewhere)
    assert not await guard.is_of(None, maker[0], app)
    assert await guard.is_of(None, None, app)


async def test_the_key_says_what_it_is_for(stack: Stack) -> None:
    await stack.environments.create(SCOPE, "dev")
    created = await stack.keys.create(None, preset="API", for_app="hello", for_environment="dev")
    [listed] = [key for key in await stack.keys.list(await scope_of(stack)) if key.key_id == created[0]]
    assert listed.permissions == ("serverless:apps:run@app=hello--dev",)
    request = key_pb2.CreateUserKeyRequest(policy_preset="API", for_app="hello")
    assert request.HasField("for_app")
    metadata = (("auth-key-id", created[0]), ("auth-key", created[1]))
    told = await KeysStub(stack.channel).GetCaller(key_pb2.GetCallerRequest(), metadata=metadata)
    assert list(told.permissions) == ["serverless:apps:run@app=hello--dev"]


@pytest.mark.parametrize("asked", [{"preset": "API"}, {"permissions": ["serverless:apps:run"]}])
async def test_an_empty_app_is_refused_and_widens_no_key(stack: Stack, asked) -> None:
    with pytest.raises(InvalidArgument, match="for_app is empty: name the app"):
        await stack.keys.create(None, for_app="", **asked)


async def scope_of(stack: Stack):
    return (await stack.access.authenticate(*stack.admin)).scope
