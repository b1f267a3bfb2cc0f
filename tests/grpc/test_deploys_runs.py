"""Builds, deploys and runs. The whole request reaches the service, and clients can read the stream."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from fal_grpc.v1 import app_pb2, log_pb2, revision_pb2, run_pb2
from fal_grpc.v1.revision_pb2_grpc import RevisionsStub
from fal_grpc.v1.run_pb2_grpc import RunsStub
from fal_server.core.apps import App, AuthMode, Strategy
from fal_server.core.faults import FailedPrecondition
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogLevel, LogSource
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, HealthMethod
from fal_server.core.scaling import Scaling
from fal_server.ports import RunResult
from fal_server.services.views import Built, CodeRequest, Deployed, DeployRequest, RunEnded, RunStarted, Urls
from tests.grpc.conftest import Stack

URLS = Urls(playground="http://h/p", run="http://h/r", queue="http://h/q", ws="ws://h", log="http://h/l")
Status = run_pb2.HostedRunStatus


def environment(**fields) -> run_pb2.EnvironmentDefinition:
    built = run_pb2.EnvironmentDefinition(kind="virtualenv")
    built.configuration.update(fields)
    return built


VENV = environment(
    python_version="3.11", requirements=[["fastapi==0.1"], ["x"]], resolver="uv", workers=2, ratio=0.5, none=None
)
SPEC = EnvironmentSpec(
    kind="virtualenv",
    configuration={
        "python_version": "3.11",
        "requirements": [["fastapi==0.1"], ["x"]],
        "resolver": "uv",
        "workers": 2,
        "ratio": 0.5,
        "none": None,
    },
)
MACHINE = run_pb2.MachineRequirements(
    machine_type="S",
    machine_types=["S", "M"],
    keep_alive=60,
    exposed_port=8080,
    metrics_port=9090,
    scheduler="nomad",
    max_concurrency=3,
    scaling_delay_seconds=0,
    num_gpus=1,
    valid_regions=["us-east"],
)
HASH = "ab" * 32
FUNCTION = run_pb2.SerializedObject(method="cloudpickle", definition=b"\x80code")


async def all_of(stream) -> list:
    return [message async for message in stream]


async def test_a_build_names_its_environment_in_every_message(stack: Stack) -> None:
    stack.deploys.steps = [
        stack.line("b", 1, "Collecting", source=LogSource.BUILD),
        Built(env_id="built"),
    ]
    request = revision_pb2.BuildEnvironmentRequest(
        environments=[VENV],
        machine_requirements=MACHINE,
        environment_name="staging",
        application_name="hello",
        secrets=run_pb2.SecretsConfig(names=["TOKEN"]),
        files=[run_pb2.File(hash=HASH, relative_path="a/b.py")],
    )
    request.environments[0].force = True
    first, last = await all_of(RevisionsStub(stack.channel).BuildEnvironment(request, metadata=stack.metadata))
    [log] = first.logs
    assert (log.message, log.source, log.level) == ("Collecting", log_pb2.BUILDER, log_pb2.INFO)
    assert first.env_id == SPEC.env_id
    assert not first.HasField("status")
    assert (last.env_id, last.status.state) == ("built", Status.SUCCESS)
    [code] = stack.deploys.asked
    assert code == CodeRequest(
        environments=(SPEC,),
        force_build=True,
        application_name="hello",
        environment_name="staging",
        scaling={
            "keep_alive": 60,
            "max_concurrency": 3,
            "scaling_delay": 0,
            "machine_types": ("S", "M"),
            "regions": ("us-east",),
        },
        num_gpus=1,
        files=(AppFile(hash=HASH, relative_path="a/b.py"),),
        secret_names=("TOKEN",),
    )
    assert type(code.environments[0].configuration["workers"]) is int


async def test_a_failed_build_says_why(stack: Stack) -> None:
    stack.deploys.steps = [FailedPrecondition("No matching distribution found for nothing==9")]
    request = revision_pb2.BuildEnvironmentRequest(environments=[VENV])
    with pytest.raises(grpc.aio.AioRpcError, match="No matching distribution"):
        await all_of(RevisionsStub(stack.channel).BuildEnvironment(request, metadata=stack.metadata))


async def test_a_deploy_is_handed_over_whole(stack: Stack) -> None:
    now = stack.clock.now()
    app = App(
        account=LOCAL,
        name="hello",
        environment="main",
        revision_id="rev-9",
        auth_mode=AuthMode.PRIVATE,
        scaling=Scaling(),
        created_at=now,
        updated_at=now,
    )
    stack.deploys.steps = [
        stack.line("b", 1, "starting", source=LogSource.SYSTEM, level=LogLevel.WARNING),
        stack.line("b", 2, "print", source=LogSource.STDERR, level=LogLevel.ERROR),
        Deployed(app=app, revision_id="rev-9", urls=URLS, env_id="env"),
    ]
    request = revision_pb2.RegisterApplicationRequest(
        environments=[VENV],
        machine_requirements=MACHINE,
        function=FUNCTION,
        setup_func=run_pb2.SerializedObject(method="pickle", definition=b"s"),
        application_name="hello",
        auth_mode=app_pb2.PUBLIC,
        deployment_strategy=app_pb2.RECREATE,
        scale=True,
        private_logs=True,
        files=[run_pb2.File(hash=HASH, relative_path="x.py")],
        source_code="print()",
        environment_name="main",
        health_check_config=run_pb2.ApplicationHealthCheckConfig(
            path="/health",
            start_period_seconds=0,
            failure_threshold=5,
            call_regularly=False,
            method=run_pb2.ApplicationHealthCheckConfig.POST,
        ),
        skip_retry_conditions=[revision_pb2.TIMEOUT, revision_pb2.CONNECTION_ERROR],
        termination_grace_period_seconds=7,
        secrets=run_pb2.SecretsConfig(),
        run_on_main_thread=True,
        build_environment=False,
        env_id=HASH,
        retry_config=json.dumps({"max": 1}),
        attach_to_deployment=False,
    )
    request.metadata.update({"openapi": {"paths": {}}, "message": "hi"})
    first, second, last = await all_of(
        RevisionsStub(stack.channel).RegisterApplication(request, metadata=stack.metadata)
    )
    assert [(m.logs[0].source, m.logs[0].level) for m in (first, second)] == [
        (log_pb2.BRIDGE, log_pb2.WARNING),
        (log_pb2.USER, log_pb2.ERROR),
    ]
    # In one message: published clients read nothing after the result.
    assert (last.result.application_id, last.service_urls.run, last.env_id) == ("rev-9", "http://h/r", "env")
    assert stack.deploys.asked == [
        DeployRequest(
            code=CodeRequest(
                environments=(SPEC,),
                function=("cloudpickle", b"\x80code"),
                setup=("pickle", b"s"),
                run_on_main_thread=True,
                application_name="hello",
                environment_name="main",
                auth_mode=AuthMode.PUBLIC,
                scaling={
                    "keep_alive": 60,
                    "max_concurrency": 3,
                    "scaling_delay": 0,
                    "machine_types": ("S", "M"),
                    "regions": ("us-east",),
                },
                exposed_port=8080,
                metrics_port=9090,
                num_gpus=1,
                files=(AppFile(hash=HASH, relative_path="x.py"),),
                secret_names=(),
                health_check=HealthCheck(
                    path="/health",
                    start_period_seconds=0,
                    failure_threshold=5,
                    call_regularly=False,
                    method=HealthMethod.POST,
                ),
                termination_grace_seconds=7,
                private_logs=True,
                build_environment=False,
                env_id=HASH,
            ),
            strategy=Strategy.RECREATE,
            reset_scale=True,
            metadata={"openapi": {"paths": {}}, "message": "hi"},
            source_code="print()",
            retry_config='{"max": 1}',
            skip_retry_conditions=("timeout", "connection_error"),
            attach=False,
        )
    ]


async def test_what_is_left_out_of_a_deploy_stays_open(stack: Stack) -> None:
    request = revision_pb2.RegisterApplicationRequest(
        entrypoint="pkg.mod:Thing.run",
        max_concurrency=4,
        health_check_path="/h",
        machine_requirements=run_pb2.MachineRequirements(machine_type="M"),
    )
    await all_of(RevisionsStub(stack.channel).RegisterApplication(request, metadata=stack.metadata))
    assert stack.deploys.asked == [
        DeployRequest(
            code=CodeRequest(
                environments=(),
                entrypoint="pkg.mod:Thing.run",
                scaling={"max_concurrency": 4, "machine_types": ("M",)},
                health_check=HealthCheck(path="/h"),
            )
        )
    ]


async def test_an_image_needs_no_callable(stack: Stack) -> None:
    image = run_pb2.EnvironmentDefinition(kind="container")
    request = revision_pb2.RegisterApplicationRequest(environments=[image])
    await all_of(RevisionsStub(stack.channel).RegisterApplication(request, metadata=stack.metadata))
    assert stack.deploys.asked[0].code.function is None


async def run(stack: Stack, *steps: object) -> list[run_pb2.HostedRunResult]:
    stack.runs.steps = list(steps)
    request = run_pb2.HostedRun(function=FUNCTION, environments=[VENV], auth_mode=app_pb2.PUBLIC)
    return await all_of(RunsStub(stack.channel).Run(request, metadata=stack.metadata))


async def test_a_run_is_in_progress_and_then_has_its_value(stack: Stack) -> None:
    messages = await run(
        stack,
        stack.line("b", 1, "building", source=LogSource.BUILD),
        RunStarted(run_id="run-1", urls=URLS, env_id="env"),
        stack.line("run-1", 1, "hello"),
        RunEnded(run_id="run-1", result=RunResult(method="cloudpickle", definition=b"42")),
    )
    assert [m.status.state for m in messages] == [Status.IN_PROGRESS] * 3 + [Status.SUCCESS]
    assert [m.run_id for m in messages] == ["", "run-1", "run-1", "run-1"]
    assert messages[1].service_urls.run == "http://h/r"
    assert messages[2].logs[0].message == "hello"
    assert messages[2].env_id == "env"
    assert (messages[3].return_value.method, messages[3].return_value.definition) == ("cloudpickle", b"42")
    assert not messages[3].return_value.was_it_raised
    assert stack.runs.asked[0].auth_mode is AuthMode.PUBLIC
    assert stack.runs.closed == 1


async def test_code_that_raises_was_run_successfully(stack: Stack) -> None:
    raised = RunResult(
        method="cloudpickle",
        definition=b"e",
        raised=True,
        traceback="Traceback",
        exception_type="ValueError",
        exception_message="no",
    )
    [last] = await run(stack, RunEnded(run_id="r", result=raised))
    value = last.return_value
    assert last.status.state == Status.SUCCESS
    assert (value.was_it_raised, value.stringized_traceback, value.exception_type_name, value.exception_message) == (
        True,
        "Traceback",
        "ValueError",
        "no",
    )


async def test_a_run_without_a_result_says_why(stack: Stack) -> None:
    [last] = await run(stack, RunEnded(run_id="r", result=None, reason="killed: out of memory"))
    assert last.status.state == Status.INTERNAL_FAILURE
    assert [log.message for log in last.logs] == ["killed: out of memory"]
    assert not last.HasField("return_value")


async def test_a_caller_that_hangs_up_ends_the_run(stack: Stack) -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    stack.runs.steps = [RunStarted(run_id="r", urls=URLS, env_id="e"), endless]
    stream = RunsStub(stack.channel).Run(run_pb2.HostedRun(function=FUNCTION), metadata=stack.metadata)
    await stream.read()
    stream.cancel()
    async with asyncio.timeout(30):
        await ended.wait()
