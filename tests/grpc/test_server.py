"""The server: health, reflection, request ids, limits, listening and stopping."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from fal_grpc.v1 import environment_pb2, secret_pb2
from fal_grpc.v1.app_pb2 import ListAliasesRequest
from fal_grpc.v1.app_pb2_grpc import AppsStub
from fal_grpc.v1.environment_pb2_grpc import EnvironmentsStub
from fal_grpc.v1.log_pb2 import AppLogTarget, FollowLogsRequest, FollowLogsResponse, LogSelector
from fal_grpc.v1.log_pb2_grpc import LogsStub
from fal_grpc.v1.secret_pb2_grpc import SecretsStub
from fal_server.core.faults import Unavailable
from fal_server.core.identity import Scope
from fal_server.grpc import compat
from fal_server.grpc.methods import SERVICES
from fal_server.grpc.server import GrpcServer
from fal_server.services.views import AppView
from tests.grpc.conftest import Stack
from tests.support.waiting import until

LIST = environment_pb2.ListEnvironmentsRequest()


async def reflect(stack: Stack, version: str, **question: Any) -> reflection_pb2.ServerReflectionResponse:
    method = stack.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = [answer async for answer in method(iter([reflection_pb2.ServerReflectionRequest(**question)]))]
    return answers[0]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_every_service_without_a_key(stack: Stack, version) -> None:
    listed = await reflect(stack, version, list_services="")
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {service.full_name for service in SERVICES} | {compat.FULL_NAME, "grpc.health.v1.Health"}


@pytest.mark.parametrize(
    "service", [*(service.full_name for service in SERVICES), compat.FULL_NAME, "grpc.health.v1.Health"]
)
async def test_reflection_gives_files_that_stand_on_their_own(stack: Stack, service) -> None:
    answer = await reflect(stack, "v1alpha", file_containing_symbol=service)
    files = {
        file.name: file
        for file in map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
    }
    pool = DescriptorPool()

    def add(name: str) -> None:
        file = files.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    for name in list(files):
        add(name)
    found = pool.FindServiceByName(service)
    assert found.methods
    if service == compat.FULL_NAME:
        assert found.methods_by_name["ListRunners"].input_type.full_name == "fal.v1.ListRunnersRequest"
        assert found.methods_by_name["ShellRunner"].client_streaming


async def test_health_needs_no_key_and_says_when_it_is_over(stack: Stack) -> None:
    stub: Any = health_pb2_grpc.HealthStub(stack.channel)  # its type has no methods
    response = health_pb2.HealthCheckResponse
    for service in ("", "fal.v1.Runners", compat.FULL_NAME):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == response.SERVING
    await stack.server.set_serving(serving=False)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == response.NOT_SERVING


async def test_a_call_keeps_the_id_that_it_came_with(stack: Stack, caplog) -> None:
    stub = EnvironmentsStub(stack.channel)
    with caplog.at_level(logging.INFO, "fal_server.grpc"):
        call = stub.ListEnvironments(LIST, metadata=(*stack.metadata, ("x-request-id", "my-call.1")))
        assert dict(await call.initial_metadata())["x-request-id"] == "my-call.1"
        await call
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListEnvironments(LIST, metadata=(("x-request-id", "my-call.2"),))
        assert dict(caught.value.trailing_metadata())["x-request-id"] == "my-call.2"

    def lines() -> list[Any]:
        return [record for record in caplog.records if record.name == "fal_server.grpc.calls"]

    # A call's line is written after its answer.
    first, second = await asyncio.to_thread(until, lambda: lines()[1:] and lines(), "both calls have a line")
    assert (first.request_id, first.method, first.code, first.key_id) == (
        "my-call.1",
        "ListEnvironments",
        "OK",
        stack.admin[0],
    )
    assert (second.request_id, second.code, second.key_id) == ("my-call.2", "UNAUTHENTICATED", "")
    assert "my-call.1" in first.getMessage()


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "[bold]"])
async def test_an_id_that_is_unfit_for_a_log_is_replaced(stack: Stack, given) -> None:
    call = EnvironmentsStub(stack.channel).ListEnvironments(LIST, metadata=(*stack.metadata, ("x-request-id", given)))
    sent = dict(await call.initial_metadata())["x-request-id"]
    assert sent != given
    assert len(sent) == 32
    await call


async def test_a_hundred_calls_at_once(stack: Stack) -> None:
    secrets, environments = SecretsStub(stack.channel), EnvironmentsStub(stack.channel)

    async def one(number: int) -> None:
        await secrets.SetSecret(
            secret_pb2.SetSecretRequest(name=f"S_{number}", value=str(number)), metadata=stack.metadata
        )
        await environments.ListEnvironments(LIST, metadata=stack.metadata)

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(one(number))
    listed = await secrets.ListSecrets(secret_pb2.ListSecretsRequest(), metadata=stack.metadata)
    assert len(listed.secrets) == 100


async def test_a_blocking_client_and_a_unix_socket(stack: Stack, tmp_path) -> None:
    def ask(target: str) -> int:
        with grpc.insecure_channel(target) as channel:
            return len(EnvironmentsStub(channel).ListEnvironments(LIST, metadata=stack.metadata).environments)

    assert await asyncio.to_thread(ask, f"127.0.0.1:{stack.port}") == 1
    server = GrpcServer(stack.services)
    path = tmp_path / "grpc.sock"
    assert await server.start(unix_socket=path) == 0
    assert await asyncio.to_thread(ask, f"unix:{path}") == 1
    await server.stop()


async def test_a_port_that_is_taken_is_an_error(stack: Stack) -> None:
    server = GrpcServer(stack.services)
    with pytest.raises(Unavailable, match="cannot be listened on"):
        await server.start(port=stack.port)
    await server.stop()


async def test_a_request_of_many_mebibytes_is_read(stack: Stack) -> None:
    big = secret_pb2.SetSecretRequest(name="BIG", value="x" * (20 * 1024 * 1024))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await SecretsStub(stack.channel).SetSecret(big, metadata=stack.metadata)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


async def test_clients_that_retry_see_unavailable_only_when_they_give_up(stack: Stack) -> None:
    calls = 0

    class Starting:
        async def list(self, scope: Scope, environment: str | None) -> Sequence[AppView]:
            nonlocal calls
            calls += 1
            if calls < 3:
                raise Unavailable("starting: try again")
            return []

    stack.apps.list = Starting().list
    options = [("grpc.service_config", json.dumps(RETRIES)), ("grpc.enable_retries", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.port}", options=options) as channel:
        await AppsStub(channel).ListAliases(ListAliasesRequest(), metadata=stack.metadata)
    assert calls == 3


async def test_stopping_ends_streams_and_tells_health(stack: Stack) -> None:
    await stack.logs.ingest([stack.line("runner-1", 1)])
    selector = LogSelector(app=AppLogTarget(app="hello"))
    start = FollowLogsRequest(selector=selector)
    start.since.FromSeconds(0)
    stream = LogsStub(stack.channel).FollowLogs(start, metadata=stack.metadata)
    read = await stream.read()
    assert isinstance(read, FollowLogsResponse)
    assert read.entries
    await stack.server.stop()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await stream.read()
