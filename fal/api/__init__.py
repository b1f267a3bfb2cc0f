"""The SDK: `from fal.api import SyncServerlessClient`, its namespaces and their types.

Names load at first use, so that a program without asyncio does not pay for importing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.api.accounts import AccountsNamespace
    from fal.api.aio.accounts import AsyncAccountsNamespace
    from fal.api.aio.apps import AsyncAppsNamespace
    from fal.api.aio.audit import AsyncAuditNamespace
    from fal.api.aio.client import AsyncServerlessClient
    from fal.api.aio.drains import AsyncDrainsNamespace
    from fal.api.aio.environments import AsyncEnvironmentsNamespace
    from fal.api.aio.keys import AsyncKeysNamespace
    from fal.api.aio.notices import AsyncNoticesNamespace
    from fal.api.aio.queue import AsyncQueueNamespace
    from fal.api.aio.requests import AsyncRequestsNamespace
    from fal.api.aio.runners import AsyncRunnersNamespace
    from fal.api.aio.secrets import AsyncSecretsNamespace
    from fal.api.apps import AppsNamespace
    from fal.api.audit import AuditNamespace
    from fal.api.client import SyncServerlessClient
    from fal.api.drains import DrainsNamespace
    from fal.api.environments import EnvironmentsNamespace
    from fal.api.keys import KeysNamespace
    from fal.api.notices import NoticesNamespace
    from fal.api.queue import QueueNamespace
    from fal.api.requests import RequestsNamespace
    from fal.api.runners import RunnersNamespace
    from fal.api.secrets import SecretsNamespace
    from fal.exceptions import (
        FalMissingDependencyError,
        FalSerializationError,
        FalServerlessError,
        FalServerlessException,
        InternalFalServerlessError,
        UserFunctionException,
    )
    from fal.queue import QueuedRequest, QueueState, WebhookDelivery
    from fal_grpc.adapter.account import AccountInfo, AccountKind, AccountQuotas, MemberRole, NewAccount, TeamMember
    from fal_grpc.adapter.app import AliasInfo, AuthMode, DeploymentStrategy, name_in_environment
    from fal_grpc.adapter.audit import AuditCheck, AuditEntry
    from fal_grpc.adapter.drain import LogDrain
    from fal_grpc.adapter.environment import EnvironmentInfo
    from fal_grpc.adapter.execs import ExecInfo
    from fal_grpc.adapter.key import Caller, KeyPreset, KeyScope, LoginToken, UserKeyInfo
    from fal_grpc.adapter.log import Log, LogEntry, LogLevel, LogOrigin
    from fal_grpc.adapter.node import GpuInfo, MachineTypeInfo, NodeInfo, NodeList
    from fal_grpc.adapter.notice import Notice, NoticeProblem
    from fal_grpc.adapter.request import DurationQuantiles, RequestRecord, RequestStats, RequestStatus
    from fal_grpc.adapter.revision import (
        ApplicationInfo,
        BuildResult,
        DeployPlan,
        PlannedChange,
        RegisteredRevision,
        RegisterResult,
    )
    from fal_grpc.adapter.run import RunResult, ServiceURLs
    from fal_grpc.adapter.runner import ReplaceState, RunnerInfo, RunnerState, RunnerUsage
    from fal_grpc.adapter.scaling import AppExplanation, AppSimulation
    from fal_grpc.adapter.secret import ServerlessSecret
    from fal_grpc.adapter.shell import ExecResult, ShellOutput
    from fal_grpc.adapter.values import JSON
    from fal_grpc.credentials import Credentials, KeyCredentials, NoCredentials, TokenCredentials
    from fal_grpc.errors import (
        AbortedError,
        AlreadyExistsError,
        ArgumentError,
        CallCancelledError,
        CallError,
        ClientClosedError,
        ConfigError,
        DataLossError,
        DeadlineExceededError,
        ExecLinkError,
        FailedPreconditionError,
        FalError,
        FieldViolation,
        InsecureChannelError,
        InternalError,
        InvalidArgumentError,
        KeyRejectedError,
        MissingCredentialsError,
        NotFoundError,
        OutOfRangeError,
        PermissionDeniedError,
        ResourceExhaustedError,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
        UnknownError,
        UnreachableError,
    )
    from fal_grpc.exec_session import ExecSession
    from fal_grpc.shell_session import ShellSession
    from fal_grpc.target import Target, parse_target, parse_targets

__all__ = [
    "JSON",
    "AbortedError",
    "AccountInfo",
    "AccountKind",
    "AccountQuotas",
    "AccountsNamespace",
    "AliasInfo",
    "AlreadyExistsError",
    "AppExplanation",
    "AppSimulation",
    "ApplicationInfo",
    "AppsNamespace",
    "ArgumentError",
    "AsyncAccountsNamespace",
    "AsyncAppsNamespace",
    "AsyncAuditNamespace",
    "AsyncDrainsNamespace",
    "AsyncEnvironmentsNamespace",
    "AsyncKeysNamespace",
    "AsyncNoticesNamespace",
    "AsyncQueueNamespace",
    "AsyncRequestsNamespace",
    "AsyncRunnersNamespace",
    "AsyncSecretsNamespace",
    "AsyncServerlessClient",
    "AuditCheck",
    "AuditEntry",
    "AuditNamespace",
    "AuthMode",
    "BuildResult",
    "CallCancelledError",
    "CallError",
    "Caller",
    "ClientClosedError",
    "ConfigError",
    "Credentials",
    "DataLossError",
    "DeadlineExceededError",
    "DeployPlan",
    "DeploymentStrategy",
    "DrainsNamespace",
    "DurationQuantiles",
    "EnvironmentInfo",
    "EnvironmentsNamespace",
    "ExecInfo",
    "ExecLinkError",
    "ExecResult",
    "ExecSession",
    "FailedPreconditionError",
    "FalError",
    "FalMissingDependencyError",
    "FalSerializationError",
    "FalServerlessError",
    "FalServerlessException",
    "FieldViolation",
    "GpuInfo",
    "InsecureChannelError",
    "InternalError",
    "InternalFalServerlessError",
    "InvalidArgumentError",
    "KeyCredentials",
    "KeyPreset",
    "KeyRejectedError",
    "KeyScope",
    "KeysNamespace",
    "Log",
    "LogDrain",
    "LogEntry",
    "LogLevel",
    "LogOrigin",
    "LoginToken",
    "MachineTypeInfo",
    "MemberRole",
    "MissingCredentialsError",
    "NewAccount",
    "NoCredentials",
    "NodeInfo",
    "NodeList",
    "NotFoundError",
    "Notice",
    "NoticeProblem",
    "NoticesNamespace",
    "OutOfRangeError",
    "PermissionDeniedError",
    "PlannedChange",
    "QueueNamespace",
    "QueueState",
    "QueuedRequest",
    "RegisterResult",
    "RegisteredRevision",
    "ReplaceState",
    "RequestRecord",
    "RequestStats",
    "RequestStatus",
    "RequestsNamespace",
    "ResourceExhaustedError",
    "RunResult",
    "RunnerInfo",
    "RunnerState",
    "RunnerUsage",
    "RunnersNamespace",
    "SecretsNamespace",
    "ServerlessSecret",
    "ServiceURLs",
    "ShellOutput",
    "ShellSession",
    "SyncServerlessClient",
    "Target",
    "TeamMember",
    "TokenCredentials",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "UnreachableError",
    "UserFunctionException",
    "UserKeyInfo",
    "WebhookDelivery",
    "name_in_environment",
    "parse_target",
    "parse_targets",
]

_MODULES = {
    "fal_grpc.adapter.request": ["DurationQuantiles", "RequestRecord", "RequestStats", "RequestStatus"],
    "fal.api.requests": ["RequestsNamespace"],
    "fal.api.aio.requests": ["AsyncRequestsNamespace"],
    "fal_grpc.adapter.audit": ["AuditCheck", "AuditEntry"],
    "fal.api.audit": ["AuditNamespace"],
    "fal.api.aio.audit": ["AsyncAuditNamespace"],
    "fal_grpc.adapter.drain": ["LogDrain"],
    "fal.api.drains": ["DrainsNamespace"],
    "fal.api.aio.drains": ["AsyncDrainsNamespace"],
    "fal_grpc.adapter.notice": ["Notice", "NoticeProblem"],
    "fal.api.notices": ["NoticesNamespace"],
    "fal.api.aio.notices": ["AsyncNoticesNamespace"],
    "fal_grpc.adapter.account": [
        "AccountInfo",
        "AccountKind",
        "AccountQuotas",
        "MemberRole",
        "NewAccount",
        "TeamMember",
    ],
    "fal.api.accounts": ["AccountsNamespace"],
    "fal.api.aio.accounts": ["AsyncAccountsNamespace"],
    "fal.api.aio.apps": ["AsyncAppsNamespace"],
    "fal.api.aio.client": ["AsyncServerlessClient"],
    "fal.api.aio.environments": ["AsyncEnvironmentsNamespace"],
    "fal.api.aio.keys": ["AsyncKeysNamespace"],
    "fal.api.aio.queue": ["AsyncQueueNamespace"],
    "fal.api.aio.runners": ["AsyncRunnersNamespace"],
    "fal.api.aio.secrets": ["AsyncSecretsNamespace"],
    "fal.api.apps": ["AppsNamespace"],
    "fal.api.client": ["SyncServerlessClient"],
    "fal.api.environments": ["EnvironmentsNamespace"],
    "fal.api.keys": ["KeysNamespace"],
    "fal.api.queue": ["QueueNamespace"],
    "fal.api.runners": ["RunnersNamespace"],
    "fal.api.secrets": ["SecretsNamespace"],
    "fal.exceptions": [
        "FalMissingDependencyError",
        "FalSerializationError",
        "FalServerlessError",
        "FalServerlessException",
        "InternalFalServerlessError",
        "UserFunctionException",
    ],
    "fal.queue": ["QueueState", "QueuedRequest", "WebhookDelivery"],
    "fal_grpc.adapter.app": ["AliasInfo", "AuthMode", "DeploymentStrategy", "name_in_environment"],
    "fal_grpc.adapter.environment": ["EnvironmentInfo"],
    "fal_grpc.adapter.execs": ["ExecInfo"],
    "fal_grpc.adapter.key": ["Caller", "KeyPreset", "KeyScope", "LoginToken", "UserKeyInfo"],
    "fal_grpc.adapter.log": ["Log", "LogEntry", "LogLevel", "LogOrigin"],
    "fal_grpc.adapter.revision": [
        "ApplicationInfo",
        "BuildResult",
        "DeployPlan",
        "PlannedChange",
        "RegisterResult",
        "RegisteredRevision",
    ],
    "fal_grpc.adapter.run": ["RunResult", "ServiceURLs"],
    "fal_grpc.adapter.node": ["GpuInfo", "MachineTypeInfo", "NodeInfo", "NodeList"],
    "fal_grpc.adapter.runner": ["ReplaceState", "RunnerInfo", "RunnerState", "RunnerUsage"],
    "fal_grpc.adapter.scaling": ["AppExplanation", "AppSimulation"],
    "fal_grpc.adapter.secret": ["ServerlessSecret"],
    "fal_grpc.adapter.shell": ["ExecResult", "ShellOutput"],
    "fal_grpc.adapter.values": ["JSON"],
    "fal_grpc.credentials": ["Credentials", "KeyCredentials", "NoCredentials", "TokenCredentials"],
    "fal_grpc.errors": [
        "AbortedError",
        "AlreadyExistsError",
        "ArgumentError",
        "CallCancelledError",
        "CallError",
        "ClientClosedError",
        "ConfigError",
        "DataLossError",
        "DeadlineExceededError",
        "ExecLinkError",
        "FailedPreconditionError",
        "FalError",
        "FieldViolation",
        "InsecureChannelError",
        "InternalError",
        "InvalidArgumentError",
        "KeyRejectedError",
        "MissingCredentialsError",
        "NotFoundError",
        "OutOfRangeError",
        "PermissionDeniedError",
        "ResourceExhaustedError",
        "UnauthenticatedError",
        "UnavailableError",
        "UnimplementedError",
        "UnknownError",
        "UnreachableError",
    ],
    "fal_grpc.exec_session": ["ExecSession"],
    "fal_grpc.shell_session": ["ShellSession"],
    "fal_grpc.target": ["Target", "parse_target", "parse_targets"],
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal.api' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(where), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
