"""Bad requests: method, request, expected status, and the field named in answers."""

# pyright: reportArgumentType=false
# Wrong values, such as unknown enum numbers, are intended.

from __future__ import annotations

import math
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from fal_grpc.v1 import (
    account_pb2,
    app_pb2,
    audit_pb2,
    drain_pb2,
    environment_pb2,
    exec_pb2,
    key_pb2,
    log_pb2,
    notice_pb2,
    request_pb2,
    revision_pb2,
    run_pb2,
    runner_pb2,
    secret_pb2,
)

INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def spec(**fields) -> run_pb2.EnvironmentDefinition:
    built = run_pb2.EnvironmentDefinition(kind="virtualenv")
    built.configuration.update(fields)
    return built


def code(**fields) -> dict[str, Any]:
    function = run_pb2.SerializedObject(method="cloudpickle", definition=b"x")
    return {"function": function, "environments": [spec()], **fields}


def stamped(kind: type[Message], seconds: int, nanos: int = 0, field: str = "start_time", **fields) -> Message:
    built = kind(**fields)
    getattr(built, field).seconds = seconds
    getattr(built, field).nanos = nanos
    return built


def infinite() -> run_pb2.EnvironmentDefinition:
    built = spec()
    built.configuration.fields["x"].number_value = math.inf
    return built


def hollow() -> run_pb2.EnvironmentDefinition:
    built = spec()
    built.configuration.fields["x\x1b[2J"].list_value.values.add()
    return built


HUGE = "x" * 100_000
EMAIL = notice_pb2.NOTICE_FORM_EMAIL
HOOK = "http://receiver.test/"
CONTROL = "\x1b[2J\x00"
File = run_pb2.File
Machine = run_pb2.MachineRequirements
Health = run_pb2.ApplicationHealthCheckConfig
Register = revision_pb2.RegisterApplicationRequest
Selector = log_pb2.LogSelector
ONE = app_pb2.SimulatedArrival(at_seconds=1, duration_seconds=1)
LATE = app_pb2.SimulatedArrival(at_seconds=math.inf)

