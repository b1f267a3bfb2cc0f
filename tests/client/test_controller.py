"""Every call of a controller, on both sides. Each has its method name, request and result."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from fal_grpc.adapter import run
from fal_grpc.adapter.app import AuthMode, DeploymentStrategy
from fal_grpc.adapter.log import LogLevel, LogOrigin, LogQuery, LogSource
from fal_grpc.adapter.revision import (
    BuildRequest,
    EnvironmentSpec,
    FileRef,
    HealthCheckConfig,
    HealthCheckMethod,
    MachineRequirements,
    RegisterRequest,
    RetryCondition,
    SerializedCallable,
)
from fal_grpc.channel import ChannelOptions
from fal_grpc.credentials import NoCredentials, TokenCredentials
from fal_grpc.errors import ArgumentError
from fal_grpc.v1 import app_pb2, environment_pb2, key_pb2, log_pb2, revision_pb2, run_pb2, runner_pb2, secret_pb2
from tests.client.support import KEY, FakeController, serving

ISOLATE = "/controller.IsolateController/"
ENVIRONMENT = EnvironmentSpec(
    kind="virtualenv", configuration={"python_version": "3.11", "requirements": [["a"], ["b"]]}
)
MACHINE = MachineRequirements(machine_types=("S", "M"), keep_alive=0, exposed_port=8080, scheduler_options={"x": 1})


def request_of(fake, path):
    (call,) = [call for call in fake.calls if call.path == path]
    return call.request


UNARY = [
    ("list_aliases", (), {"environment_name": "staging"}, app_pb2.ListAliasesRequest(environment_name="staging")),
    (
        "set_alias",
        ("a", "rev"),
        {"auth_mode": "Public", "deployment_strategy": "recreate"},
        app_pb2.SetAliasRequest(
            alias="a", revision="rev", auth_mode=app_pb2.PUBLIC, deployment_strategy=app_pb2.RECREATE
        ),
    ),
    ("delete_alias", ("a",), {}, app_pb2.DeleteAliasRequest(alias="a")),
    (
        "update_application",
        ("a",),
        {"keep_alive": 0, "machine_types": ["S"], "scaling_delay": 3, "regions": []},
        app_pb2.UpdateApplicationRequest(
            application_name="a", keep_alive=0, machine_types=["S"], scaling_delay_seconds=3
        ),
    ),
    (
        "update_application",
        ("a",),
        {"regions": [""]},
        app_pb2.UpdateApplicationRequest(application_name="a", valid_regions=[""]),
    ),
    ("rollout_application", ("a",), {}, app_pb2.RolloutApplicationRequest(application_name="a", force=False)),
    ("list_applications", (), {}, revision_pb2.ListApplicationsRequest()),
    ("list_applications", ("a",), {}, revision_pb2.ListApplicationsRequest(application_name="a")),
    ("delete_application", ("rev",), {}, revision_pb2.DeleteApplicationRequest(application_id="rev")),
    ("list_runners", (), {}, runner_pb2.ListRunnersRequest(list_pending=True)),
    ("list_alias_runners", ("a",), {}, runner_pb2.ListAliasRunnersRequest(alias="a", list_pending=True)),
    ("get_runner", ("r",), {}, runner_pb2.GetRunnerRequest(runner_id="r")),
    ("stop_runner", ("r",), {"replace_first": True}, runner_pb2.StopRunnerRequest(runner_id="r", replace_first=True)),
    ("kill_runner", ("r",), {}, runner_pb2.KillRunnerRequest(runner_id="r")),
    ("create_user_key", (), {"scope": "Admin"}, key_pb2.CreateUserKeyRequest(policy_preset="FULL")),
    (
        "create_user_key",
        (),
        {"permissions": ["p"], "description": "d"},
        key_pb2.CreateUserKeyRequest(policy=key_pb2.KeyPolicy(permissions=["p"]), alias="d"),
    ),
    ("list_user_keys", (), {}, key_pb2.ListUserKeysRequest()),
    ("revoke_user_key", ("k",), {}, key_pb2.RevokeUserKeyRequest(key_id="k")),
    ("set_secret", ("N", ""), {}, secret_pb2.SetSecretRequest(name="N", value="")),
    (
        "set_secret",
        ("N", "v"),
        {"default_exposed": False, "environment_name": "e"},
        secret_pb2.SetSecretRequest(name="N", value="v", default_exposed=False, environment_name="e"),
    ),
    ("unset_secret", ("N",), {}, secret_pb2.SetSecretRequest(name="N")),
    ("list_secrets", (), {}, secret_pb2.ListSecretsRequest()),
    (
        "create_environment",
        ("e",),
        {"description": ""},
        environment_pb2.CreateEnvironmentRequest(name="e", description=""),
    ),
    ("list_environments", (), {}, environment_pb2.ListEnvironmentsRequest()),
    ("delete_environment", ("e",), {}, environment_pb2.DeleteEnvironmentRequest(name="e")),
    (
        "list_logs",
        (LogQuery(runner_id="r", lines=5, sources=(LogOrigin.STDERR,), search="x"),),
        {},
        log_pb2.ListLogsRequest(
            selector=log_pb2.LogSelector(runner_id="r", sources=[log_pb2.LogEntry.SOURCE_STDERR], search="x"),
            order=log_pb2.ListLogsRequest.ORDER_NEWEST_FIRST,
            lines=5,
        ),
    ),
]
METHODS = {
    "set_secret": "SetSecret",
    "unset_secret": "SetSecret",
}
OURS = {"get_runner": "/fal.v1.Runners/GetRunner", "list_logs": "/fal.v1.Logs/ListLogs"}


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "wanted"), UNARY, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_sent(fake, side, method, args, kwargs, wanted):
    side.call(fake.host, method, *args, **kwargs)
    (call,) = fake.calls
    name = METHODS.get(method) or "".join(word.title() for word in method.split("_"))
    assert call.path == OURS.get(method, ISOLATE + name)
    assert call.request == wanted
    assert call.metadata["auth-key"] == KEY.secret
    assert call.metadata["auth-key-id"] == KEY.key_id
    assert call.metadata["user-agent"].startswith("fal-grpc/")
    assert 50 < call.time_remaining < 61


def test_a_naive_time_is_local(fake, side, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        side.call(fake.host, "list_runners", since=datetime(2026, 1, 2, 9, 0, 0, 250_000))  # noqa: DTZ001
    finally:
        monkeypatch.undo()
        time.tzset()
    sent = request_of(fake, ISOLATE + "ListRunners").start_time
    assert sent.ToDatetime(tzinfo=UTC) == datetime(2026, 1, 2, 0, 0, 0, 250_000, tzinfo=UTC)


def test_an_aware_time_keeps_its_zone(fake, side):
    time = datetime(2026, 1, 2, 9, tzinfo=timezone(timedelta(hours=-5)))
    side.call(fake.host, "list_alias_runners", "a", since=time, list_pending=False)
    sent = request_of(fake, ISOLATE + "ListAliasRunners")
    assert sent.start_time.ToDatetime(tzinfo=UTC) == time
    assert sent.HasField("list_pending")
    assert not sent.list_pending


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "argument"),
    [
        ("kill_runner", ("",), {}, "runner_id"),
        ("list_alias_runners", ("",), {}, "app_name"),
        ("set_alias", ("a", ""), {}, "revision"),
        ("set_alias", ("a", "r"), {"auth_mode": "open"}, "auth"),
        ("set_alias", ("a", "r"), {"deployment_strategy": "x"}, "strategy"),
        ("update_application", ("a",), {"keep_alive": -1}, "keep_alive"),
        ("update_application", ("a",), {"keep_alive": 1.5}, "keep_alive"),
        ("update_application", ("a",), {"keep_alive": True}, "keep_alive"),
        ("update_application", ("a",), {"max_concurrency": 2**31}, "max_concurrency"),
        ("update_application", ("a",), {"machine_types": "S"}, "machine_types"),
        ("update_application", ("a",), {"machine_types": [1]}, "machine_types"),
        ("update_application", ("a\ud800",), {}, "app_name"),
        ("delete_application", ("",), {}, "application_id"),
        ("list_runners", (), {"since": "1h"}, "since"),
        ("list_runners", (), {"since": datetime(1960, 1, 1, tzinfo=UTC)}, "since"),
        ("list_runners", (), {"since": datetime.min}, "since"),  # noqa: DTZ901
        ("create_user_key", (), {}, "scope"),
        ("create_user_key", (), {"scope": "admin", "preset": "FULL"}, "scope"),
        ("create_user_key", (), {"scope": "root"}, "scope"),
        ("create_user_key", (), {"preset": "root"}, "preset"),
        ("create_user_key", (), {"permissions": []}, "permissions"),
        ("revoke_user_key", ("",), {}, "key_id"),
        ("revoke_user_key", ("id:hidden-secret",), {}, "key_id"),
        ("set_secret", ("", "v"), {}, "name"),
        ("set_secret", ("N", None), {}, "value"),
        ("set_secret", ("N", "\udfff"), {}, "value"),
        ("create_environment", ("",), {}, "name"),
        ("shell_runner", ("r", "ls -l"), {}, "command"),
        ("shell_runner", ("r",), {"interactive": True, "stdin": b""}, "stdin"),
        ("build_environment", (BuildRequest(environments=()),), {}, "environments"),
        ("run", (run.RunRequest(environments=(), machine=MACHINE, entrypoint="nocolon"),), {}, "entrypoint"),
        (
            "register_application",
            (RegisterRequest(environments=(), machine=MACHINE, metadata={"a": object()}),),
            {},
            "metadata.a",
        ),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_sent(fake, side, method, args, kwargs, argument):
    with pytest.raises(ArgumentError) as caught:
        side.call(fake.host, method, *args, **kwargs)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")
    assert "hidden-secret" not in str(caught.value)
    assert fake.calls == []


def test_a_deploy(fake, side):
    fake.answers["RegisterApplication"] = [
        revision_pb2.RegisterApplicationResult(
            logs=[log_pb2.Log(message="hi", source=log_pb2.USER, level=log_pb2.STDOUT)]
        ),
        revision_pb2.RegisterApplicationResult(
            result=revision_pb2.RegisterApplicationResultType(application_id="rev-1"),
            service_urls=run_pb2.ServiceURLs(playground="p", run="r", queue="q", ws="w", log="l"),
            env_id="env-1",
        ),
    ]
    request = RegisterRequest(
        environments=(ENVIRONMENT,),
        machine=MACHINE,
        function=SerializedCallable(definition=b"\x80pickle"),
        setup_func=SerializedCallable(definition=b"s", method="pickle"),
        application_name="tiny",
        auth_mode=AuthMode.SHARED,
        metadata={"openapi": {"paths": [1, 2.5, None, True, "x"]}},
        deployment_strategy=DeploymentStrategy.RECREATE,
        scale=True,
        private_logs=True,
        files=(FileRef(hash="h", relative_path="a/b"),),
        source_code="code",
        environment_name="staging",
        health_check=HealthCheckConfig(path="/h", method=HealthCheckMethod.POST, timeout_seconds=0),
        skip_retry_conditions=(RetryCondition.CONNECTION_ERROR,),
        termination_grace_period_seconds=7,
        data_mounts=("/data",),
        secrets=("A",),
        run_on_main_thread=True,
        build_environment=False,
        env_id="env-1",
        retry_config="{}",
        attach_to_deployment=False,
    )
    first, last = side.call(fake.host, "register_application", request)
    assert first.logs[0].message == "hi"
    assert (first.logs[0].source, first.logs[0].level, first.logs[0].timestamp) == (
        LogSource.USER,
        LogLevel.STDOUT,
        None,
    )
    assert first.application_id is None
    assert (last.application_id, last.env_id) == ("rev-1", "env-1")
    assert last.service_urls == run.ServiceURLs(playground="p", run="r", queue="q", ws="w", log="l")
    sent = request_of(fake, ISOLATE + "RegisterApplication")
    unset = {field.name for field in sent.DESCRIPTOR.fields} - {field.name for field, _ in sent.ListFields()}
    assert unset == {"entrypoint", "max_concurrency", "health_check_path", "fetch_openapi", "volumes", "revision_id"}
    assert sent.machine_requirements.machine_type == "S"
    assert list(sent.machine_requirements.machine_types) == ["S", "M"]
    assert sent.machine_requirements.HasField("keep_alive")
    assert not sent.machine_requirements.HasField("max_concurrency")
    assert sent.health_check_config.HasField("timeout_seconds")
    assert sent.health_check_config.method == run_pb2.ApplicationHealthCheckConfig.POST
    assert list(sent.skip_retry_conditions) == [revision_pb2.CONNECTION_ERROR]
    assert fake.calls[0].time_remaining > 1e9, "streams have no deadline"


def test_a_build_sends_only_what_matters_to_it(fake, side):
    fake.answers["BuildEnvironment"] = [
        revision_pb2.BuildEnvironmentResult(env_id="e", logs=[log_pb2.Log(message="installing")]),
        revision_pb2.BuildEnvironmentResult(
            env_id="e", status=run_pb2.HostedRunStatus(state=run_pb2.HostedRunStatus.SUCCESS)
        ),
    ]
    first, last = side.call(fake.host, "build_environment", BuildRequest(environments=(ENVIRONMENT,), machine=MACHINE))
    assert (first.state, last.state) == (None, run.RunState.SUCCESS)
    sent = request_of(fake, ISOLATE + "BuildEnvironment")
    assert {field.name for field, _ in sent.machine_requirements.ListFields()} == {
        "machine_type",
        "machine_types",
        "scheduler_options",
    }


def test_a_run_and_its_result(fake, side):
    fake.answers["Run"] = [
        run_pb2.HostedRunResult(run_id="1"),
        run_pb2.HostedRunResult(
            run_id="1",
            status=run_pb2.HostedRunStatus(state=run_pb2.HostedRunStatus.SUCCESS),
            return_value=run_pb2.SerializedObject(method="json", definition=b'{"a": 1}'),
        ),
    ]
    request = run.RunRequest(environments=(ENVIRONMENT,), machine=MACHINE, entrypoint="m:f")
    first, last = side.call(fake.host, "run", request)
    assert first.state is run.RunState.IN_PROGRESS
    assert last.return_value.load() == {"a": 1}
    assert request_of(fake, ISOLATE + "Run").entrypoint == "m:f"


def test_a_pickle_is_not_read_by_default():
    import pickle

    from fal_grpc.errors import FalError

    value = run.ReturnValue(method="pickle", definition=pickle.dumps([1, 2]))
    with pytest.raises(FalError, match="not read by default"):
        value.load()
    assert value.load(allow_pickle=True) == [1, 2]
    with pytest.raises(FalError):
        run.ReturnValue(method="os", definition=b"").load(allow_pickle=True)


@pytest.mark.parametrize(
    ("credentials", "wanted"),
    [
        (TokenCredentials("jwt", user_id="team|1"), {"authorization": "Bearer jwt", "fal-user-id": "team|1"}),
        (TokenCredentials("jwt"), {"authorization": "Bearer jwt"}),
        (NoCredentials(), {}),
    ],
)
def test_other_credentials(fake, side, credentials, wanted):
    side.call(fake.host, "list_runners", credentials=credentials)
    sent = fake.calls[0].metadata
    assert {
        name: value for name, value in sent.items() if name in ("authorization", "fal-user-id", "auth-key")
    } == wanted


def test_our_own_names_if_the_options_say_so(fake, side):
    side.call(fake.host, "list_runners", options=ChannelOptions(wire="fal.v1"))
    assert fake.paths() == ["/fal.v1.Runners/ListRunners"]


def test_a_foreign_controller_is_reached(side):
    with serving(FakeController(isolate_only=True)) as foreign:
        side.call(foreign.host, "list_runners")
        assert foreign.paths() == [ISOLATE + "ListRunners"]