BAD: list[tuple[str, Message, grpc.StatusCode, str]] = [
    # Accounts
    ("CreateAccount", account_pb2.CreateAccountRequest(kind=1), INVALID, "nickname"),
    ("CreateAccount", account_pb2.CreateAccountRequest(nickname="A b", kind=1), INVALID, "nickname"),
    ("CreateAccount", account_pb2.CreateAccountRequest(nickname=HUGE, kind=1), INVALID, "nickname"),
    ("CreateAccount", account_pb2.CreateAccountRequest(nickname="crew"), INVALID, "kind"),
    ("CreateAccount", account_pb2.CreateAccountRequest(nickname="crew", kind=7), INVALID, "kind"),
    ("CreateAccount", account_pb2.CreateAccountRequest(nickname="crew", kind=2, full_name=HUGE), INVALID, "full_name"),
    ("ListMembers", account_pb2.ListMembersRequest(team="nobody"), MISSING, ""),
    ("ListMembers", account_pb2.ListMembersRequest(team=HUGE), MISSING, ""),
    ("RenameAccount", account_pb2.RenameAccountRequest(nickname="nobody", new_nickname="x"), MISSING, ""),
    ("RenameAccount", account_pb2.RenameAccountRequest(nickname="local", new_nickname="A b"), INVALID, "new_nickname"),
    ("DeleteAccount", account_pb2.DeleteAccountRequest(nickname="nobody"), MISSING, ""),
    ("DeleteAccount", account_pb2.DeleteAccountRequest(nickname="local"), PRECONDITION, ""),
    ("GetQuotas", account_pb2.GetQuotasRequest(nickname="nobody"), MISSING, ""),
    ("SetQuotas", account_pb2.SetQuotasRequest(nickname=HUGE), MISSING, ""),
    (
        "SetQuotas",
        account_pb2.SetQuotasRequest(nickname="local", quotas=account_pb2.Quotas(runners=-1)),
        INVALID,
        "runners",
    ),
    ("AddMember", account_pb2.AddMemberRequest(team="nobody", user="x", role=1), MISSING, ""),
    ("RemoveMember", account_pb2.RemoveMemberRequest(team="nobody", user="x"), MISSING, ""),
    # Notices
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="A b", url=HOOK), INVALID, "name"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a"), INVALID, "url"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a", url="ftp://x"), INVALID, "url"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a", url=HOOK, apps=["-"]), INVALID, "apps[0]"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a", url=HOOK, thresholds={"x": 1}), INVALID, "thresholds"),
    (
        "CreateNotice",
        notice_pb2.CreateNoticeRequest(name="a", url=HOOK, thresholds={"queue-size": -1}),
        INVALID,
        "thresholds",
    ),
    (
        "CreateNotice",
        notice_pb2.CreateNoticeRequest(name="a", url=HOOK, thresholds={"queue-size": float("nan")}),
        INVALID,
        "thresholds",
    ),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a", url=HOOK, signing_key="short"), INVALID, "signing_key"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a", url=HOOK, to=["a@b.c"]), INVALID, "to"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest.FromString(b"\x0a\x01a\x18\x63"), INVALID, "form"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a", url=HOOK, form=EMAIL, to=["a@b.c"]), INVALID, "url"),
    ("CreateNotice", notice_pb2.CreateNoticeRequest(name="a", url="smtp://h", form=EMAIL), INVALID, "to"),
    (
        "CreateNotice",
        notice_pb2.CreateNoticeRequest(name="a", url="smtp://h", form=EMAIL, to=["a@b\nc"]),
        INVALID,
        "to",
    ),
    (
        "CreateNotice",
        notice_pb2.CreateNoticeRequest(name="a", url="smtp://h", form=EMAIL, to=["a@b.c"], password="x"),
        INVALID,
        "password",
    ),
    ("GetNotice", notice_pb2.GetNoticeRequest(), INVALID, "name"),
    ("GetNotice", notice_pb2.GetNoticeRequest(name="none"), MISSING, ""),
    ("TestNotice", notice_pb2.TestNoticeRequest(name="none"), MISSING, ""),
    ("DeleteNotice", notice_pb2.DeleteNoticeRequest(name="none"), MISSING, ""),
    # The request history
    ("ListRequests", request_pb2.ListRequestsRequest(page_size=-1), INVALID, "page_size"),
    ("ListRequests", request_pb2.ListRequestsRequest(page_size=1001), INVALID, "page_size"),
    ("ListRequests", request_pb2.ListRequestsRequest(page_token="x"), INVALID, "page_token"),
    ("ListRequests", request_pb2.ListRequestsRequest(status=99), INVALID, "status"),
    ("ListRequests", request_pb2.ListRequestsRequest(application_name="a b"), INVALID, "application_name"),
    ("ListRequests", request_pb2.ListRequestsRequest(since=Timestamp(seconds=2**62)), INVALID, "since"),
    ("GetRequest", request_pb2.GetRequestRequest(), INVALID, "request_id"),
    ("GetRequest", request_pb2.GetRequestRequest(request_id="none"), MISSING, ""),
    ("GetRequestStats", request_pb2.GetRequestStatsRequest(step_seconds=90), INVALID, "step_seconds"),
    ("GetRequestStats", request_pb2.GetRequestStatsRequest(step_seconds=-60), INVALID, "step_seconds"),
    (
        "GetRequestStats",
        request_pb2.GetRequestStatsRequest(until=Timestamp(seconds=1), since=Timestamp(seconds=999)),
        INVALID,
        "until",
    ),
    # Log drains
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="A b", url=HOOK), INVALID, "name"),
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="a"), INVALID, "url"),
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="a", url="ftp://x"), INVALID, "url"),
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="a", url=HOOK, apps=["-"]), INVALID, "apps[0]"),
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="a", url=HOOK, headers={"a b": "x"}), INVALID, "headers"),
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="a", url=HOOK, headers={"host": "x"}), INVALID, "headers"),
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="a", url=HOOK, headers={"x": "a\nb"}), INVALID, "headers"),
    ("CreateDrain", drain_pb2.CreateDrainRequest(name="a", url=HOOK, signing_key="short"), INVALID, "signing_key"),
    ("CreateDrain", drain_pb2.CreateDrainRequest.FromString(b"\x0a\x01a\x18\x63"), INVALID, "format"),
    (
        "CreateDrain",
        drain_pb2.CreateDrainRequest(name="a", url=HOOK, least_level=log_pb2.STDOUT),
        INVALID,
        "least_level",
    ),
    ("GetDrain", drain_pb2.GetDrainRequest(), INVALID, "name"),
    ("GetDrain", drain_pb2.GetDrainRequest(name="none"), MISSING, ""),
    ("DeleteDrain", drain_pb2.DeleteDrainRequest(name="none"), MISSING, ""),
    ("PauseDrain", drain_pb2.PauseDrainRequest(name="none"), MISSING, ""),
    ("ResumeDrain", drain_pb2.ResumeDrainRequest(name="none"), MISSING, ""),
    # The audit log
    ("ListAuditEntries", audit_pb2.ListAuditEntriesRequest(page_size=-1), INVALID, "page_size"),
    ("ListAuditEntries", audit_pb2.ListAuditEntriesRequest(page_token="x"), INVALID, "page_token"),
    ("ListAuditEntries", audit_pb2.ListAuditEntriesRequest(since=Timestamp(seconds=2**62)), INVALID, "since"),
    # Keys
    ("CreateLoginToken", key_pb2.CreateLoginTokenRequest(life=Duration(seconds=-1)), INVALID, "life"),
    ("CreateLoginToken", key_pb2.CreateLoginTokenRequest(life=Duration(seconds=2**40)), INVALID, "life"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(scope=7), INVALID, "scope"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(scope=-1), INVALID, "scope"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(policy_preset="ROOT"), INVALID, "policy_preset"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(policy_preset=""), INVALID, "policy_preset"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(policy_preset=HUGE), INVALID, "policy_preset"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(policy=key_pb2.KeyPolicy()), INVALID, "policy.permissions"),
    (
        "CreateUserKey",
        key_pb2.CreateUserKeyRequest(policy=key_pb2.KeyPolicy(permissions=["serverless:everything"])),
        INVALID,
        "policy.permissions",
    ),
    (
        "CreateUserKey",
        key_pb2.CreateUserKeyRequest(policy=key_pb2.KeyPolicy(permissions=[HUGE])),
        INVALID,
        "policy.permissions",
    ),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(alias=HUGE), INVALID, "alias"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(alias=CONTROL), INVALID, "alias"),
    ("RevokeUserKey", key_pb2.RevokeUserKeyRequest(), INVALID, "key_id"),
    ("RevokeUserKey", key_pb2.RevokeUserKeyRequest(key_id=HUGE), INVALID, "key_id"),
    ("RevokeUserKey", key_pb2.RevokeUserKeyRequest(key_id=CONTROL), INVALID, "key_id"),
    ("RevokeUserKey", key_pb2.RevokeUserKeyRequest(key_id="nobody"), MISSING, ""),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(expires_at=Timestamp(seconds=1)), INVALID, "expires_at"),
    ("CreateUserKey", key_pb2.CreateUserKeyRequest(expires_at=Timestamp(seconds=2**62)), INVALID, "expires_at"),
    ("RotateUserKey", key_pb2.RotateUserKeyRequest(), INVALID, "key_id"),
    ("RotateUserKey", key_pb2.RotateUserKeyRequest(key_id=CONTROL), INVALID, "key_id"),
    ("RotateUserKey", key_pb2.RotateUserKeyRequest(key_id="nobody"), MISSING, ""),
    ("RotateUserKey", key_pb2.RotateUserKeyRequest(key_id="k", overlap=Duration(seconds=-1)), INVALID, "overlap"),
    ("RotateUserKey", key_pb2.RotateUserKeyRequest(key_id="k", overlap=Duration(seconds=2**62)), INVALID, "overlap"),
    # Secrets
    ("SetSecret", secret_pb2.SetSecretRequest(value="x"), INVALID, "name"),
    ("SetSecret", secret_pb2.SetSecretRequest(name="9A", value="x"), INVALID, "name"),
    ("SetSecret", secret_pb2.SetSecretRequest(name="A B", value="x"), INVALID, "name"),
    ("SetSecret", secret_pb2.SetSecretRequest(name="PATH", value="x"), INVALID, "name"),
    ("SetSecret", secret_pb2.SetSecretRequest(name=HUGE, value="x"), INVALID, "name"),
    ("SetSecret", secret_pb2.SetSecretRequest(name=CONTROL, value="x"), INVALID, "name"),
    ("SetSecret", secret_pb2.SetSecretRequest(name="A", value=HUGE), INVALID, "value"),
    ("SetSecret", secret_pb2.SetSecretRequest(name="A", value="a\0b"), INVALID, "value"),
    ("SetSecret", secret_pb2.SetSecretRequest(name="A", value="x", environment_name="nowhere"), MISSING, ""),
    (
        "SetSecret",
        secret_pb2.SetSecretRequest(name="A", value="x", environment_name="No--Where"),
        INVALID,
        "environment_name",
    ),
    ("SetSecret", secret_pb2.SetSecretRequest(name="UNSET"), MISSING, ""),
    ("ListSecrets", secret_pb2.ListSecretsRequest(environment_name="nowhere"), MISSING, ""),
    ("ListSecrets", secret_pb2.ListSecretsRequest(environment_name=HUGE), INVALID, "environment_name"),
    # Environments
    ("CreateEnvironment", environment_pb2.CreateEnvironmentRequest(), INVALID, "name"),
    ("CreateEnvironment", environment_pb2.CreateEnvironmentRequest(name="A b"), INVALID, "name"),
    ("CreateEnvironment", environment_pb2.CreateEnvironmentRequest(name="a--b"), INVALID, "name"),
    ("CreateEnvironment", environment_pb2.CreateEnvironmentRequest(name=HUGE), INVALID, "name"),
    ("CreateEnvironment", environment_pb2.CreateEnvironmentRequest(name="a", description=HUGE), INVALID, "description"),
    (
        "CreateEnvironment",
        environment_pb2.CreateEnvironmentRequest(name="a", description=CONTROL),
        INVALID,
        "description",
    ),
    (
        "CreateEnvironment",
        environment_pb2.CreateEnvironmentRequest(name="main"),
        grpc.StatusCode.ALREADY_EXISTS,
        "",
    ),
    ("DeleteEnvironment", environment_pb2.DeleteEnvironmentRequest(), INVALID, "name"),
    ("DeleteEnvironment", environment_pb2.DeleteEnvironmentRequest(name="nowhere"), MISSING, ""),
    (
        "DeleteEnvironment",
        environment_pb2.DeleteEnvironmentRequest(name="main"),
        grpc.StatusCode.FAILED_PRECONDITION,
        "",
    ),
    # Apps
    ("ListAliases", app_pb2.ListAliasesRequest(environment_name="No Where"), INVALID, "environment_name"),
    ("SetAlias", app_pb2.SetAliasRequest(alias="hello", revision="r", auth_mode=9), INVALID, "auth_mode"),
    (
        "SetAlias",
        app_pb2.SetAliasRequest(alias="hello", revision="r", deployment_strategy=9),
        INVALID,
        "deployment_strategy",
    ),
    ("SetAlias", app_pb2.SetAliasRequest(alias="hello", revision=CONTROL), INVALID, "revision"),
    ("DeleteAlias", app_pb2.DeleteAliasRequest(), INVALID, "application_name"),
    ("DeleteAlias", app_pb2.DeleteAliasRequest(alias="nothing"), MISSING, ""),
    ("UpdateApplication", app_pb2.UpdateApplicationRequest(), INVALID, "application_name"),
    (
        "UpdateApplication",
        app_pb2.UpdateApplicationRequest(application_name="hello", keep_alive=-1),
        INVALID,
        "keep_alive",
    ),
    (
        "UpdateApplication",
        app_pb2.UpdateApplicationRequest(application_name="hello", max_multiplexing=0),
        INVALID,
        "max_multiplexing",
    ),
    (
        "UpdateApplication",
        app_pb2.UpdateApplicationRequest(application_name="hello", min_concurrency=2**31 - 1),
        INVALID,
        "min_concurrency",
    ),
    (
        "UpdateApplication",
        app_pb2.UpdateApplicationRequest(application_name="hello", min_concurrency=5, max_concurrency=4),
        INVALID,
        "min_concurrency",
    ),
    ("RolloutApplication", app_pb2.RolloutApplicationRequest(application_name=HUGE), INVALID, "application_name"),
    ("RolloutApplication", app_pb2.RolloutApplicationRequest(application_name="none"), MISSING, ""),
    # Revisions and runs
    ("DeleteApplication", revision_pb2.DeleteApplicationRequest(), INVALID, "application_id"),
    ("DeleteApplication", revision_pb2.DeleteApplicationRequest(application_id="none"), MISSING, ""),
    ("BuildEnvironment", revision_pb2.BuildEnvironmentRequest(), INVALID, "environments"),
    (
        "BuildEnvironment",
        revision_pb2.BuildEnvironmentRequest(environments=[run_pb2.EnvironmentDefinition()]),
        INVALID,
        "environments[0].kind",
    ),
    (
        "BuildEnvironment",
        revision_pb2.BuildEnvironmentRequest(environments=[infinite()]),
        INVALID,
        "environments[0].configuration.x",
    ),
    (
        "BuildEnvironment",
        revision_pb2.BuildEnvironmentRequest(environments=[hollow()]),
        INVALID,
        "environments[0].configuration.x?[2J[0]",
    ),
    (
        "PlanApplication",
        revision_pb2.PlanApplicationRequest(application=Register(entrypoint="no colon")),
        INVALID,
        "entrypoint",
    ),
    ("RegisterApplication", Register(), INVALID, "function"),
    ("RegisterApplication", Register(**code(function=run_pb2.SerializedObject())), INVALID, "function.method"),
    (
        "RegisterApplication",
        Register(**code(function=run_pb2.SerializedObject(method="os; rm", definition=b"x"))),
        INVALID,
        "function.method",
    ),
    (
        "RegisterApplication",
        Register(**code(function=run_pb2.SerializedObject(method="json"))),
        INVALID,
        "function.definition",
    ),
    ("RegisterApplication", Register(entrypoint="no colon"), INVALID, "entrypoint"),
    ("RegisterApplication", Register(**code(auth_mode=5)), INVALID, "auth_mode"),
    ("RegisterApplication", Register(**code(deployment_strategy=5)), INVALID, "deployment_strategy"),
    ("RegisterApplication", Register(**code(skip_retry_conditions=[9])), INVALID, "skip_retry_conditions"),
    ("RegisterApplication", Register(**code(retry_config="[")), INVALID, "retry_config"),
    (
        "RegisterApplication",
        Register(**code(termination_grace_period_seconds=-1)),
        INVALID,
        "termination_grace_period_seconds",
    ),
    ("RegisterApplication", Register(**code(env_id="../../etc")), INVALID, "env_id"),
    ("RegisterApplication", Register(**code(health_check_path="no")), INVALID, "health_check_path"),
    (
        "RegisterApplication",
        Register(**code(health_check_config=Health(path="/h", timeout_seconds=0))),
        INVALID,
        "health_check_config.timeout_seconds",
    ),
    (
        "RegisterApplication",
        Register(**code(health_check_config=Health(path="/h", method=4))),
        INVALID,
        "health_check_config.method",
    ),
    (
        "RegisterApplication",
        Register(**code(machine_requirements=Machine(exposed_port=0))),
        INVALID,
        "exposed_port",
    ),
    (
        "RegisterApplication",
        Register(**code(machine_requirements=Machine(metrics_port=70_000))),
        INVALID,
        "metrics_port",
    ),
    ("RegisterApplication", Register(**code(machine_requirements=Machine(num_gpus=-1))), INVALID, "num_gpus"),
    ("RegisterApplication", Register(**code(files=[File(hash="x")])), INVALID, "files[0].hash"),
    (
        "RegisterApplication",
        Register(**code(files=[File(hash="0" * 64, relative_path="../../etc/passwd")])),
        INVALID,
        "files[0].relative_path",
    ),
    (
        "RegisterApplication",
        Register(**code(files=[File(hash="0" * 64, relative_path="/etc/passwd")])),
        INVALID,
        "files[0].relative_path",
    ),
    (
        "RegisterApplication",
        Register(**code(volumes=[run_pb2.VolumeMount(volume_name="v", mount_path="/v")])),
        grpc.StatusCode.UNIMPLEMENTED,
        "",
    ),
    ("Run", run_pb2.HostedRun(), INVALID, "function"),
    ("Run", run_pb2.HostedRun(**code(setup_func=run_pb2.SerializedObject(method="x y"))), INVALID, "setup_func.method"),
    ("Run", run_pb2.HostedRun(entrypoint=HUGE), INVALID, "entrypoint"),
    ("Map", run_pb2.HostedMap(), grpc.StatusCode.UNIMPLEMENTED, ""),
    ("InteractiveRun", run_pb2.InteractiveRunRequest(), grpc.StatusCode.UNIMPLEMENTED, ""),
    # Runners
    ("ListRunners", stamped(runner_pb2.ListRunnersRequest, -(10**14)), INVALID, "start_time"),
    ("ListRunners", stamped(runner_pb2.ListRunnersRequest, 2**63 - 1), INVALID, "start_time"),
    ("ListRunners", stamped(runner_pb2.ListRunnersRequest, 0, -1), INVALID, "start_time"),
    ("ListRunners", stamped(runner_pb2.ListRunnersRequest, 0, 10**9), INVALID, "start_time"),
    ("ListAliasRunners", runner_pb2.ListAliasRunnersRequest(), INVALID, "alias"),
    ("ListAliasRunners", runner_pb2.ListAliasRunnersRequest(alias="none"), MISSING, ""),
    ("GetRunner", runner_pb2.GetRunnerRequest(), INVALID, "runner_id"),
    ("GetRunner", runner_pb2.GetRunnerRequest(runner_id="none"), MISSING, ""),
    ("StopRunner", runner_pb2.StopRunnerRequest(runner_id=HUGE), INVALID, "runner_id"),
    ("StopRunner", runner_pb2.StopRunnerRequest(runner_id="none"), MISSING, ""),
    ("ExplainApp", app_pb2.ExplainAppRequest(), INVALID, "application_name"),
    ("ExplainApp", app_pb2.ExplainAppRequest(application_name="none"), MISSING, ""),
    ("SimulateApp", app_pb2.SimulateAppRequest(), INVALID, "arrivals"),
    ("SimulateApp", app_pb2.SimulateAppRequest(application_name="none", arrivals=[ONE]), MISSING, ""),
    ("SimulateApp", app_pb2.SimulateAppRequest(settings={"color": 1}, arrivals=[ONE]), INVALID, "settings"),
    ("SimulateApp", app_pb2.SimulateAppRequest(settings={"keep_alive": -1}, arrivals=[ONE]), INVALID, "keep_alive"),
    ("SimulateApp", app_pb2.SimulateAppRequest(arrivals=[ONE], start_seconds=-1), INVALID, "start_seconds"),
    ("SimulateApp", app_pb2.SimulateAppRequest(arrivals=[LATE]), INVALID, "arrivals"),
    ("KillRunner", runner_pb2.KillRunnerRequest(runner_id="-1; drop"), INVALID, "runner_id"),
    ("KillRunner", runner_pb2.KillRunnerRequest(runner_id="none"), MISSING, ""),
    ("ShellRunner", runner_pb2.ShellRunnerInput(), INVALID, "runner_id"),
    ("ShellRunner", runner_pb2.ShellRunnerInput(runner_id="none"), MISSING, ""),
    ("ShellRunner", runner_pb2.ShellRunnerInput(runner_id="r", command=["a\0b"]), INVALID, "command"),
    ("ShellRunner", runner_pb2.ShellRunnerInput(runner_id="r", command=[""]), INVALID, "command"),
    ("ShellRunner", runner_pb2.ShellRunnerInput(runner_id="r", command=[HUGE, HUGE]), INVALID, "command"),
    (
        "ShellRunner",
        runner_pb2.ShellRunnerInput(runner_id="r", tty_size=runner_pb2.TerminalSize(height=-1, width=80)),
        INVALID,
        "tty_size",
    ),
    # Execs
    ("StartExec", exec_pb2.StartExecRequest(), INVALID, "runner_id"),
    ("StartExec", exec_pb2.StartExecRequest(runner_id="none"), MISSING, ""),
    ("ReadExec", exec_pb2.ReadExecRequest(runner_id="r"), INVALID, "exec_id"),
    ("ReadExec", exec_pb2.ReadExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    ("WriteExec", exec_pb2.WriteExecRequest(runner_id="r"), INVALID, "exec_id"),
    ("WriteExec", exec_pb2.WriteExecRequest(runner_id=HUGE, exec_id="e"), INVALID, "runner_id"),
    ("SignalExec", exec_pb2.SignalExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    ("ResizeExec", exec_pb2.ResizeExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    ("GetExec", exec_pb2.GetExecRequest(), INVALID, "exec_id"),
    ("GetExec", exec_pb2.GetExecRequest(exec_id="e"), MISSING, ""),
    ("ListExecs", exec_pb2.ListExecsRequest(runner_id="none"), MISSING, ""),
    ("CloseExec", exec_pb2.CloseExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    # Execs
    ("StartExec", exec_pb2.StartExecRequest(), INVALID, "runner_id"),
    ("StartExec", exec_pb2.StartExecRequest(runner_id="none"), MISSING, ""),
    ("ReadExec", exec_pb2.ReadExecRequest(runner_id="r"), INVALID, "exec_id"),
    ("ReadExec", exec_pb2.ReadExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    ("WriteExec", exec_pb2.WriteExecRequest(runner_id="r"), INVALID, "exec_id"),
    ("WriteExec", exec_pb2.WriteExecRequest(runner_id=HUGE, exec_id="e"), INVALID, "runner_id"),
    ("SignalExec", exec_pb2.SignalExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    ("ResizeExec", exec_pb2.ResizeExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    ("GetExec", exec_pb2.GetExecRequest(), INVALID, "exec_id"),
    ("GetExec", exec_pb2.GetExecRequest(exec_id="e"), MISSING, ""),
    ("ListExecs", exec_pb2.ListExecsRequest(runner_id="none"), MISSING, ""),
    ("CloseExec", exec_pb2.CloseExecRequest(runner_id="none", exec_id="e"), MISSING, ""),
    # Logs
    ("ListLogs", log_pb2.ListLogsRequest(), INVALID, "selector"),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(runner_id="")), INVALID, "selector.runner_id"),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(runner_id="none")), MISSING, ""),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(app=log_pb2.AppLogTarget(app="no"))), MISSING, ""),
    (
        "ListLogs",
        log_pb2.ListLogsRequest(selector=Selector(app=log_pb2.AppLogTarget())),
        INVALID,
        "selector.app.app",
    ),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(runner_id="r"), lines=-1), INVALID, "lines"),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(runner_id="r"), page_size=-1), INVALID, "page_size"),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(runner_id="r"), order=9), INVALID, "order"),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(runner_id="r"), page_token="é"), INVALID, "page_token"),
    ("ListLogs", log_pb2.ListLogsRequest(selector=Selector(runner_id="r", sources=[0])), INVALID, "selector.sources"),
    (
        "ListLogs",
        stamped(log_pb2.ListLogsRequest, 0, -5, field="since", selector=Selector(runner_id="r")),
        INVALID,
        "since",
    ),
    ("FollowLogs", log_pb2.FollowLogsRequest(), INVALID, "selector"),
    ("FollowLogs", log_pb2.FollowLogsRequest(selector=Selector(runner_id="none")), MISSING, ""),
    ("FollowLogs", log_pb2.FollowLogsRequest(selector=Selector(runner_id="r"), cursor="????"), INVALID, "cursor"),
    ("FollowLogs", log_pb2.FollowLogsRequest(selector=Selector(runner_id="r"), cursor="W10"), INVALID, "cursor"),
    ("WatchApps", app_pb2.WatchAppsRequest(environment_name="No Where"), INVALID, "environment_name"),
    ("WatchApps", app_pb2.WatchAppsRequest(version="????"), INVALID, "version"),
    ("WatchRunners", runner_pb2.WatchRunnersRequest(alias="none"), MISSING, ""),
    ("WatchRunners", runner_pb2.WatchRunnersRequest(version="????"), INVALID, "version"),
    (
        "WatchRunners",
        stamped(runner_pb2.WatchRunnersRequest, 0, -5, field="start_time"),
        INVALID,
        "start_time",
    ),
]
